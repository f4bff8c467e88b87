"""Elementwise operators: unary, binary with broadcasting, comparisons, Where, Cast."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import data_of
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.grouping import Group, activation_of
from edgevit.targets.litert.rules import Rule, aligned
from edgevit.targets.litert.table import Check, Op, all_of, floats
from edgevit.targets.litert.writer import DTYPES

__all__ = ["OPS", "broadcast_shapes", "fused", "operand_shape"]

_MAX_BROADCAST = 4  # highest rank at which every kernel broadcasts
_ANY = Rule("elementwise")


def fused(name: str) -> int:
    """Code of a fused activation."""
    return int(getattr(schema.ActivationFunctionType, name))


def operand_shape(value: ir.Value, perm: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an operand aligned on the right to ``len(perm)`` axes, then permuted."""
    shape = shape_of(value)
    return permuted((1,) * (len(perm) - len(shape)) + shape, perm)


def broadcast_shapes(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Merge neighboring axes on which all operands broadcast alike.

    The result has as few axes as possible, at least one.
    """
    full = np.broadcast_shapes(*shapes)
    merged: list[list[int]] = [[] for _ in shapes]
    last: tuple[bool, ...] | None = None
    for axis, dim in enumerate(full):
        if dim == 1:
            continue
        pattern = tuple(shape[axis] == dim for shape in shapes)
        for dims, present in zip(merged, pattern, strict=True):
            size = dim if present else 1
            if pattern == last:
                dims[-1] *= size
            else:
                dims.append(size)
        last = pattern
    return [tuple(dims) or (1,) for dims in merged]


def _fitting(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes that every kernel can broadcast."""
    if len(shapes[0]) <= _MAX_BROADCAST:
        return shapes
    return broadcast_shapes(shapes)


def operands(ctx: Context, values: list[ir.Value]) -> tuple[list[int], tuple[int, ...]]:
    """Read broadcasting operands in the group's order; also the result's shape."""
    perm = ctx.perm
    shapes = _fitting([operand_shape(v, perm) for v in values])
    tensors = []
    for value, shape in zip(values, shapes, strict=True):
        if value.const_value is not None and math.prod(shape) == 1:
            shape = (1,)
        tensors.append(ctx.read(value, aligned(perm, len(shape_of(value))), shape))
    full = np.broadcast_shapes(*shapes)
    if len(full) > _MAX_BROADCAST:
        tensors = [_expanded(ctx, tensor, full) for tensor in tensors]
    return tensors, full


def _expanded(ctx: Context, tensor: int, full: tuple[int, ...]) -> int:
    """The operand with all its elements written out."""
    if ctx.writer.shape(tensor) in (full, (1,)):
        return tensor
    target = ctx.constant("shape", full, "int32")
    options = schema.BroadcastToOptionsT()
    return ctx.emit("BROADCAST_TO", [tensor, target], full, options=options, version=2)


def _values(node: ir.Node) -> list[ir.Value]:
    return [data_of(node, i) for i in range(len(node.inputs))]


def _binary(op: str, options: Callable[..., Any] | None = None) -> Callable[..., None]:
    def lower(ctx: Context, group: Group) -> None:
        tensors, shape = operands(ctx, _values(group.head))
        made = None if options is None else options()
        if made is not None and hasattr(made, "fusedActivationFunction"):
            made.fusedActivationFunction = fused(group.activation)
        ctx.result(op, tensors, options=made, shape=shape)

    return lower


def unary_operand(ctx: Context, value: ir.Value) -> tuple[int, tuple[int, ...]]:
    """The operand in the group's order, in whatever shape it lies."""
    shape = ctx.lying_shape(value, ctx.perm)
    return ctx.read(value, ctx.perm, shape), shape


def _unary(op: str, options: Callable[[], Any] | None = None) -> Callable[..., None]:
    def lower(ctx: Context, group: Group) -> None:
        tensor, shape = unary_operand(ctx, data_of(group.head))
        ctx.result(op, [tensor], options=None if options is None else options(), shape=shape)

    return lower


def _dtypes(*allowed: str) -> Check:
    def check(node: ir.Node) -> str | None:
        dtype = dtype_of(data_of(node)).name
        known = " or ".join(allowed)
        return None if dtype in allowed else f"dtype {dtype}: only {known} has a kernel"

    return check


_NUMBERS = _dtypes("float32", "int32", "int64")


def _one_dtype(node: ir.Node) -> str | None:
    kinds = [dtype_of(v).name for v in _values(node)]
    return None if len(set(kinds)) == 1 else f"dtypes {', '.join(kinds)} must agree"


def _where(ctx: Context, group: Group) -> None:
    tensors, shape = operands(ctx, _values(group.head))
    ctx.result("SELECT_V2", tensors, options=schema.SelectV2OptionsT(), shape=shape)


def _cast(ctx: Context, group: Group) -> None:
    value = data_of(group.head)
    tensor, shape = unary_operand(ctx, value)
    options = schema.CastOptionsT(
        DTYPES[dtype_of(value).name], DTYPES[dtype_of(group.output).name]
    )
    ctx.result("CAST", [tensor], options=options, shape=shape)


def _truncating(node: ir.Node) -> str | None:
    """ONNX divides integers toward zero, as TFLite's DIV does; both must be int32."""
    dtype = dtype_of(data_of(node)).name
    return None if dtype in ("float32", "int32") else f"dtype {dtype}: DIV has no such kernel"


def _clip(ctx: Context, group: Group) -> None:
    value = data_of(group.head)
    tensor, shape = unary_operand(ctx, value)
    activation = activation_of(group.head)
    if activation is not None:
        ctx.result(activation, [tensor], shape=shape)
        return
    dtype = dtype_of(value)
    bounds = []
    for op, index in (("MAXIMUM", 1), ("MINIMUM", 2)):
        bound = constant(group.head.inputs[index]) if index < len(group.head.inputs) else None
        if bound is not None and not _unbounded(bound, dtype):
            bounds.append((op, ctx.constant(f"{op.lower()} bound", bound.reshape(1))))
    if not bounds:
        ctx.copy(tensor, ctx.target(group.output, ctx.perm, shape))
        return
    options = schema.MaximumMinimumOptionsT
    for op, bound_tensor in bounds[:-1]:
        tensor = ctx.emit(op, [tensor, bound_tensor], shape, options=options())
    ctx.result(bounds[-1][0], [tensor, bounds[-1][1]], options=options(), shape=shape)


def _unbounded(bound: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    return bool(dtype.kind == "f" and np.isinf(bound).all())


def _constant_bounds(node: ir.Node) -> str | None:
    late = any(v is not None and v.const_value is None for v in node.inputs[1:])
    return "the bounds must be constant" if late else None


_ARITHMETIC = _NUMBERS
_BOTH = _dtypes("bool")
_COMPARED = _dtypes("float32", "int32", "int64")
_EXTREMA = schema.MaximumMinimumOptionsT

OPS: Mapping[str, Op] = {
    "Add": Op(_binary("ADD", schema.AddOptionsT), _ANY, _ARITHMETIC),
    "Sub": Op(_binary("SUB", schema.SubOptionsT), _ANY, _ARITHMETIC),
    "Mul": Op(_binary("MUL", schema.MulOptionsT), _ANY, _ARITHMETIC),
    "Div": Op(_binary("DIV", schema.DivOptionsT), _ANY, _truncating),
    "Pow": Op(_binary("POW", schema.PowOptionsT), _ANY, all_of(floats, _one_dtype)),
    "Max": Op(_binary("MAXIMUM", _EXTREMA), _ANY, _ARITHMETIC),
    "Min": Op(_binary("MINIMUM", _EXTREMA), _ANY, _ARITHMETIC),
    "Equal": Op(_binary("EQUAL", schema.EqualOptionsT), _ANY, _COMPARED),
    "Less": Op(_binary("LESS", schema.LessOptionsT), _ANY, _COMPARED),
    "Greater": Op(_binary("GREATER", schema.GreaterOptionsT), _ANY, _COMPARED),
    "LessOrEqual": Op(_binary("LESS_EQUAL", schema.LessEqualOptionsT), _ANY, _COMPARED),
    "GreaterOrEqual": Op(
        _binary("GREATER_EQUAL", schema.GreaterEqualOptionsT), _ANY, _COMPARED
    ),
    "And": Op(_binary("LOGICAL_AND", schema.LogicalAndOptionsT), _ANY, _BOTH),
    "Or": Op(_binary("LOGICAL_OR", schema.LogicalOrOptionsT), _ANY, _BOTH),
    "Not": Op(_unary("LOGICAL_NOT", schema.LogicalNotOptionsT), _ANY, _dtypes("bool")),
    "Where": Op(_where, _ANY),
    "Cast": Op(_cast, _ANY),
    "Clip": Op(_clip, _ANY, all_of(_dtypes("float32", "int32", "int64"), _constant_bounds)),
    "Abs": Op(_unary("ABS", schema.AbsOptionsT), _ANY, _dtypes("float32", "int32")),
    "Neg": Op(_unary("NEG", schema.NegOptionsT), _ANY, _dtypes("float32", "int32", "int64")),
    "Exp": Op(_unary("EXP", schema.ExpOptionsT), _ANY, floats),
    "Log": Op(_unary("LOG"), _ANY, floats),
    "Sqrt": Op(_unary("SQRT"), _ANY, floats),
    "Sin": Op(_unary("SIN"), _ANY, floats),
    "Cos": Op(_unary("COS", schema.CosOptionsT), _ANY, floats),
    "Floor": Op(_unary("FLOOR"), _ANY, floats),
    "Ceil": Op(_unary("CEIL"), _ANY, floats),
    "Round": Op(_unary("ROUND"), _ANY, floats),
}
