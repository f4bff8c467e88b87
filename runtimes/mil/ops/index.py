"""Slices, gathers and scatters.

Source: coremltools ``ops/defs/iOS15/scatter_gather.py``, ``iOS16`` (``batch_dims``),
``iOS17`` (non-negative indices), ``iOS15/tensor_transformation.py`` (slices).

An index outside of the axis is an error here. Before iOS 17 a negative index counts from the
end; from iOS 17 on MIL leaves it undefined, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel, OutOfRange, integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _indices(ctx: Context, indices: Array, size: int) -> Array:
    """Indices into an axis of ``size``, made non-negative."""
    wide = indices.astype(np.int64)
    lowest = 0 if ctx.opset >= 17 else -size
    if wide.size and (int(wide.min()) < lowest or int(wide.max()) >= size):
        raise OutOfRange(
            f"expected indices within [{lowest}, {size}), found"
            f" {int(wide.min())} to {int(wide.max())}"
        )
    return np.where(wide < 0, wide + size, wide)


def _slice_by_index(
    _: Context,
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """``x[begin:end:stride, ...]``; a masked bound is open; a squeezed axis is indexed."""
    masks = (begin_mask, end_mask, squeeze_mask)
    return np.asarray(x[_window(x.ndim, begin, end, stride, masks)])


def _slice_update(
    _: Context,
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """``x`` with ``update`` in place of what ``slice_by_index`` would take."""
    masks = (begin_mask, end_mask, squeeze_mask)
    where = _window(x.ndim, begin, end, stride, masks)
    if x[where].shape != update.shape:
        raise ValueError(f"expected an update {list(x[where].shape)}: {list(update.shape)}")
    result = x.copy()
    result[where] = update
    return result


def _window(
    rank: int,
    begin: Array,
    end: Array,
    stride: Array | None,
    masks: tuple[Array | None, Array | None, Array | None],
) -> tuple[int | slice, ...]:
    """The index of numpy's that ``slice_by_index`` means."""
    begin_mask, end_mask, squeeze_mask = masks
    first, last = integers(begin, ()), integers(end, ())
    step = integers(stride, [1] * rank)
    open_first, open_last = integers(begin_mask, [0] * rank), integers(end_mask, [0] * rank)
    single = integers(squeeze_mask, [0] * rank)
    if not len(first) == len(last) == len(step) == rank:
        raise ValueError(f"expected bounds for {rank} axes, found {len(first)}, {len(last)}")
    where: list[int | slice] = []
    for i in range(rank):
        if single[i]:
            where.append(0 if open_first[i] else first[i])
            continue
        low = None if open_first[i] else first[i]
        where.append(slice(low, None if open_last[i] else last[i], step[i]))
    return tuple(where)


def _slice_by_size(_: Context, x: Array, begin: Array, size: Array) -> Array:
    """``x[begin : begin + size]`` along each axis; size -1 takes the rest."""
    where = []
    for length, first, count in zip(
        x.shape, integers(begin, ()), integers(size, ()), strict=True
    ):
        start = first + length if first < 0 else first
        stop = length if count == -1 else start + count
        if not 0 <= start <= stop <= length:
            raise ValueError(f"elements {start} to {stop} are not inside an axis of {length}")
        where.append(slice(start, stop))
    return x[tuple(where)]


def _gather(
    ctx: Context,
    x: Array,
    indices: Array,
    axis: Array | None = None,
    batch_dims: Array | None = None,
    validate_indices: Array | None = None,
) -> Array:
    """``x[..., indices, ...]`` at ``axis``; the first ``batch_dims`` axes run in parallel."""
    del validate_indices  # always validated
    along = (0 if axis is None else int(axis)) % x.ndim
    batch = 0 if batch_dims is None else int(batch_dims)
    places = _indices(ctx, indices, x.shape[along])
    if batch == 0:
        return np.take(x, places, axis=along)
    lead = x.shape[:batch]
    flat_x = x.reshape(-1, *x.shape[batch:])
    flat_places = places.reshape(-1, *places.shape[batch:])
    rows = [
        np.take(a, b, axis=along - batch) for a, b in zip(flat_x, flat_places, strict=True)
    ]
    result = np.stack(rows)
    return result.reshape(*lead, *result.shape[1:])


def _gather_along_axis(
    ctx: Context,
    x: Array,
    indices: Array,
    axis: Array | None = None,
    validate_indices: Array | None = None,
) -> Array:
    """``out[.., i, ..] = x[.., indices[.., i, ..], ..]`` along ``axis``."""
    del validate_indices  # always validated
    along = 0 if axis is None else int(axis)
    return np.take_along_axis(x, _indices(ctx, indices, x.shape[along]), along)


def _points(ctx: Context, x: Array, indices: Array, batch: int) -> tuple[Array, ...]:
    """The last axis of ``indices`` as one index array for each axis after ``batch``."""
    depth = indices.shape[-1]
    grids = np.meshgrid(
        *(np.arange(n) for n in x.shape[:batch]), indexing="ij", sparse=True
    )  # a batch index meets the batch axes of ``indices``
    trailing = indices.ndim - 1 - batch
    lead = tuple(g.reshape(*g.shape, *([1] * trailing)) for g in grids)
    places = tuple(_indices(ctx, indices[..., i], x.shape[batch + i]) for i in range(depth))
    return (*lead, *places)


def _gather_nd(
    ctx: Context,
    x: Array,
    indices: Array,
    batch_dims: Array | None = None,
    validate_indices: Array | None = None,
) -> Array:
    """``out[i] = x[indices[i]]``, the last axis of ``indices`` being a point of ``x``."""
    del validate_indices  # always validated
    batch = 0 if batch_dims is None else int(batch_dims)
    return np.asarray(x[_points(ctx, x, indices, batch)])


_COMBINE: dict[str, Callable[..., None]] = {
    "add": np.add.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
    "mul": np.multiply.at,
    "sub": np.subtract.at,
}


def _combine(data: Array, where: Any, updates: Array, mode: str) -> Array:
    """``data`` with ``updates`` combined in at ``where``; in order, where places repeat."""
    result = data.copy()
    if mode == "update":
        result[where] = updates
        return result
    if mode not in _COMBINE:
        raise ValueError(f"expected update or one of {sorted(_COMBINE)}, found {mode!r}")
    _COMBINE[mode](result, where, updates)
    return result


def _scatter(
    ctx: Context,
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | None = None,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """``data[.., indices[i], ..] (mode)= updates[.., i, ..]`` at ``axis``."""
    del validate_indices  # always validated
    along = (0 if axis is None else int(axis)) % data.ndim
    places = _indices(ctx, indices, data.shape[along])
    return _combine(data, (*[slice(None)] * along, places), updates, mode)


def _scatter_along_axis(
    ctx: Context,
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | None = None,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """``data[.., indices[.., i, ..], ..] (mode)= updates[.., i, ..]`` along ``axis``."""
    del validate_indices  # always validated
    along = (0 if axis is None else int(axis)) % data.ndim
    where: list[Array] = list(np.indices(indices.shape, sparse=True))
    where[along] = _indices(ctx, indices, data.shape[along])
    return _combine(data, tuple(where), updates, mode)


def _scatter_nd(
    ctx: Context,
    data: Array,
    indices: Array,
    updates: Array,
    mode: str = "add",
    validate_indices: Array | None = None,
) -> Array:
    """``data[indices[i]] (mode)= updates[i]``."""
    del validate_indices  # always validated
    return _combine(data, _points(ctx, data, indices, 0), updates, mode)


OPERATORS: dict[str, Kernel] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
}
