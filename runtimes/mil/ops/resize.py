"""Resizing of the last axes, and crops that are resized.

Source: coremltools ``ops/defs/iOS15/image_resizing.py``, ``iOS16`` and ``iOS17``.

A size ``n`` becomes a size ``m`` by sampling ``m`` grid points of ``[0, n - 1]``; where they
lie is the sampling mode. Interpolation is linear along each axis in turn.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel, axes_of, integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS", "grid"]


def grid(mode: str, low: float, high: float, m: int) -> Array:
    """``m`` sampling points of the interval ``[low, high]`` of ``high - low + 1`` pixels.

    Float64. The formulas are those of ``resize_bilinear``, shifted by ``low``.
    """
    i = np.arange(m, dtype=np.float64)
    n = high - low + 1
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if m == 1:
            return np.array([low if mode.startswith("STRICT") else (low + high) / 2])
        points = i * (n - 1) / (m - 1)
    elif mode == "DEFAULT":
        points = i * n / m  # (n - n/m) / (m - 1) is n / m
    elif mode == "OFFSET_CORNERS":
        points = (i + 0.5) * max(1.0, n - 1) / m
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * n / m - 0.5
    else:
        raise ValueError(f"expected one of the five sampling modes, found {mode!r}")
    return np.asarray(low + np.clip(points, 0.0, n - 1))


def _lerp(x: Array, points: Array, axis: int) -> Array:
    """``x`` linearly interpolated at ``points`` of ``axis``, all inside of it."""
    below = np.minimum(np.floor(points).astype(np.int64), x.shape[axis] - 1)
    above = np.minimum(below + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = (points - below).astype(np.float32).reshape(shape)
    first, second = np.take(x, below, axis), np.take(x, above, axis)
    return np.asarray(first + weight * (second - first))


def _bilinear(x: Array, height: int, width: int, mode: str) -> Array:
    tall = _lerp(x, grid(mode, 0, x.shape[-2] - 1, height), x.ndim - 2)
    return _lerp(tall, grid(mode, 0, x.shape[-1] - 1, width), x.ndim - 1)


def _floor_nearest(x: Array, sizes: tuple[int, ...]) -> Array:
    """The element at ``floor(i n / m)``, in integers, along the last axes."""
    for axis, m in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        x = np.take(x, np.arange(m) * x.shape[axis] // m, axis)
    return x


def _rounded_nearest(x: Array, sizes: tuple[int, ...], mode: str) -> Array:
    """The element nearest to each grid point; a point halfway is not defined by MIL."""
    for axis, m in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        points = grid(mode, 0, x.shape[axis] - 1, m)
        if np.any(np.isclose(np.mod(points, 1.0), 0.5, rtol=0.0, atol=1e-9)):
            raise ValueError(
                f"{mode} from {x.shape[axis]} to {m} samples halfway between two elements,"
                " where MIL does not say which is nearest"
            )
        x = np.take(x, np.round(points).astype(np.int64), axis)
    return x


def _scaled(size: int, factor: Array | None) -> int:
    return int(np.floor(size * (1 if factor is None else factor)))


def _upsample_nearest_neighbor(
    _: Context,
    x: Array,
    scale_factor_height: Array | None = None,
    scale_factor_width: Array | None = None,
) -> Array:
    """``out[i] = x[floor(i n / m)]`` with ``m = floor(n factor)``, on the last two axes."""
    height = _scaled(x.shape[-2], scale_factor_height)
    return _floor_nearest(x, (height, _scaled(x.shape[-1], scale_factor_width)))


def _resize_nearest_neighbor(
    _: Context, x: Array, target_size_height: Array, target_size_width: Array
) -> Array:
    """``out[i] = x[floor(i n / m)]`` on the last two axes."""
    return _floor_nearest(x, (int(target_size_height), int(target_size_width)))


def _upsample_bilinear(
    _: Context,
    x: Array,
    scale_factor_height: Array | None = None,
    scale_factor_width: Array | None = None,
    align_corners: Array | None = None,
    half_pixel_centers: Array | None = None,
) -> Array:
    """Bilinear to ``floor(n factor)``; corners aligned by default, else half-pixel centers."""
    align = align_corners is None or bool(align_corners)
    half = not align if half_pixel_centers is None else bool(half_pixel_centers)
    if align and half:
        raise ValueError("expected align_corners or half_pixel_centers, found both")
    mode = "STRICT_ALIGN_CORNERS" if align else ("UNALIGN_CORNERS" if half else "DEFAULT")
    height = _scaled(x.shape[-2], scale_factor_height)
    return _bilinear(x, height, _scaled(x.shape[-1], scale_factor_width), mode)


def _resize_bilinear(
    _: Context,
    x: Array,
    target_size_height: Array | None = None,
    target_size_width: Array | None = None,
    sampling_mode: str = "DEFAULT",
) -> Array:
    """Bilinear to a size, on the last two axes."""
    height = 1 if target_size_height is None else int(target_size_height)
    width = 1 if target_size_width is None else int(target_size_width)
    return _bilinear(x, height, width, sampling_mode)


def _resize(
    _: Context,
    x: Array,
    shape: Array,
    resized_dims: Array,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """The last ``resized_dims`` axes to the last sizes of ``shape``; size 0 keeps."""
    count = int(resized_dims)
    wanted = integers(shape, ())
    if not 0 <= count <= len(wanted) <= x.ndim:
        raise ValueError(f"expected at most {x.ndim} sizes and as many axes, found {wanted}")
    first = x.ndim - count
    sizes = tuple(m or x.shape[first + i] for i, m in enumerate(wanted[len(wanted) - count :]))
    if interpolation_mode == "NEAREST_NEIGHBOR":
        return _rounded_nearest(x, sizes, sampling_mode)
    if interpolation_mode != "LINEAR":
        raise ValueError(f"expected LINEAR or NEAREST_NEIGHBOR, found {interpolation_mode!r}")
    for axis, m in zip(axes_of(None, x.ndim)[first:], sizes, strict=True):
        x = _lerp(x, grid(sampling_mode, 0, x.shape[axis] - 1, m), axis)
    return x


OPERATORS: dict[str, Kernel] = {
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
}
