"""Reductions, ArgMax, TopK, CumSum."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import data_of, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule, reduced_axes
from edgevit.targets.litert.table import Op, all_of, constant_input, floats

__all__ = ["OPS"]

_REDUCE = Rule("reduce", data=1)
_AXIS = Rule("same", last="axis", data=1)
_SAME = Rule("same", data=1)


def _axes(ctx: Context, group: Group) -> list[int]:
    """Where the reduced axes lie in the group's order."""
    return sorted(ctx.perm.index(a) for a in reduced_axes(group))


def _keeps(group: Group) -> bool:
    return bool(whole(group.head, "keepdims", 1))


def _result_perm(ctx: Context, group: Group) -> tuple[int, ...]:
    return _REDUCE.result(group, group.output, ctx.perm)


def _reduce(op: str) -> Callable[[Context, Group], None]:
    def lower(ctx: Context, group: Group) -> None:
        tensor = ctx.read(data_of(group.head), ctx.perm)
        which = ctx.constant("axes", _axes(ctx, group), "int32")
        options = schema.ReducerOptionsT(_keeps(group))
        ctx.result(op, [tensor, which], options=options, perm=_result_perm(ctx, group))

    return lower


def _l2(ctx: Context, group: Group) -> None:
    perm = _result_perm(ctx, group)
    tensor = ctx.read(data_of(group.head), ctx.perm)
    shape = ctx.writer.shape(tensor)
    square = ctx.emit("MUL", [tensor, tensor], shape, options=schema.MulOptionsT())
    which = ctx.constant("axes", _axes(ctx, group), "int32")
    options = schema.ReducerOptionsT(_keeps(group))
    out = permuted(shape_of(group.output), perm)
    total = ctx.emit("SUM", [square, which], out, options=options)
    ctx.result("SQRT", [total], perm=perm)


def _arg_max(ctx: Context, group: Group) -> None:
    """ARG_MAX drops its axis; with ``keepdims`` the result is only shaped again."""
    perm = _result_perm(ctx, group)
    tensor = ctx.read(data_of(group.head), ctx.perm)
    axis = _axes(ctx, group)[0]
    dims = ctx.writer.shape(tensor)
    shape = dims[:axis] + dims[axis + 1 :]
    which = ctx.constant("axis", axis, "int32")
    options = schema.ArgMaxOptionsT(schema.TensorType.INT64)
    ctx.result("ARG_MAX", [tensor, which], options=options, perm=perm, shape=shape)


def _first_of_equals(node: ir.Node) -> str | None:
    last = whole(node, "select_last_index", 0)
    return "select_last_index=1: ARG_MAX gives the first of equals" if last else None


def _top_k(ctx: Context, group: Group) -> None:
    """TOPK_V2 works on the last axis and counts in int32."""
    node = group.head
    tensor = ctx.read(data_of(node), ctx.perm)
    k = constant(node.inputs[1])
    if k is None:
        raise ValueError(f"node {node.name!r}: k is not constant")
    count = ctx.constant("k", int(k.reshape(-1)[0]), "int32")
    shape = permuted(shape_of(node.outputs[0]), ctx.perm)
    values = ctx.target(node.outputs[0], ctx.perm)
    indices = ctx.writer.tensor(f"{node.outputs[1].name}/int32", shape, "int32")
    ctx.writer.operator(
        "TOPK_V2", [tensor, count], [values, indices], options=schema.TopKV2OptionsT()
    )
    wide = ctx.target(node.outputs[1], ctx.perm)
    cast = schema.CastOptionsT(schema.TensorType.INT32, schema.TensorType.INT64)
    ctx.writer.operator("CAST", [indices], [wide], options=cast)


def _largest(node: ir.Node) -> str | None:
    return None if whole(node, "largest", 1) else "largest=0: TOPK_V2 gives the largest"


def _cum_sum(ctx: Context, group: Group) -> None:
    node = group.head
    value = data_of(node)
    axis = constant(node.inputs[1])
    if axis is None:
        raise ValueError(f"node {node.name!r}: the axis is not constant")
    logical = int(axis.reshape(-1)[0]) % len(shape_of(value))
    which = ctx.constant("axis", ctx.perm.index(logical), "int32")
    options = schema.CumsumOptionsT(
        bool(whole(node, "exclusive", 0)), bool(whole(node, "reverse", 0))
    )
    ctx.result("CUMSUM", [ctx.read(value, ctx.perm), which], options=options)


def _numeric(node: ir.Node) -> str | None:
    dtype = dtype_of(data_of(node)).name
    known = ("float32", "int32", "int64")
    return None if dtype in known else f"dtype {dtype}: only {', '.join(known)} have a kernel"


_AXES = all_of(_numeric, constant_input(1, "the axes"))

OPS: Mapping[str, Op] = {
    "ReduceMean": Op(_reduce("MEAN"), _REDUCE, all_of(floats, constant_input(1, "the axes"))),
    "ReduceSum": Op(_reduce("SUM"), _REDUCE, _AXES),
    "ReduceMax": Op(_reduce("REDUCE_MAX"), _REDUCE, _AXES),
    "ReduceMin": Op(_reduce("REDUCE_MIN"), _REDUCE, _AXES),
    "ReduceProd": Op(_reduce("REDUCE_PROD"), _REDUCE, _AXES),
    "ReduceL2": Op(_l2, _REDUCE, all_of(floats, constant_input(1, "the axes"))),
    "ArgMax": Op(_arg_max, _REDUCE, all_of(floats, _first_of_equals)),
    "TopK": Op(_top_k, _AXIS, all_of(floats, constant_input(1, "k"), _largest)),
    "CumSum": Op(_cum_sum, _SAME, all_of(_numeric, constant_input(1, "the axis"))),
}
