"""Softmax and the normalizations, composed of means so that XNNPACK takes all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, shape_of
from edgevit.targets.attributes import attribute, data_of, optional, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.elementwise import broadcast_shapes
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule
from edgevit.targets.litert.table import Op, all_of, constant_input, floats, scalar

__all__ = ["OPS"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_LAST = Rule("same", last="last", data=1)
_AXIS = Rule("same", last="axis", data=1)
_FREE = Rule("same", data=1)


def _mul(ctx: Context, a: int, b: int, shape: Sequence[int]) -> int:
    return ctx.emit("MUL", [a, b], shape, options=schema.MulOptionsT())


def mean(ctx: Context, tensor: int, axes: Sequence[int]) -> int:
    """MEAN over ``axes``, which stay with size one."""
    shape = list(ctx.writer.shape(tensor))
    for axis in axes:
        shape[axis] = 1
    which = ctx.constant("axes", axes, "int32")
    return ctx.emit("MEAN", [tensor, which], shape, options=schema.ReducerOptionsT(True))


def _inverse_root(ctx: Context, square: int, axes: Sequence[int], epsilon: float) -> int:
    """1 / sqrt(mean(square) + epsilon)."""
    variance = mean(ctx, square, axes)
    shape = ctx.writer.shape(variance)
    sum_ = ctx.emit(
        "ADD", [variance, scalar(ctx, epsilon)], shape, options=schema.AddOptionsT()
    )
    return ctx.emit("RSQRT", [sum_], shape)


def _standardized(ctx: Context, tensor: int, axes: Sequence[int], epsilon: float) -> int:
    """(x - mean) / sqrt(variance + epsilon), two passes over the centered data."""
    shape = ctx.writer.shape(tensor)
    center = mean(ctx, tensor, axes)
    centered = ctx.emit("SUB", [tensor, center], shape, options=schema.SubOptionsT())
    square = _mul(ctx, centered, centered, shape)
    return _mul(ctx, centered, _inverse_root(ctx, square, axes, epsilon), shape)


def _affine(ctx: Context, tensor: int, scale: Array | None, bias: Array | None) -> None:
    """Multiply, add (what is neutral is left out), and store as the group's output."""
    name, shape = ctx.group.output.name, ctx.writer.shape(tensor)
    steps: list[tuple[str, Array, Any]] = []
    if scale is not None and not np.all(scale == 1):
        steps.append(("MUL", scale, schema.MulOptionsT()))
    if bias is not None and not np.all(bias == 0):
        steps.append(("ADD", bias, schema.AddOptionsT()))
    if not steps:
        ctx.adopt(ctx.group.output, tensor, ctx.perm)
        return
    for op, array, options in steps[:-1]:
        factor = ctx.weight(f"{name}/{op.lower()}", array)
        tensor = ctx.emit(op, [tensor, factor], shape, options=options)
    op, array, options = steps[-1]
    factor = ctx.weight(f"{name}/{op.lower()}", array)
    ctx.result(op, [tensor, factor], options=options, shape=shape)


def _layer_norm(ctx: Context, group: Group) -> None:
    node = group.head
    value = data_of(node)
    shape = permuted(shape_of(value), ctx.perm)
    tensor = ctx.read(value, ctx.perm, shape)
    epsilon = attribute(node, "epsilon", 1e-5)
    normal = _standardized(ctx, tensor, [len(shape) - 1], epsilon)
    _affine(ctx, normal, constant(node.inputs[1]), constant(optional(node, 2)))


def _rms_norm(ctx: Context, group: Group) -> None:
    node = group.head
    value = data_of(node)
    shape = permuted(shape_of(value), ctx.perm)
    tensor = ctx.read(value, ctx.perm, shape)
    square = _mul(ctx, tensor, tensor, shape)
    epsilon = attribute(node, "epsilon", 1e-5)
    root = _inverse_root(ctx, square, [len(shape) - 1], epsilon)
    _affine(ctx, _mul(ctx, tensor, root, shape), constant(node.inputs[1]), None)


def _grouped_norm(ctx: Context, group: Group, groups: int) -> None:
    """Statistics for each sample and channel group, over all the rest.

    The tensor is looked at with its channel axis split in two; neighboring axes that are
    reduced alike, or kept alike, are merged.
    """
    node, value = group.head, data_of(group.head)
    full = shape_of(value)
    split: list[int] = []
    stats: list[int] = []
    for axis in ctx.perm:
        if axis == 1:
            split += [groups, full[1] // groups]
            stats += [groups, 1]
        else:
            split.append(full[axis])
            stats.append(full[axis] if axis == 0 else 1)
    merged, kept = broadcast_shapes([tuple(split), tuple(stats)])
    axes = [i for i, (a, b) in enumerate(zip(merged, kept, strict=True)) if a != b]
    tensor = ctx.read(value, ctx.perm, merged)
    normal = _standardized(ctx, tensor, axes, attribute(node, "epsilon", 1e-5))
    wide = ctx.reshape(normal, permuted(full, ctx.perm))
    _affine(ctx, wide, _by_channel(ctx, node, 1), _by_channel(ctx, node, 2))


def _by_channel(ctx: Context, node: ir.Node, index: int) -> Array | None:
    """A constant per channel, shaped to broadcast in the group's order."""
    array = constant(optional(node, index))
    if array is None:
        return None
    rank = len(ctx.perm)
    shape = [1] * rank
    shape[1] = array.size
    return array.reshape(shape).transpose(ctx.perm)


def _instance_norm(ctx: Context, group: Group) -> None:
    _grouped_norm(ctx, group, shape_of(data_of(group.head))[1])


def _group_norm(ctx: Context, group: Group) -> None:
    _grouped_norm(ctx, group, whole(group.head, "num_groups", 1))


def _varied(node: ir.Node) -> str | None:
    """A group of one element has no variance; it would merge away."""
    _, c, *rest = shape_of(data_of(node))
    groups = whole(node, "num_groups", c)
    alone = int(np.prod(rest)) * (c // groups) == 1
    return "normalization over a single element" if alone else None


def _over_last(node: ir.Node) -> str | None:
    last = len(shape_of(data_of(node))) - 1
    axis = whole(node, "axis", last)
    return None if axis in (last, -1) else f"axis {axis}: only the last one is canonical"


def _softmax(op: str, options: Any) -> Any:
    def lower(ctx: Context, group: Group) -> None:
        shape = permuted(shape_of(data_of(group.head)), ctx.perm)
        tensor = ctx.read(data_of(group.head), ctx.perm, shape)
        ctx.result(op, [tensor], options=options(), shape=shape)

    return lower


_SCALED = all_of(floats, constant_input(1, "the scale"))
_CHANNELS = all_of(_SCALED, constant_input(2, "the bias"), _varied)

OPS: Mapping[str, Op] = {
    "Softmax": Op(_softmax("SOFTMAX", lambda: schema.SoftmaxOptionsT(1.0)), _AXIS, floats),
    "LogSoftmax": Op(_softmax("LOG_SOFTMAX", schema.LogSoftmaxOptionsT), _AXIS, floats),
    "LayerNormalization": Op(_layer_norm, _LAST, all_of(_SCALED, _over_last)),
    "RMSNormalization": Op(_rms_norm, _LAST, all_of(_SCALED, _over_last)),
    "InstanceNormalization": Op(_instance_norm, _FREE, _CHANNELS),
    "GroupNormalization": Op(_group_norm, _FREE, _CHANNELS),
}
