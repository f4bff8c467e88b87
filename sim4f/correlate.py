"""A 4f frame on real planes, as fast as two real-input transforms allow.

At matched sampling the two lenses and the mask are one circular convolution of the input plane
with the mask's impulse response (the inversion of the second lens is a relabelling of camera
pixels, undone when they are read). Nothing here has units: amplitude scale, devices and noise
belong to the wave path.

Kernels live in planes *at the origin*: tap (i, j) of a kernel is pixel (i, j), negative
offsets wrap around. An unwrapped result needs plane >= input + kernel - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Array, Namespace, fft2, filter_real, rfft2
from edgevit.sim4f.errors import Finding

__all__ = ["apply", "correlation", "place", "support_rule", "transfer", "transfer_half"]


def transfer_half(plane: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Transfer function of a real kernel plane (..., R, C): (..., R, C // 2 + 1) complex."""
    return rfft2(plane, xp=xp, workers=workers)


def transfer(plane: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Transfer function of a kernel plane as the whole (..., R, C) complex mask."""
    return fft2(plane, xp=xp, workers=workers)


def apply(planes: Array, half: Array, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Circular convolution of real planes with the kernel whose half spectrum is ``half``.

    Args:
        planes: (..., R, C) real; float32 stays float32.
        half: From ``transfer_half``, broadcast to the planes' spectra.
        xp: Array namespace.
        workers: Threads of the transforms (numpy only).
    """
    return filter_real(planes, half, xp=xp, workers=workers)


def correlation(half: Array, *, xp: Namespace = np) -> Array:
    """Half spectrum of the mirrored kernel: ``apply`` then correlates."""
    return xp.conj(half)


def place(
    kernel: npt.NDArray[Any], shape: tuple[int, int], offset: tuple[int, int] = (0, 0)
) -> npt.NDArray[Any]:
    """A plane with the (..., h, w) kernel's tap (0, 0) at ``offset``, cyclic."""
    h, w = kernel.shape[-2:]
    for axis, (k, n) in enumerate(zip((h, w), shape, strict=True)):
        support_rule(1, k, n, axis).require()
    plane = np.zeros((*kernel.shape[:-2], *shape), kernel.dtype)
    plane[..., :h, :w] = kernel
    return np.roll(plane, offset, axis=(-2, -1)) if any(offset) else plane


def support_rule(inputs: int, kernel: int, plane: int, axis: int) -> Finding:
    """The condition under which a circular convolution is a linear one along ``axis``."""
    return Finding(
        name=f"plane along {'yx'[axis]}",
        inequality="input support + kernel support - 1 <= plane",
        left=inputs + kernel - 1,
        right=plane,
        unit="px",
        advice="use a larger plane, split the input, or read only what the wrap spares",
    )
