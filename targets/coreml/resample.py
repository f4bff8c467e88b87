"""The one-dimensional maps behind ONNX ``Resize`` (operator documentation, opset 19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "bilinear_grid", "indices", "known", "weights"]

Floats = NDArray[np.float64]

_CUBIC_TAPS = 4


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes:
        size: Elements before.
        new: Elements after.
        scale: Scale that the coordinates use; differs from ``new / size`` when the model
            gives scales that do not divide evenly.
    """

    size: int
    new: int
    scale: float


def _half_pixel(axis: Axis, out: Floats) -> Floats:
    return (out + 0.5) / axis.scale - 0.5


def _pytorch_half_pixel(axis: Axis, out: Floats) -> Floats:
    return _half_pixel(axis, out) if axis.new > 1 else np.zeros_like(out)


def _align_corners(axis: Axis, out: Floats) -> Floats:
    if axis.new == 1:
        return np.zeros_like(out)
    return out * (axis.size - 1) / (axis.new - 1)


def _half_pixel_symmetric(axis: Axis, out: Floats) -> Floats:
    adjustment = axis.new / (axis.scale * axis.size)
    return axis.size / 2 * (1 - adjustment) + _half_pixel(axis, out)


_COORDINATES: dict[str, Callable[[Axis, Floats], Floats]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": lambda axis, out: out / axis.scale,
    "half_pixel_symmetric": _half_pixel_symmetric,
}

_ROUND: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def known(coordinates: str, rounding: str) -> bool:
    """Whether both modes can be computed here (``tf_crop_and_resize`` cannot)."""
    return coordinates in _COORDINATES and rounding in _ROUND


def _source(axis: Axis, coordinates: str) -> Floats:
    return _COORDINATES[coordinates](axis, np.arange(axis.new, dtype=np.float64))


def indices(axis: Axis, coordinates: str, rounding: str) -> NDArray[np.int64]:
    """Input position of each output of a nearest-neighbor resize.

    A position that a float32 runtime sees at a rounding border is rounded like it is there:
    1e-6 is far below the distance of any two distinct candidates.
    """
    position = np.round(_source(axis, coordinates), 6)
    return np.clip(_ROUND[rounding](position), 0, axis.size - 1).astype(np.int64)


def _cubic(distance: Floats, a: float) -> Floats:
    """Keys' kernel, IEEE Trans. ASSP 29(6), 1981, eq. 4."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def weights(axis: Axis, coordinates: str, mode: str, a: float, exclude: bool) -> Floats:
    """The matrix ``[new, size]`` of a linear or cubic resize.

    Args:
        axis: Sizes and scale.
        coordinates: ``coordinate_transformation_mode``.
        mode: ``"linear"`` or ``"cubic"``.
        a: ``cubic_coeff_a``.
        exclude: ``exclude_outside``: taps outside weigh nothing, the rest sums to one.
    """
    x = _source(axis, coordinates)
    taps = _CUBIC_TAPS if mode == "cubic" else 2
    first = np.floor(x).astype(np.int64) - (taps // 2 - 1)
    matrix = np.zeros((axis.new, axis.size))
    for tap in range(taps):
        position = first + tap
        distance = x - position
        weight = _cubic(distance, a) if mode == "cubic" else 1 - np.abs(distance)
        inside = (position >= 0) & (position < axis.size)
        weight = np.where(inside, weight, 0.0) if exclude else weight
        np.add.at(matrix, (np.arange(axis.new), np.clip(position, 0, axis.size - 1)), weight)
    return matrix / matrix.sum(axis=1, keepdims=True) if exclude else matrix


def bilinear_grid(axis: Axis, mode: str) -> Floats:
    """The matrix of MIL's ``resize_bilinear`` (coremltools, iOS15/image_resizing.py)."""
    i = np.arange(axis.new, dtype=np.float64)
    if mode == "STRICT_ALIGN_CORNERS":
        x = i * (axis.size - 1) / max(axis.new - 1, 1)
    elif mode == "UNALIGN_CORNERS":
        x = (i + 0.5) * axis.size / axis.new - 0.5
    else:
        x = i * (axis.size - axis.size / axis.new) / max(axis.new - 1, 1)
    x = np.clip(x, 0, axis.size - 1)
    low = np.minimum(np.floor(x).astype(np.int64), axis.size - 1)
    high = np.minimum(low + 1, axis.size - 1)
    matrix = np.zeros((axis.new, axis.size))
    rows = np.arange(axis.new)
    np.add.at(matrix, (rows, low), 1 - (x - low))
    np.add.at(matrix, (rows, high), x - low)
    return matrix
