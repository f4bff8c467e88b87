"""Operators that take elements one by one, or two by two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgevit.torchgraph.site import Operator, Site, Tensor

__all__ = ["OPERATORS"]

# ONNX's dtypes by number.
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip
_FUNCTIONS = {
    "Abs": "abs", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "Log": "log", "Neg": "neg", "Not": "logical_not", "Reciprocal": "reciprocal",
    "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin",
    "Sqrt": "sqrt", "Tanh": "tanh",
    "Add": "add", "Sub": "sub", "Mul": "mul", "Pow": "pow", "Max": "maximum",
    "Min": "minimum", "And": "logical_and", "Or": "logical_or", "Equal": "eq", "Less": "lt",
    "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge", "Where": "where",
}  # fmt: skip


def _plain(name: str) -> Operator:
    return lambda t, at, x: getattr(t, name)(*x)


def _div(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    whole = not (x[0].is_floating_point() or x[1].is_floating_point())
    return t.div(x[0], x[1], rounding_mode="trunc" if whole else None)


def _pow(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    # A scalar exponent: torch then has no gradient of it to make NaN of at negative bases.
    exponent = x[1].item() if x[1].numel() == 1 else x[1]
    return t.pow(x[0], exponent)


def _cast(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    wanted = getattr(t, _DTYPES[int(at.get("to"))])
    # Gradients go on in the interpreter's own float dtype.
    if x[0].is_floating_point() and wanted.is_floating_point:
        return x[0]
    return x[0].to(t.get_default_dtype() if wanted.is_floating_point else wanted)


def _clip(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    bounds = [None if b is None else b.item() for b in [*x[1:], None, None][:2]]
    return x[0] if bounds == [None, None] else t.clamp(x[0], bounds[0], bounds[1])


def _gelu(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    kind = at.get("approximate", "none")
    return t.nn.functional.gelu(x[0], approximate=kind)


def _hard_sigmoid(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return t.clamp(at.get("alpha", 0.2) * x[0] + at.get("beta", 0.5), 0.0, 1.0)


def _with(name: str, option: str, default: float) -> Operator:
    def apply(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
        return getattr(t.nn.functional, name)(x[0], float(at.get(option, default)))

    return apply


def _functional(name: str) -> Operator:
    return lambda t, at, x: getattr(t.nn.functional, name)(x[0])


def _prelu(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return t.where(x[0] < 0, x[0] * x[1], x[0])


def _own() -> dict[str, Callable[..., Any]]:
    return {
        "Cast": _cast,
        "Clip": _clip,
        "Div": _div,
        "Elu": _with("elu", "alpha", 1.0),
        "Gelu": _gelu,
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _functional("hardswish"),
        "Identity": lambda t, at, x: x[0],
        "LeakyRelu": _with("leaky_relu", "alpha", 0.01),
        "Mish": _functional("mish"),
        "PRelu": _prelu,
        "Pow": _pow,
        "Softplus": _functional("softplus"),
    }


OPERATORS: dict[str, Operator] = {**{op: _plain(f) for op, f in _FUNCTIONS.items()}, **_own()}
