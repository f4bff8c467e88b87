"""Operators that make, pad, repeat or mask tensors.

Source: coremltools ``ops/defs/iOS15/tensor_operation.py``, ``iOS16/tensor_operation.py``,
``iOS15/image_resizing.py`` (``crop``).
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel, integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]

_PAD_MODES = {"reflect": "reflect", "replicate": "edge"}


def _pad(
    _: Context, x: Array, pad: Array, mode: str = "constant", constant_val: Array | None = None
) -> Array:
    """``pad[2 i]`` elements before and ``pad[2 i + 1]`` after each of the last axes.

    ``reflect`` mirrors without the edge, ``replicate`` repeats the edge.
    """
    flat = integers(pad, ())
    axes = len(flat) // 2
    if len(flat) % 2 or axes > x.ndim or min(flat, default=0) < 0:
        raise ValueError(f"expected non-negative pairs for at most {x.ndim} axes: {flat}")
    widths = [(0, 0)] * (x.ndim - axes) + list(zip(flat[0::2], flat[1::2], strict=True))
    if mode == "constant":
        value = 0 if constant_val is None else constant_val.item()
        return np.pad(x, widths, constant_values=value)
    if mode not in _PAD_MODES:
        raise ValueError(f"expected constant, reflect or replicate, found {mode!r}")
    for size, (before, after) in zip(x.shape, widths, strict=True):
        if max(before, after) > (size - 1 if mode == "reflect" else size):
            raise ValueError(f"{mode} padding of {before}, {after} on an axis of {size}")
    return np.pad(x, widths, mode=_PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]


def _crop(_: Context, x: Array, crop_height: Array, crop_width: Array) -> Array:
    """Without ``crop_height`` rows (top, bottom) and ``crop_width`` columns (left, right)."""
    top, bottom = integers(crop_height, ())
    left, right = integers(crop_width, ())
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _tile(_: Context, x: Array, reps: Array) -> Array:
    """``x`` repeated ``reps[i]`` times along axis ``i``."""
    return np.tile(x, integers(reps, ()))


def _fill(ctx: Context, shape: Array, value: Array | None = None) -> Array:
    """A tensor of ``shape`` full of ``value`` (default 0)."""
    return np.full(integers(shape, ()), 0 if value is None else value)


def _fill_like(ctx: Context, ref_tensor: Array, value: Array | None = None) -> Array:
    """A tensor of the shape of ``ref_tensor`` full of ``value`` (default 0)."""
    return np.full(ref_tensor.shape, 0 if value is None else value)


def _shape(_: Context, x: Array) -> Array:
    """The sizes of ``x``."""
    return np.array(x.shape, dtype=np.int32)


def _range_1d(_: Context, start: Array, end: Array, step: Array) -> Array:
    """``start, start + step, ...`` below ``end``."""
    return np.arange(start.item(), end.item(), step.item())


def _one_hot(
    _: Context,
    indices: Array,
    one_hot_vector_size: Array,
    axis: Array | None = None,
    on_value: Array | None = None,
    off_value: Array | None = None,
) -> Array:
    """``on_value`` at ``indices`` along a new ``axis`` (default: last), else ``off_value``."""
    size = int(one_hot_vector_size)
    hits = indices[..., None] == np.arange(size)
    on = 1 if on_value is None else on_value
    off = 0 if off_value is None else off_value
    place = -1 if axis is None else int(axis)
    return np.moveaxis(np.where(hits, on, off), -1, place)


def _band_part(
    _: Context, x: Array, lower: Array | None = None, upper: Array | None = None
) -> Array:
    """Zero outside of ``lower`` diagonals below and ``upper`` above the main; -1 keeps all."""
    below, above = -1 if lower is None else int(lower), -1 if upper is None else int(upper)
    row = np.arange(x.shape[-2])[:, None]
    column = np.arange(x.shape[-1])
    keep = ((below < 0) | (row - column <= below)) & ((above < 0) | (column - row <= above))
    return np.where(keep, x, np.zeros_like(x))


OPERATORS: dict[str, Kernel] = {
    "band_part": _band_part,
    "crop": _crop,
    "fill": _fill,
    "fill_like": _fill_like,
    "one_hot": _one_hot,
    "pad": _pad,
    "range_1d": _range_1d,
    "shape": _shape,
    "tile": _tile,
}
