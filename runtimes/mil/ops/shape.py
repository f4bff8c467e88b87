"""Operators that move elements and compute nothing.

Source: coremltools ``ops/defs/iOS15/tensor_transformation.py``, ``iOS16`` and ``iOS17``
(``reshape``), ``iOS15/tensor_operation.py`` (``concat``, ``split``, ``stack``).
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel, Tensors, axes_of, integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _reshape(ctx: Context, x: Array, shape: Array) -> Array:
    """The elements of ``x`` in row-major order; -1 is what is left, 0 copies a size.

    A 0 takes the size in the same place, which from iOS 17 on is counted from the right.
    """
    wanted = list(integers(shape, ()))
    if 0 in wanted and ctx.opset < 17 and len(wanted) != x.ndim:
        raise ValueError(f"expected {x.ndim} sizes, as one is 0, found {wanted}")
    for i, size in enumerate(wanted):
        source = x.ndim - (len(wanted) - i)  # the same place counted from the right
        if size == 0:
            wanted[i] = x.shape[source] if source >= 0 else 1
    return x.reshape(wanted)


def _reshape_like(
    _: Context,
    x: Array,
    ref_tensors: Tensors,
    begins: Tensors,
    ends: Tensors,
    end_masks: Tensors,
) -> Array:
    """``x`` in the shape put together from ``ref_tensors[i].shape[begins[i]:ends[i]]``."""
    shape: list[int] = []
    for ref, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += ref.shape[int(begin) : (None if bool(mask) else int(end))]
    return x.reshape(shape)


def _transpose(_: Context, x: Array, perm: Array) -> Array:
    """Axis ``i`` of the result is axis ``perm[i]`` of ``x``."""
    return x.transpose(integers(perm, ()))


def _expand_dims(_: Context, x: Array, axes: Array) -> Array:
    """Axes of size 1 at ``axes`` of the result."""
    return np.expand_dims(x, integers(axes, ()))


def _squeeze(_: Context, x: Array, axes: Array | None = None) -> Array:
    """Without the axes of size 1 among ``axes`` (default: all); other sizes stay."""
    over = axes_of(axes, x.ndim)
    return np.squeeze(x, axis=tuple(axis for axis in over if x.shape[axis] == 1))


def _flatten2d(_: Context, x: Array, axis: Array | None = None) -> Array:
    """``[product of the sizes before axis, product of the rest]``; axis 1 by default."""
    cut = 1 if axis is None else int(axis)
    return x.reshape(int(np.prod(x.shape[:cut])), int(np.prod(x.shape[cut:])))


def _concat(
    _: Context, values: Tensors, axis: Array, interleave: Array | None = None
) -> Array:
    """Joined along ``axis``; interleaved: first elements of all, second elements, ..."""
    along = int(axis)
    if interleave is None or not bool(interleave):
        return np.concatenate([np.atleast_1d(v) for v in values], axis=along)
    place = along % values[0].ndim
    shape = list(values[0].shape)
    shape[place] *= len(values)
    return np.stack(values, axis=place + 1).reshape(shape)


def _stack(_: Context, values: Tensors, axis: Array) -> Array:
    """Joined along a new axis."""
    return np.stack(values, axis=int(axis))


def _split(
    _: Context,
    x: Array,
    axis: Array,
    num_splits: Array | None = None,
    split_sizes: Array | None = None,
) -> Tensors:
    """Cut along ``axis`` in ``num_splits`` equal parts, or in parts of ``split_sizes``."""
    along = int(axis)
    size = x.shape[along]
    if split_sizes is None:
        if num_splits is None or size % int(num_splits):
            raise ValueError(f"expected a number of parts that divides {size}: {num_splits}")
        sizes = [size // int(num_splits)] * int(num_splits)
    else:
        sizes = list(integers(split_sizes, ()))
    if sum(sizes) != size:
        raise ValueError(f"expected parts of {size} elements together, found {sizes}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=along))


def _reverse(_: Context, x: Array, axes: Array | None = None) -> Array:
    """Backwards along ``axes`` (default: all)."""
    return np.flip(x, axis=axes_of(axes, x.ndim))


def _reverse_sequence(
    _: Context,
    x: Array,
    lengths: Array,
    seq_axis: Array | None = None,
    batch_axis: Array | None = None,
) -> Array:
    """Backwards the first ``lengths[b]`` elements of each sequence ``b``."""
    seq = (0 if seq_axis is None else int(seq_axis)) % x.ndim
    batch = (0 if batch_axis is None else int(batch_axis)) % x.ndim
    moved = np.moveaxis(x, (batch, seq), (0, 1)).copy()
    for row, length in zip(moved, integers(lengths, ()), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(moved, (0, 1), (batch, seq))


def _blocks_in(x: Array, block: int) -> Array:
    """``[n, c, h / b, b, w / b, b]``."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // block, block, w // block, block)


def _space_to_depth(_: Context, x: Array, block_size: Array) -> Array:
    """Pixel ``(i, j)`` of each block becomes channel ``(i b + j) C + c``."""
    b = int(block_size)
    n, c, h, w = x.shape
    return _blocks_in(x, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _depth_to_space(_: Context, x: Array, block_size: Array) -> Array:
    """The inverse of ``space_to_depth``."""
    b = int(block_size)
    n, c, h, w = x.shape
    blocks = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // (b * b), h * b, w * b)


def _pixel_shuffle(_: Context, x: Array, upscale_factor: Array) -> Array:
    """Channel ``c f^2 + i f + j`` becomes pixel ``(i, j)`` of each block of channel ``c``."""
    f = int(upscale_factor)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c // (f * f), f, f, h, w).transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // (f * f), h * f, w * f)


def _pixel_unshuffle(_: Context, x: Array, downscale_factor: Array) -> Array:
    """The inverse of ``pixel_shuffle``."""
    f = int(downscale_factor)
    n, c, h, w = x.shape
    return _blocks_in(x, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f * f, h // f, w // f)


def _space_to_batch(_: Context, x: Array, block_shape: Array, paddings: Array) -> Array:
    """Zero-padded; pixel ``(i, j)`` of each block becomes batch ``(i bw + j) N + n``."""
    bh, bw = integers(block_shape, ())
    x = np.pad(x, [(0, 0), (0, 0), *paddings.astype(int).tolist()])
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // bh, bh, w // bw, bw).transpose(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * bh * bw, c, h // bh, w // bw)


def _batch_to_space(_: Context, x: Array, block_shape: Array, crops: Array) -> Array:
    """The inverse of ``space_to_batch``: ``crops`` are taken off the result."""
    bh, bw = integers(block_shape, ())
    n, c, h, w = x.shape
    blocks = x.reshape(bh, bw, n // (bh * bw), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    whole = blocks.reshape(n // (bh * bw), c, h * bh, w * bw)
    (top, bottom), (left, right) = crops.astype(int).tolist()
    return whole[:, :, top : h * bh - bottom, left : w * bw - right]


def _sliding_windows(
    _: Context, x: Array, axis: Array, size: Array, stride: Array | None = None
) -> Array:
    """Windows of ``size`` along ``axis``; the window's axis follows it."""
    along = int(axis) % x.ndim
    view = np.lib.stride_tricks.sliding_window_view(x, int(size), axis=along)
    every = slice(None, None, 1 if stride is None else int(stride))
    return np.moveaxis(view[(*[slice(None)] * along, every)], -1, along + 1)


OPERATORS: dict[str, Kernel] = {
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "sliding_windows": _sliding_windows,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}
