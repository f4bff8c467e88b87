"""Interpolation along one axis: what ONNX's Resize means, and what TFLite computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Axis",
    "interpolation_matrix",
    "native_linear",
    "native_nearest",
    "nearest_indices",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Axis:
    """One resized axis.

    Attributes:
        source: Its size before.
        target: Its size after.
        scale: The scale that ONNX computes coordinates with.
        mode: ``coordinate_transformation_mode``.
    """

    source: int
    target: int
    scale: float
    mode: str

    def coordinates(self) -> Array:
        """Source coordinate of each target position (ONNX, Resize, float64)."""
        x = np.arange(self.target, dtype=np.float64)
        if self.mode == "align_corners":
            span = self.target - 1
            return x * (self.source - 1) / span if span else np.zeros(1)
        if self.mode == "asymmetric":
            return x / self.scale
        if self.mode == "pytorch_half_pixel" and self.target == 1:
            return np.zeros(1)
        half = (x + 0.5) / self.scale - 0.5
        if self.mode != "half_pixel_symmetric":
            return half
        adjustment = self.target / (self.scale * self.source)
        return self.source / 2 * (1 - adjustment) + half


def nearest_indices(axis: Axis, rounding: str) -> Array:
    """Source index of each target position under a ``nearest_mode``."""
    x = axis.coordinates()
    found = {
        "round_prefer_floor": lambda: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda: np.floor(x + 0.5),
        "floor": lambda: np.floor(x),
        "ceil": lambda: np.ceil(x),
    }[rounding]()
    return found.clip(0, axis.source - 1).astype(np.int64)


def _native_scale(axis: Axis, align: bool) -> np.float32:
    """The float32 ratio that TFLite's kernels step with."""
    if align and axis.target > 1:
        return np.float32(axis.source - 1) / np.float32(axis.target - 1)
    return np.float32(axis.source) / np.float32(axis.target)


def native_nearest(axis: Axis, align_corners: bool, half_pixel: bool) -> Array:
    """The indices of RESIZE_NEAREST_NEIGHBOR, in its own float32 arithmetic."""
    step = _native_scale(axis, align_corners)
    offset = np.float32(0.5 if half_pixel else 0.0)
    x = (np.arange(axis.target, dtype=np.float32) + offset) * step
    whole = np.floor(x + np.float32(0.5)) if align_corners else np.floor(x)
    found: Array = whole.clip(0, axis.source - 1).astype(np.int64)
    return found


def _linear(x: Array, source: int) -> Array:
    """Rows of linear interpolation weights at coordinates ``x``; borders repeat."""
    low = np.floor(x)
    share = x - low
    rows = np.arange(len(x))
    matrix = np.zeros((len(x), source))
    np.add.at(matrix, (rows, low.clip(0, source - 1).astype(int)), 1 - share)
    np.add.at(matrix, (rows, (low + 1).clip(0, source - 1).astype(int)), share)
    return matrix


def native_linear(axis: Axis, align_corners: bool, half_pixel: bool) -> Array:
    """The weights of RESIZE_BILINEAR along one axis."""
    step = float(_native_scale(axis, align_corners))
    x = np.arange(axis.target, dtype=np.float64)
    x = (x + 0.5) * step - 0.5 if half_pixel else x * step
    return _linear(x, axis.source)


def _cubic(x: Array, axis: Axis, a: float, exclude_outside: bool) -> Array:
    """Rows of cubic convolution weights (Keys 1981, eq. 4, coefficient ``a``)."""
    low = np.floor(x).astype(int)
    rows = np.arange(len(x))
    matrix = np.zeros((len(x), axis.source))
    for tap in range(-1, 3):
        where = low + tap
        d = np.abs(x - where)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
        if exclude_outside:
            weight = np.where((where < 0) | (where >= axis.source), 0.0, weight)
        np.add.at(matrix, (rows, where.clip(0, axis.source - 1)), weight)
    return matrix / matrix.sum(axis=1, keepdims=True) if exclude_outside else matrix


def interpolation_matrix(axis: Axis, mode: str, cubic: float, exclude_outside: bool) -> Array:
    """The matrix [target, source] that ONNX's linear or cubic Resize applies to an axis."""
    x = axis.coordinates()
    if mode == "cubic":
        return _cubic(x, axis, cubic, exclude_outside)
    return _linear(x, axis.source)
