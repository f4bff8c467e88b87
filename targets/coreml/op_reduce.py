"""Reductions, arg-max, top-k, cumulative sums."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Lower, Rule, i32, ints_in

__all__ = ["TABLE"]


def _axes(node: ir.Node) -> list[int]:
    """Reduced axes; none given means all, unless ``noop_with_empty_axes``."""
    x = node.inputs[0]
    assert x is not None
    given = ints_in(node, 1)
    if given:
        return given
    return (
        []
        if node.attributes.get_int("noop_with_empty_axes", 0)
        else list(range(len(shape_of(x))))
    )


def _reduce(op: str) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        x, out = ctx.get(node.inputs[0]), node.outputs[0]
        axes = sorted(ctx.axis(axis) for axis in _axes(node))
        if not axes:
            ctx.bind(out, x)
            return
        keep = bool(node.attributes.get_int("keepdims", 1))
        if keep or len(axes) < len(x.shape):
            ctx.emit(out, op, x=x, axes=i32(axes), keep_dims=keep)
            return
        # Nothing would remain: the program holds a rank-0 tensor as shape (1,).
        total = ctx.temp(out, "total", op, x=x, axes=i32(axes), keep_dims=True)
        ctx.emit(out, "reshape", x=total, shape=i32([1]))

    return lower


def _refuse_reduce(node: ir.Node) -> str | None:
    value = node.inputs[0]
    if value is not None and dtype_of(value) == np.bool_:
        return f"{node.op_type} of bool does not exist in ML programs"
    if len(node.inputs) > 1 and node.inputs[1] is not None and ints_in(node, 1) is None:
        return "the axes are not constant"
    return None


def _float_reduce(node: ir.Node) -> str | None:
    value = node.inputs[0]
    if value is not None and not np.issubdtype(dtype_of(value), np.floating):
        return f"{node.op_type} of {dtype_of(value)} rounds differently in ML programs"
    return _refuse_reduce(node)


def _arg_max(ctx: Context, node: ir.Node) -> None:
    ctx.emit(
        node.outputs[0],
        "reduce_argmax",
        x=ctx.get(node.inputs[0]),
        axis=i32(ctx.axis(node.attributes.get_int("axis", 0))),
        keep_dims=bool(node.attributes.get_int("keepdims", 1)),
    )


def _refuse_arg_max(node: ir.Node) -> str | None:
    if node.attributes.get_int("select_last_index", 0):
        return "select_last_index=1: ML programs give the first index of a tie"
    if not shape_of(node.outputs[0]):
        return "the result has rank 0"
    return _refuse_reduce(node)


def _top_k(ctx: Context, node: ir.Node) -> None:
    values, indices = node.outputs
    count = ints_in(node, 1)
    assert count is not None
    base = ctx.names.claim(f"{values.name}__topk")
    best, where = ctx.mb.topk(
        x=ctx.get(node.inputs[0]),
        k=i32(count[0]),
        axis=i32(node.attributes.get_int("axis", -1)),
        ascending=not node.attributes.get_int("largest", 1),
        sort=bool(node.attributes.get_int("sorted", 1)),
        name=base,
    )
    for value, var in ((values, best), (indices, where)):
        var.name = ctx.name(value)
        ctx.bind(value, var)


def _refuse_top_k(node: ir.Node) -> str | None:
    return "k is not constant" if ints_in(node, 1) is None else None


def _cumsum(ctx: Context, node: ir.Node) -> None:
    axis = ints_in(node, 1)
    assert axis is not None
    ctx.emit(
        node.outputs[0],
        "cumsum",
        x=ctx.get(node.inputs[0]),
        axis=i32(axis[0]),
        exclusive=bool(node.attributes.get_int("exclusive", 0)),
        reverse=bool(node.attributes.get_int("reverse", 0)),
    )


def _refuse_cumsum(node: ir.Node) -> str | None:
    return "the axis is not constant" if constant(node.inputs[1]) is None else None


TABLE: dict[str, Rule] = {
    "ReduceMean": Rule(_reduce("reduce_mean"), _float_reduce, numbers=1),
    "ReduceSum": Rule(_reduce("reduce_sum"), _refuse_reduce, numbers=1),
    "ReduceMax": Rule(_reduce("reduce_max"), _refuse_reduce, numbers=1),
    "ReduceMin": Rule(_reduce("reduce_min"), _refuse_reduce, numbers=1),
    "ReduceProd": Rule(_reduce("reduce_prod"), _refuse_reduce, numbers=1),
    "ReduceL2": Rule(_reduce("reduce_l2_norm"), _float_reduce, numbers=1),
    "ArgMax": Rule(_arg_max, _refuse_arg_max, numbers=1),
    "TopK": Rule(_top_k, _refuse_top_k, numbers=1),
    "CumSum": Rule(_cumsum, _refuse_cumsum, numbers=1),
}
