"""Gather and scatter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import data_of, text, whole
from edgevit.targets.litert.context import Context
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule, identity_perm
from edgevit.targets.litert.table import Op

__all__ = ["OPS"]

Array = np.ndarray[Any, Any]
_SAME = Rule("same", data=1)
_DROPS = Rule("reduce", data=1)
_PLAIN = Rule("plain")


def _gather_rule(group: Group) -> Rule:
    """One constant row of indices keeps the axes, one index drops one; else plain order."""
    indices = data_of(group.head, 1)
    if indices.const_value is None or data_of(group.head).const_value is not None:
        return _PLAIN
    return {1: _SAME, 0: _DROPS}.get(len(shape_of(indices)), _PLAIN)


def _positive(ctx: Context, indices: ir.Value, limit: Array) -> int:
    """Indices counted from the front: ``limit`` is added to negative ones."""
    array = constant(indices)
    if array is not None:
        front = np.where(array < 0, array + limit, array).astype(np.int32)
        return ctx.constant(f"{indices.name}", front)
    tensor, shape = ctx.read(indices), shape_of(indices)
    dtype = dtype_of(indices).name
    wrap = ctx.constant("limit", np.atleast_1d(limit), dtype)
    zero = ctx.constant("zero", [0], dtype)
    added = ctx.emit("ADD", [tensor, wrap], shape, options=schema.AddOptionsT())
    less = ctx.emit("LESS", [tensor, zero], shape, dtype="bool", options=schema.LessOptionsT())
    return ctx.emit(
        "SELECT_V2",
        [less, added, tensor],
        shape,
        dtype=dtype,
        options=schema.SelectV2OptionsT(),
    )


def _gather(ctx: Context, group: Group) -> None:
    node = group.head
    value, indices = data_of(node), data_of(node, 1)
    rule = _gather_rule(group)
    perm = ctx.perm if rule.flexible else identity_perm(len(shape_of(value)))
    logical = whole(node, "axis", 0)
    where = _positive(ctx, indices, np.asarray(shape_of(value)[logical]))
    options = schema.GatherOptionsT(axis=perm.index(logical))
    out = rule.result(group, group.output, perm) if rule.flexible else None
    plain = identity_perm(len(shape_of(group.output)))
    ctx.result(
        "GATHER",
        [ctx.read(value, perm), where],
        options=options,
        perm=plain if out is None else out,
    )


def _gather_nd(ctx: Context, group: Group) -> None:
    value, indices = data_of(group.head), data_of(group.head, 1)
    depth = shape_of(indices)[-1]
    where = _positive(ctx, indices, np.asarray(shape_of(value)[:depth]))
    ctx.result(
        "GATHER_ND",
        [ctx.read(value), where],
        options=schema.GatherNdOptionsT(),
        perm=identity_perm(len(shape_of(group.output))),
    )


def _no_batch(node: ir.Node) -> str | None:
    return "batch_dims > 0: GATHER_ND has none" if whole(node, "batch_dims", 0) else None


def _coordinates(indices: Array, axis: int, dims: tuple[int, ...]) -> Array:
    """Full coordinates [..., rank] of GatherElements."""
    grid: list[Array] = list(np.indices(indices.shape))
    grid[axis] = np.where(indices < 0, indices + dims[axis], indices)
    return np.stack(grid, axis=-1).astype(np.int32)


def _gather_elements(ctx: Context, group: Group) -> None:
    node = group.head
    value, array = data_of(node), constant(node.inputs[1])
    if array is None:
        raise ValueError(f"node {node.name!r}: the indices are not constant")
    where = ctx.constant(
        "coordinates", _coordinates(array, whole(node, "axis", 0), shape_of(value))
    )
    ctx.result(
        "GATHER_ND",
        [ctx.read(value), where],
        options=schema.GatherNdOptionsT(),
        perm=identity_perm(len(shape_of(group.output))),
    )


def _constant_indices(node: ir.Node) -> str | None:
    known = data_of(node, 1).const_value is not None
    return None if known else "the indices must be constant"


def _scatter_nd(ctx: Context, group: Group) -> None:
    """SCATTER_ND writes into zeros; a constant mask takes the rest from the data."""
    node = group.head
    value, updates = data_of(node), data_of(node, 2)
    dims = shape_of(value)
    if data_of(node, 1).const_value is None:
        _put_back(ctx, group)
        return
    where = _targets(node)
    mask = np.zeros(dims, bool)
    mask[tuple(np.moveaxis(where, -1, 0))] = True
    shape = ctx.constant("shape", dims, "int32")
    indices = ctx.constant("targets", where.astype(np.int32))
    written = ctx.emit(
        "SCATTER_ND",
        [indices, ctx.read(updates), shape],
        dims,
        dtype=dtype_of(value).name,
        options=schema.ScatterNdOptionsT(),
    )
    inputs = [ctx.constant("written", mask), written, ctx.read(value)]
    ctx.result(
        "SELECT_V2", inputs, options=schema.SelectV2OptionsT(), perm=identity_perm(len(dims))
    )


def _put_back(ctx: Context, group: Group) -> None:
    """Rows in an order that the data decides: every place is written, nothing is kept."""
    node = group.head
    dims, order = shape_of(data_of(node)), data_of(node, 1)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = schema.TensorType.INT64, schema.TensorType.INT32
    indices = ctx.emit("CAST", [ctx.read(order)], shape_of(order), dtype="int32", options=cast)
    ctx.result(
        "SCATTER_ND",
        [indices, ctx.read(data_of(node, 2)), ctx.constant("shape", dims, "int32")],
        options=schema.ScatterNdOptionsT(),
        perm=identity_perm(len(dims)),
    )


def _is_order(node: ir.Node) -> bool:
    """Whether the indices are a permutation of all rows: what sorting them gives."""
    column = data_of(node, 1).producer()
    if column is None or column.op_type not in ("Reshape", "Unsqueeze"):
        return False
    order = data_of(column)
    top = order.producer()
    if top is None or top.op_type != "TopK" or order is not top.outputs[1]:
        return False
    count = shape_of(data_of(node))[0]
    rows = shape_of(data_of(top)) == shape_of(order) == (count,)
    return rows and shape_of(data_of(node, 1)) == (count, 1)


def _targets(node: ir.Node) -> Array:
    array = constant(node.inputs[1])
    if array is None:
        raise ValueError(f"node {node.name!r}: the indices are not constant")
    limit = np.asarray(shape_of(data_of(node))[: array.shape[-1]])
    return np.where(array < 0, array + limit, array)


def _distinct(node: ir.Node) -> str | None:
    """SCATTER_ND adds what meets at one place; ONNX overwrites."""
    if data_of(node, 1).const_value is None:
        sorts = _is_order(node) and text(node, "reduction", "none") == "none"
        return (
            None if sorts else "the indices must be constant, or what TopK sorts all rows to"
        )
    if text(node, "reduction", "none") != "none":
        return "only reduction='none' is lowered"
    rows = _targets(node)
    rows = rows.reshape(-1, rows.shape[-1])
    repeated = len(np.unique(rows, axis=0)) < len(rows)
    return "two indices name the same place" if repeated else None


OPS: Mapping[str, Op] = {
    "Gather": Op(_gather, _gather_rule),
    "GatherND": Op(_gather_nd, _PLAIN, _no_batch),
    "GatherElements": Op(_gather_elements, _PLAIN, _constant_indices),
    "ScatterND": Op(_scatter_nd, _PLAIN, _distinct),
}
