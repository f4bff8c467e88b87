"""Normalizations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Rule, floats, i32

__all__ = ["TABLE"]


def _epsilon(ctx: Context, node: ir.Node) -> Any:
    return ctx.scalar(floats(node, "epsilon", 1e-5))


def _layer_norm(ctx: Context, node: ir.Node) -> None:
    ctx.emit(
        node.outputs[0],
        "layer_norm",
        x=ctx.get(node.inputs[0]),
        axes=i32([ctx.axis(len(shape_of(node.outputs[0])) - 1)]),
        gamma=ctx.whole(node.inputs[1]),
        beta=ctx.whole(node.inputs[2]),
        epsilon=_epsilon(ctx, node),
    )


def _refuse_layer_norm(node: ir.Node) -> str | None:
    x = node.inputs[0]
    assert x is not None
    rank = len(shape_of(x))
    if node.attributes.get_int("axis", -1) not in (-1, rank - 1):
        return "normalization over more than the last axis is not canonical"
    if len(node.outputs) > 1:
        return "mean and variance outputs are not lowered"
    return _constants(node, 3)


def _constants(node: ir.Node, count: int) -> str | None:
    """Scale and bias (inputs 1 to ``count - 1``) must be constant."""
    given = list(node.inputs[1:count])
    if len(given) != count - 1 or any(constant(v) is None for v in given):
        return "scale and bias must both be constant"
    return None


def _instance_norm(ctx: Context, node: ir.Node) -> None:
    ctx.emit(
        node.outputs[0],
        "instance_norm",
        x=ctx.get(node.inputs[0]),
        gamma=ctx.get(node.inputs[1]),
        beta=ctx.get(node.inputs[2]),
        epsilon=_epsilon(ctx, node),
    )


def _refuse_instance_norm(node: ir.Node) -> str | None:
    rank = len(shape_of(node.outputs[0]))
    if rank not in (3, 4):
        return f"instance_norm has ranks 3 and 4 only, found {rank}"
    return _constants(node, 3)


def _group_norm(ctx: Context, node: ir.Node) -> None:
    """Groups become the rows of a layer norm; scale and bias are per channel (opset 21)."""
    x, out = node.inputs[0], node.outputs[0]
    shape = ctx.shape(x)
    groups = int(node.attributes["num_groups"].as_int())
    rows = i32([shape[0], groups, math.prod(shape[1:]) // groups])
    split = ctx.temp(out, "groups", "reshape", x=ctx.get(x), shape=rows)
    normal = ctx.temp(
        out, "normal", "layer_norm", x=split, axes=i32([-1]), epsilon=_epsilon(ctx, node)
    )
    joined = ctx.temp(out, "joined", "reshape", x=normal, shape=i32(shape))
    wide = (1, shape[1]) + (1,) * (len(shape) - 2)
    gamma, beta = (_reshaped(ctx, node, i, wide) for i in (1, 2))
    scaled = ctx.temp(out, "scaled", "mul", x=joined, y=gamma)
    ctx.emit(out, "add", x=scaled, y=beta)


def _reshaped(ctx: Context, node: ir.Node, index: int, shape: tuple[int, ...]) -> Any:
    value = node.inputs[index]
    array = constant(value)
    assert array is not None
    assert value is not None
    return ctx.const(array.reshape(shape), str(value.name))


def _rms_norm(ctx: Context, node: ir.Node) -> None:
    """X / sqrt(mean(x^2) + e) * g = l2_norm(x, n e) * (sqrt(n) g).

    ``l2_norm`` works over three axes, so each row becomes a 1x1xn tensor. As one operation
    it keeps the sum of squares out of float16, where x > 255 would overflow.
    """
    x, out = node.inputs[0], node.outputs[0]
    shape = ctx.shape(x)
    width = shape[-1]
    rows = i32([math.prod(shape[:-1]), 1, 1, width])
    split = ctx.temp(out, "rows", "reshape", x=ctx.get(x), shape=rows)
    epsilon = ctx.scalar(floats(node, "epsilon", 1e-5) * width)
    normal = ctx.temp(out, "normal", "l2_norm", x=split, epsilon=epsilon)
    joined = ctx.temp(out, "joined", "reshape", x=normal, shape=i32(shape))
    scale = constant(node.inputs[1])
    assert scale is not None
    gamma = ctx.const(scale * np.float32(math.sqrt(width)), f"{out.name}__scale")
    ctx.emit(out, "mul", x=joined, y=gamma)


def _refuse_rms_norm(node: ir.Node) -> str | None:
    rank = len(shape_of(node.outputs[0]))
    if node.attributes.get_int("axis", -1) not in (-1, rank - 1):
        return "normalization over more than the last axis is not canonical"
    return _constants(node, 2)


TABLE: dict[str, Rule] = {
    "LayerNormalization": Rule(_layer_norm, _refuse_layer_norm),
    "InstanceNormalization": Rule(_instance_norm, _refuse_instance_norm),
    "GroupNormalization": Rule(
        _group_norm, lambda node: _constants(node, 3), needs=("num_groups",)
    ),
    "RMSNormalization": Rule(_rms_norm, _refuse_rms_norm),
}
