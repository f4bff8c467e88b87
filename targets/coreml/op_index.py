"""Gathers and scatters. From iOS 17 on their indices must not be negative."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Rule, i32, text

__all__ = ["TABLE"]


def _positive(ctx: Context, node: ir.Node, sizes: Any) -> Any:
    """Indices (input 1) with negative ones counted from the end; ``sizes`` broadcasts."""
    value, out = node.inputs[1], node.outputs[0]
    array = constant(value)
    if array is not None:
        assert value is not None
        fixed = np.where(array < 0, array + sizes, array)
        return ctx.const(fixed.reshape(ctx.shape(value)), f"{value.name}__index")
    index = ctx.get(value)
    size = i32(sizes)
    negative = ctx.temp(out, "negative", "less", x=index, y=i32(0))
    moved = ctx.temp(out, "moved", "add", x=index, y=size)
    return ctx.temp(out, "index", "select", cond=negative, a=moved, b=index)


def _gather(ctx: Context, node: ir.Node) -> None:
    x, out = node.inputs[0], node.outputs[0]
    axis = node.attributes.get_int("axis", 0)
    index = _positive(ctx, node, ctx.shape(x)[axis])
    where = node.inputs[1]
    assert where is not None
    options = {"axis": i32(axis), "batch_dims": i32(0), **ctx.checked()}
    if shape_of(where):
        ctx.emit(out, "gather", x=ctx.get(x), indices=index, **options)
        return
    # A rank-0 index is held as shape (1,): drop the axis that it leaves.
    kept = ctx.temp(out, "kept", "gather", x=ctx.get(x), indices=index, **options)
    ctx.emit(out, "reshape", x=kept, shape=i32(ctx.shape(out)))


def _gather_elements(ctx: Context, node: ir.Node) -> None:
    x = node.inputs[0]
    axis = node.attributes.get_int("axis", 0)
    ctx.emit(
        node.outputs[0],
        "gather_along_axis",
        x=ctx.get(x),
        indices=_positive(ctx, node, ctx.shape(x)[axis]),
        axis=i32(axis),
        **ctx.checked(),
    )


def _sizes(ctx: Context, node: ir.Node, batch: int) -> Any:
    """Sizes of the axes that the last axis of the indices addresses."""
    depth = ctx.shape(node.inputs[1])[-1]
    return i32(ctx.shape(node.inputs[0])[batch : batch + depth])


def _gather_nd(ctx: Context, node: ir.Node) -> None:
    batch = node.attributes.get_int("batch_dims", 0)
    ctx.emit(
        node.outputs[0],
        "gather_nd",
        x=ctx.get(node.inputs[0]),
        indices=_positive(ctx, node, _sizes(ctx, node, batch)),
        batch_dims=i32(batch),
        **ctx.checked(),
    )


_MODES = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _scatter_nd(ctx: Context, node: ir.Node) -> None:
    ctx.emit(
        node.outputs[0],
        "scatter_nd",
        data=ctx.get(node.inputs[0]),
        indices=_positive(ctx, node, _sizes(ctx, node, 0)),
        updates=ctx.get(node.inputs[2]),
        mode=_MODES[text(node, "reduction", "none")],
        **ctx.checked(),
    )


def _no_bool(node: ir.Node) -> str | None:
    value = node.inputs[0]
    if value is not None and dtype_of(value) == np.bool_:
        return f"{node.op_type} of bool does not exist in ML programs"
    return None


TABLE: dict[str, Rule] = {
    "Gather": Rule(_gather, _no_bool),
    "GatherElements": Rule(_gather_elements, _no_bool),
    "GatherND": Rule(_gather_nd, _no_bool),
    "ScatterND": Rule(_scatter_nd, _no_bool),
}
