"""Activations and softmax."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml.context import Array, Context
from edgevit.targets.coreml.rule import Lower, Rule, floats, i32, number_in, text

__all__ = ["TABLE"]


def _plain(op: str) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        ctx.emit(node.outputs[0], op, x=ctx.get(node.inputs[0]))

    return lower


def _alpha(op: str, default: float) -> Lower:
    def lower(ctx: Context, node: ir.Node) -> None:
        alpha = ctx.parameter(floats(node, "alpha", default))
        ctx.emit(node.outputs[0], op, x=ctx.get(node.inputs[0]), alpha=alpha)

    return lower


def _gelu(ctx: Context, node: ir.Node) -> None:
    tanh = text(node, "approximate", "none") == "tanh"
    mode = "TANH_APPROXIMATION" if tanh else "EXACT"
    ctx.emit(node.outputs[0], "gelu", x=ctx.get(node.inputs[0]), mode=mode)


def _refuse_gelu(node: ir.Node) -> str | None:
    mode = text(node, "approximate", "none")
    return None if mode in ("none", "tanh") else f"approximate={mode!r} is unknown"


def _hard_sigmoid(ctx: Context, node: ir.Node) -> None:
    ctx.emit(
        node.outputs[0],
        "sigmoid_hard",
        x=ctx.get(node.inputs[0]),
        alpha=ctx.parameter(floats(node, "alpha", 0.2)),
        beta=ctx.parameter(floats(node, "beta", 0.5)),
    )


def _hard_swish(ctx: Context, node: ir.Node) -> None:
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    third, half = ctx.parameter(1 / 6), ctx.parameter(0.5)
    gate = ctx.temp(out, "gate", "sigmoid_hard", x=x, alpha=third, beta=half)
    ctx.emit(out, "mul", x=x, y=gate)


def _mish(ctx: Context, node: ir.Node) -> None:
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    soft = ctx.temp(out, "softplus", "softplus", x=x)
    gate = ctx.temp(out, "gate", "tanh", x=soft)
    ctx.emit(out, "mul", x=x, y=gate)


def _channel_slope(node: ir.Node) -> Array | None:
    """The slope of a PRelu as one number a channel, where it is that."""
    slope, x = constant(node.inputs[1]), node.inputs[0]
    assert x is not None
    shape = shape_of(x)
    # Ranks 3 and 5 must have one slope for all channels (coremltools, prelu).
    if slope is None or len(shape) != 4:
        return None
    if slope.size != shape[1] or slope.shape[-3:] != (shape[1], 1, 1):
        return None
    return slope.reshape(-1).astype(np.float32)


def _prelu(ctx: Context, node: ir.Node) -> None:
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    one = number_in(node, 1, 0.0)
    if one is not None:
        ctx.emit(out, "leaky_relu", x=x, alpha=ctx.parameter(one))
        return
    slope = _channel_slope(node)
    if slope is not None:
        ctx.emit(out, "prelu", x=x, alpha=ctx.const(slope, f"{out.name}__slope"))
        return
    zero = ctx.scalar(0)
    negative = ctx.temp(out, "negative", "minimum", x=x, y=zero)
    scaled = ctx.temp(out, "scaled", "mul", x=negative, y=ctx.get(node.inputs[1]))
    positive = ctx.temp(out, "positive", "relu", x=x)
    ctx.emit(out, "add", x=positive, y=scaled)


def _softmax(ctx: Context, node: ir.Node) -> None:
    rank = len(shape_of(node.outputs[0]))
    axis = node.attributes.get_int("axis", -1) % rank
    x = ctx.get(node.inputs[0])
    ctx.emit(node.outputs[0], "softmax", x=x, axis=i32(ctx.axis(axis)))


def _clip(ctx: Context, node: ir.Node) -> None:
    out, x = node.outputs[0], ctx.get(node.inputs[0])
    low = number_in(node, 1, -math.inf)
    high = number_in(node, 2, math.inf)
    assert low is not None
    assert high is not None
    whole = ctx.is_float(out) and low < high and math.isfinite(low) and math.isfinite(high)
    if whole:
        _bounded(ctx, node, low, high)
        return
    bounds = [("maximum", low, 1), ("minimum", high, 2)]
    finite = [(op, index) for op, bound, index in bounds if math.isfinite(bound)]
    if not finite:
        ctx.bind(out, x)
        return
    for op, index in finite[:-1]:
        x = ctx.temp(out, op, op, x=x, y=ctx.get(node.inputs[index]))
    op, index = finite[-1]
    ctx.emit(out, op, x=x, y=ctx.get(node.inputs[index]))


def _bounded(ctx: Context, node: ir.Node, low: float, high: float) -> None:
    out, x = node.outputs[0], ctx.get(node.inputs[0])
    if (low, high) == (0.0, 6.0):
        ctx.emit(out, "relu6", x=x)
        return
    alpha, beta = ctx.scalar(low), ctx.scalar(high)
    if alpha < beta:
        ctx.emit(out, "clip", x=x, alpha=alpha, beta=beta)
        return
    # The bounds differ by less than float16 resolves; clip demands alpha < beta.
    floor = ctx.temp(out, "maximum", "maximum", x=x, y=alpha)
    ctx.emit(out, "minimum", x=floor, y=beta)


def _refuse_clip(node: ir.Node) -> str | None:
    if number_in(node, 1, 0.0) is None or number_in(node, 2, 0.0) is None:
        return "the bounds are not constant scalars"
    return None


TABLE: dict[str, Rule] = {
    "Relu": Rule(_plain("relu")),
    "Sigmoid": Rule(_plain("sigmoid")),
    "Tanh": Rule(_plain("tanh")),
    "Softplus": Rule(_plain("softplus")),
    "Erf": Rule(_plain("erf")),
    "ai.edgevit::Silu": Rule(_plain("silu")),
    "LeakyRelu": Rule(_alpha("leaky_relu", 0.01)),
    "Elu": Rule(_alpha("elu", 1.0)),
    "Gelu": Rule(_gelu, _refuse_gelu),
    "HardSigmoid": Rule(_hard_sigmoid),
    "HardSwish": Rule(_hard_swish),
    "Mish": Rule(_mish),
    "PRelu": Rule(_prelu),
    "Softmax": Rule(_softmax),
    "Clip": Rule(_clip, _refuse_clip, saturates=True),
}
