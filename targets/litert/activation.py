"""Activation functions: native where TFLite has them, else composed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant
from edgevit.targets.attributes import attribute, data_of, text
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.elementwise import fused, operand_shape, unary_operand
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule
from edgevit.targets.litert.table import Op, all_of, constant_input, floats, scalar

__all__ = ["OPS"]

_ANY = Rule("elementwise")
_HUGE = 3e38  # times any normal float32 it leaves [-1, 1]
_TINY = 1e-20  # below it erf(x) is 0 within float32's absolute accuracy
_SQRT2 = 2.0**0.5
_ERF_END = 8.0  # erf(8 / sqrt(2)) is 1 - 1e-15


def _unary(op: str, options: Callable[[], Any] | None = None) -> Callable[..., None]:
    def lower(ctx: Context, group: Group) -> None:
        tensor, shape = unary_operand(ctx, data_of(group.head))
        ctx.result(op, [tensor], options=None if options is None else options(), shape=shape)

    return lower


def _add(activation: str = "NONE") -> Any:
    return schema.AddOptionsT(fusedActivationFunction=fused(activation))


def _mul(activation: str = "NONE") -> Any:
    return schema.MulOptionsT(fusedActivationFunction=fused(activation))


def _gelu(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    tanh = text(group.head, "approximate", "none") == "tanh"
    ctx.result("GELU", [tensor], options=schema.GeluOptionsT(tanh), shape=shape)


def _leaky(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    options = schema.LeakyReluOptionsT(attribute(group.head, "alpha", 0.01))
    ctx.result("LEAKY_RELU", [tensor], options=options, shape=shape)


def _elu(ctx: Context, group: Group) -> None:
    """ELU has alpha = 1; else relu(x) + alpha elu(min(x, 0))."""
    tensor, shape = unary_operand(ctx, data_of(group.head))
    alpha = attribute(group.head, "alpha", 1.0)
    if alpha == 1.0:
        ctx.result("ELU", [tensor], shape=shape)
        return
    options = schema.MaximumMinimumOptionsT()
    negative = ctx.emit("MINIMUM", [tensor, scalar(ctx, 0.0)], shape, options=options)
    curve = ctx.emit("ELU", [negative], shape)
    scaled = ctx.emit("MUL", [curve, scalar(ctx, alpha)], shape, options=_mul())
    positive = ctx.emit("RELU", [tensor], shape)
    ctx.result("ADD", [positive, scaled], options=_add(), shape=shape)


def _hard_sigmoid(ctx: Context, group: Group) -> None:
    """clip(a x + b, 0, 1) = relu6(6 a x + 6 b) / 6."""
    tensor, shape = unary_operand(ctx, data_of(group.head))
    slope = 6 * attribute(group.head, "alpha", 0.2)
    offset = 6 * attribute(group.head, "beta", 0.5)
    if np.float32(slope) != 1:
        tensor = ctx.emit("MUL", [tensor, scalar(ctx, slope)], shape, options=_mul())
    wide = ctx.emit("ADD", [tensor, scalar(ctx, offset)], shape, options=_add("RELU6"))
    ctx.result("MUL", [wide, scalar(ctx, 1 / 6)], options=_mul(), shape=shape)


def _silu(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    gate = ctx.emit("LOGISTIC", [tensor], shape)
    ctx.result("MUL", [tensor, gate], options=_mul(), shape=shape)


def _softplus_of(ctx: Context, tensor: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Terms relu(x) and log(1 + exp(-|x|)), whose sum is softplus(x) without overflow."""
    positive = ctx.emit("RELU", [tensor], shape)
    size = ctx.emit("ABS", [tensor], shape, options=schema.AbsOptionsT())
    mirrored = ctx.emit("NEG", [size], shape, options=schema.NegOptionsT())
    power = ctx.emit("EXP", [mirrored], shape, options=schema.ExpOptionsT())
    shifted = ctx.emit("ADD", [power, scalar(ctx, 1.0)], shape, options=_add())
    return positive, ctx.emit("LOG", [shifted], shape)


