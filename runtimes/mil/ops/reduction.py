"""Reductions over axes, and sorting.

Source: coremltools ``ops/defs/iOS15/reduction.py``, ``iOS17/reduction.py``,
``iOS15/tensor_operation.py`` (``argsort``, ``topk``, ``cumsum``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgevit.runtimes.mil.arithmetic import round_half, total
from edgevit.runtimes.mil.context import Context, Kernel, axes_of
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]

_Reducer = Callable[[Context, Array, tuple[int, ...], bool], Array]


def _reduce(function: _Reducer) -> Kernel:
    """``function`` over ``axes`` (default: all), which stay as 1 if ``keep_dims``."""

    def kernel(
        ctx: Context, x: Array, axes: Array | None = None, keep_dims: Array | None = None
    ) -> Array:
        keep = keep_dims is not None and bool(keep_dims)
        return function(ctx, x, axes_of(axes, x.ndim), keep)

    return kernel


def _sum(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return total(x, axes, keepdims=keep, half=ctx.half)


def _mean(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return np.asarray(_sum(ctx, x, axes, keep) / x.dtype.type(count))


def _max(_: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.max(x, axis=axes, keepdims=keep))


def _min(_: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.min(x, axis=axes, keepdims=keep))


def _prod(_: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.prod(x, axis=axes, keepdims=keep, dtype=x.dtype))


def _l1(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return _sum(ctx, np.abs(x), axes, keep)


def _sum_square(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return _sum(ctx, np.square(x), axes, keep)


def _l2(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.sqrt(_sum_square(ctx, x, axes, keep)))


def _log_sum(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.log(_sum(ctx, x, axes, keep)))


def _log_sum_exp(ctx: Context, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    peak = np.max(x, axis=axes, keepdims=True)
    logs = np.log(_sum(ctx, np.exp(x - peak), axes, True)) + peak
    return np.asarray(logs if keep else np.squeeze(logs, axis=axes))


def _extreme(function: Callable[..., Array]) -> Kernel:
    """The index of the extreme along ``axis`` (default -1), the first of equals."""

    def kernel(
        ctx: Context,
        x: Array,
        axis: Array | None = None,
        keep_dims: Array | None = None,
        output_dtype: str = "int32",
    ) -> Array:
        if ctx.outputs[0].dtype != output_dtype:
            raise ValueError(f"expected {output_dtype} declared, found {ctx.outputs[0].dtype}")
        keep = keep_dims is not None and bool(keep_dims)
        return function(x, axis=-1 if axis is None else int(axis), keepdims=keep)

    return kernel


def _order(x: Array, axis: int, ascending: bool) -> Array:
    """Indices that sort ``x``; equal elements stay in order."""
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    # integers in int64, whose negation cannot overflow
    wide = x if x.dtype.kind == "f" else x.astype(np.int64)
    return np.argsort(-wide, axis=axis, kind="stable")


def _argsort(
    _: Context, x: Array, axis: Array | None = None, ascending: Array | None = None
) -> Array:
    """Indices that sort ``x`` along ``axis`` (default -1), descending by default."""
    along = -1 if axis is None else int(axis)
    return _order(x, along, ascending is not None and bool(ascending))


def _topk(
    ctx: Context,
    x: Array,
    k: Array | None = None,
    axis: Array | None = None,
    ascending: Array | None = None,
    sort: Array | None = None,
    return_indices: Array | None = None,
    output_indices_dtype: str = "int32",
) -> tuple[Array, ...]:
    """The ``k`` largest (smallest if ``ascending``) elements along ``axis``, and their places.

    ``k = -1`` takes all. Always sorted: MIL leaves the order open for ``sort = False``.
    """
    del sort  # see above
    along = -1 if axis is None else int(axis)
    count = 1 if k is None else int(k)
    if count > x.shape[along] or count < -1:
        raise ValueError(f"expected k within [-1, {x.shape[along]}], found {count}")
    order = _order(x, along, ascending is not None and bool(ascending))
    if count >= 0:
        order = np.take(order, np.arange(count), axis=along)
    values = np.take_along_axis(x, order, axis=along)
    if return_indices is not None and not bool(return_indices):
        return (values,)
    if len(ctx.outputs) > 1 and ctx.outputs[1].dtype != output_indices_dtype:
        raise ValueError(f"expected {output_indices_dtype} indices declared")
    return values, order


def _cumsum(
    ctx: Context,
    x: Array,
    axis: Array | None = None,
    exclusive: Array | None = None,
    reverse: Array | None = None,
) -> Array:
    """Running sum along ``axis`` (default 0); exclusive: of the elements before; reverse."""
    along = 0 if axis is None else int(axis)
    flip = reverse is not None and bool(reverse)
    terms = np.moveaxis(np.flip(x, along) if flip else x, along, 0)
    if ctx.half:
        sums = terms.copy()
        for i in range(1, len(sums)):
            sums[i] = round_half(sums[i - 1] + terms[i])
    else:
        sums = np.cumsum(terms, axis=0, dtype=x.dtype)
    if exclusive is not None and bool(exclusive):
        sums = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
    result = np.moveaxis(sums, 0, along)
    return np.flip(result, along) if flip else result


OPERATORS: dict[str, Kernel] = {
    "argsort": _argsort,
    "cumsum": _cumsum,
    "reduce_argmax": _extreme(np.argmax),
    "reduce_argmin": _extreme(np.argmin),
    "reduce_l1_norm": _reduce(_l1),  # sum |x|
    "reduce_l2_norm": _reduce(_l2),  # sqrt(sum x^2)
    "reduce_log_sum": _reduce(_log_sum),  # log(sum x)
    "reduce_log_sum_exp": _reduce(_log_sum_exp),  # log(sum e^x)
    "reduce_max": _reduce(_max),
    "reduce_mean": _reduce(_mean),
    "reduce_min": _reduce(_min),
    "reduce_prod": _reduce(_prod),
    "reduce_sum": _reduce(_sum),
    "reduce_sum_square": _reduce(_sum_square),  # sum x^2
    "topk": _topk,
}
