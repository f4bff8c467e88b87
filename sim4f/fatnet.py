"""The metric and the timings of FatNet, recomputed.

Ibadulla, Chen and Reyes-Aldasoro, AI 4(2), 361 (2023). Their count of "convolution operations"
is the sum over layers of C_in * C_out; it knows neither pixels nor sign frames. Their
published optical timings follow to every printed digit from 2 us an operation with a whole
batch in one pass (our reconstruction: the paper does not print the rule), where the largest
batch, 3136, is the number of 32 x 32 images that fit beside 7 x 7 kernels on 2160 pixels
squared.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgevit.sim4f.errors import require

__all__ = ["FATNET", "RESNET18", "channel_products", "seconds_per_sample", "tiles_per_pass"]

# (C_in, C_out, kernel, map) of the convolutions in the authors' model file.
RESNET18: tuple[tuple[int, int, int, int], ...] = (
    (3, 64, 7, 32),
    *((64, 64, 3, 16),) * 4,
    (64, 128, 3, 16),
    *((128, 128, 3, 8),) * 3,
    (128, 256, 3, 8),
    *((256, 256, 3, 4),) * 3,
    (256, 512, 3, 4),
    *((512, 512, 3, 2),) * 3,
)
# Without the classifier's convolution (155, 1, 10, 10), which the published count leaves out.
FATNET: tuple[tuple[int, int, int, int], ...] = (
    (3, 64, 7, 32),
    *((64, 64, 3, 16),) * 4,
    (64, 82, 4, 16),
    *((82, 82, 5, 10),) * 3,
    (82, 78, 7, 10),
    *((78, 78, 10, 10),) * 3,
    (78, 151, 10, 10),
    (151, 155, 10, 10),
    (155, 151, 10, 10),
    (151, 155, 10, 10),
)


def channel_products(layers: Iterable[tuple[int, int, int, int]]) -> int:
    """FatNet's number of convolution operations: sum of C_in * C_out."""
    return sum(c_in * c_out for c_in, c_out, _, _ in layers)


def tiles_per_pass(plane: int, image: int, kernel: int) -> int:
    """Images that fit on a square plane beside one kernel: floor(R / (M + k - 1))^2.

    Raises:
        ParameterError: Not even one fits.
    """
    across = plane // (image + kernel - 1)
    require(across >= 1, "plane", f"R >= M + k - 1 = {image + kernel - 1} px", plane)
    return across * across


def seconds_per_sample(operations: int, batch: int, per_operation: float) -> float:
    """Seconds per sample with the whole batch in every pass."""
    require(batch >= 1, "batch", ">= 1", batch)
    return operations * per_operation / batch