def _softplus(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    ctx.result("ADD", [*_softplus_of(ctx, tensor, shape)], options=_add(), shape=shape)


def _mish(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    soft = ctx.emit("ADD", [*_softplus_of(ctx, tensor, shape)], shape, options=_add())
    gate = ctx.emit("TANH", [soft], shape)
    ctx.result("MUL", [tensor, gate], options=_mul(), shape=shape)


def _sign_of(ctx: Context, tensor: int, shape: tuple[int, ...]) -> int:
    return ctx.emit("MUL", [tensor, scalar(ctx, _HUGE)], shape, options=_mul("RELU_N1_TO_1"))


def _sign(ctx: Context, group: Group) -> None:
    """clip(huge x, -1, 1): exact for every normal float32 and for zero."""
    tensor, shape = unary_operand(ctx, data_of(group.head))
    options = _mul("RELU_N1_TO_1")
    ctx.result("MUL", [tensor, scalar(ctx, _HUGE)], options=options, shape=shape)


def _erf(ctx: Context, group: Group) -> None:
    """erf(x) = sign(x) (2 gelu(a) / a - 1) with a = sqrt(2) |x|, from GELU's definition.

    Beyond ``_ERF_END`` it is 1 to the last digit: there infinity / infinity would be NaN.
    """
    tensor, shape = unary_operand(ctx, data_of(group.head))
    size = ctx.emit("ABS", [tensor], shape, options=schema.AbsOptionsT())
    scaled = ctx.emit("MUL", [size, scalar(ctx, _SQRT2)], shape, options=_mul())
    extrema = schema.MaximumMinimumOptionsT
    lowest = ctx.emit("MAXIMUM", [scaled, scalar(ctx, _TINY)], shape, options=extrema())
    safe = ctx.emit("MINIMUM", [lowest, scalar(ctx, _ERF_END)], shape, options=extrema())
    curve = ctx.emit("GELU", [safe], shape, options=schema.GeluOptionsT(False))
    ratio = ctx.emit("DIV", [curve, safe], shape, options=schema.DivOptionsT())
    double = ctx.emit("ADD", [ratio, ratio], shape, options=_add())
    half = ctx.emit("ADD", [double, scalar(ctx, -1.0)], shape, options=_add())
    sign = _sign_of(ctx, tensor, shape)
    ctx.result("MUL", [half, sign], options=_mul(), shape=shape)


def _reciprocal(ctx: Context, group: Group) -> None:
    tensor, shape = unary_operand(ctx, data_of(group.head))
    options = schema.DivOptionsT()
    ctx.result("DIV", [scalar(ctx, 1.0), tensor], options=options, shape=shape)


def _prelu(ctx: Context, group: Group) -> None:
    """PRELU; its slope has the operand's axes but for the batch."""
    value, slope = data_of(group.head), data_of(group.head, 1)
    array = constant(slope)
    if array is None:
        raise ValueError(f"node {group.head.name!r}: the slope is not constant")
    rank = len(ctx.perm)
    wide = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(ctx.perm)
    narrow = wide.reshape(wide.shape[1:]) if rank > 1 and wide.shape[0] == 1 else wide
    alpha = ctx.weight(f"{slope.name}", narrow)
    shape = permuted(operand_shape(value, tuple(range(rank))), ctx.perm)
    ctx.result("PRELU", [ctx.read(value, ctx.perm), alpha], shape=shape)


OPS: Mapping[str, Op] = {
    "Relu": Op(_unary("RELU"), _ANY, floats),
    "Sigmoid": Op(_unary("LOGISTIC"), _ANY, floats),
    "Tanh": Op(_unary("TANH"), _ANY, floats),
    "HardSwish": Op(_unary("HARD_SWISH", schema.HardSwishOptionsT), _ANY, floats),
    "Gelu": Op(_gelu, _ANY, floats),
    "LeakyRelu": Op(_leaky, _ANY, floats),
    "Elu": Op(_elu, _ANY, floats),
    "HardSigmoid": Op(_hard_sigmoid, _ANY, floats),
    "ai.edgevit.Silu": Op(_silu, _ANY, floats),
    "Softplus": Op(_softplus, _ANY, floats),
    "Mish": Op(_mish, _ANY, floats),
    "Sign": Op(_sign, _ANY, floats),
    "Erf": Op(_erf, _ANY, floats),
    "Reciprocal": Op(_reciprocal, _ANY, floats),
    "PRelu": Op(_prelu, _ANY, all_of(floats, constant_input(1, "the slope"))),
}
