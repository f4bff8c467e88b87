"""Operators on elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from edgevit.model import constant, dtype_of
from edgevit.targets.attributes import attribute, data_of, text
from edgevit.targets.merging import key
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.table import Op, floats

__all__ = ["OPS", "activation"]

_UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
    "ai.edgevit.Silu": "silu",
}
_BINARY = {
    "Add": "add",
    "And": "and",
    "Div": "div",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greaterequal",
    "Less": "less",
    "LessOrEqual": "lessequal",
    "Max": "max",
    "Min": "min",
    "Mul": "mul",
    "Or": "or",
    "Pow": "pow",
    "Sub": "sub",
}
_CASTS = frozenset({"float32", "int32", "int64", "uint8", "int8", "bool"})


def _scalar(value: ir.Value | None, default: float) -> float:
    array = constant(value)
    return default if array is None else float(array.reshape(-1)[0])


def activation(node: ir.Node) -> tuple[str, tuple[float, ...]] | None:
    """The name and the numbers of a function of one float; ``None`` if it is none."""
    name = key(node)
    if name in _UNARY:
        return _UNARY[name], ()
    if name == "Gelu":
        return ("gelu" if text(node, "approximate", "none") == "none" else "gelu_tanh"), ()
    if name == "Clip":
        low = _scalar(node.inputs[1] if len(node.inputs) > 1 else None, -math.inf)
        high = _scalar(node.inputs[2] if len(node.inputs) > 2 else None, math.inf)
        return "clip", (low, high)
    if name == "LeakyRelu":
        return "leaky", (attribute(node, "alpha", 0.01),)
    if name == "Elu":
        return "elu", (attribute(node, "alpha", 1.0),)
    if name == "HardSigmoid":
        return "hardsigmoid", (attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5))
    return ("sign", ()) if name == "Sign" else None


def _function(ctx: Context, node: ir.Node) -> None:
    found = activation(node)
    if found is None:
        raise ValueError(f"node {node.name!r} is no function of one number")
    ctx.pointwise(node.outputs[0], found[0], [data_of(node)], *found[1])


def _operator(name: str, arity: int) -> Callable[[Context, ir.Node], None]:
    def lower(ctx: Context, node: ir.Node) -> None:
        ctx.pointwise(node.outputs[0], name, [data_of(node, i) for i in range(arity)])

    return lower


def _prelu(ctx: Context, node: ir.Node) -> None:
    """max(x, 0) + slope * min(x, 0), as a choice."""
    x, slope = data_of(node), data_of(node, 1)
    ctx.pointwise(node.outputs[0], "prelu", [x, slope])


def _cast(ctx: Context, node: ir.Node) -> None:
    name = dtype_of(node.outputs[0]).name
    ctx.pointwise(node.outputs[0], f"cast-{name}", [data_of(node)])


def _castable(node: ir.Node) -> str | None:
    for value in (data_of(node), node.outputs[0]):
        name = dtype_of(value).name
        if name not in _CASTS:
            return f"dtype {name} has no conversion"
    return None


_FUNCTIONS = (*_UNARY, "Gelu", "Clip", "LeakyRelu", "Elu", "HardSigmoid", "Sign")
OPS: Mapping[str, Op] = {
    **{name: Op(_function, floats) for name in _FUNCTIONS},
    **{name: Op(_operator(kind, 2)) for name, kind in _BINARY.items()},
    "Cast": Op(_cast, _castable),
    "Not": Op(_operator("not", 1)),
    "PRelu": Op(_prelu, floats),
    "Where": Op(_operator("where", 3)),
}
