"""Elementwise operators and activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.support.graphs import GraphBuilder
from tests.targets.litert.case import EXACT, ROUNDED, Case, noise, seeded

__all__ = ["CASES"]

_EXACT_UNARY = ("Relu", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign")
_UNARY = (
    "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus", "Erf", "Mish", "Exp",
    "Sin", "Cos",
)  # fmt: skip
_POSITIVE = ("Sqrt", "Log", "Reciprocal")
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
_CHOOSING = ("Max", "Min", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
_SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (5,)),
    ((4, 1), (1, 6)),
    ((2, 1, 3, 1, 4), (1, 5, 1, 2, 1)),
    ((2, 3, 4, 5, 2), (2, 3, 4, 5, 1)),
    ((2, 2, 2, 3, 2, 2), (1, 1, 2, 3, 2, 2)),
    ((), (3,)),
)


def _unary(
    g: GraphBuilder, op: str, shape: tuple[int, ...] = (2, 3, 5, 7), dtype: Any = np.float32,
    positive: bool = False, **attrs: Any,
) -> list[str]:  # fmt: skip
    x = g.input("x", shape, dtype)
    if positive:
        x = g.op("Add", g.op("Abs", x), g.const(0.5))
    return [g.op(op, x, out="y", **attrs)]


def _binary(g: GraphBuilder, op: str, a: tuple[int, ...], b: tuple[int, ...]) -> list[str]:
    x, y = g.input("x", a), g.input("z", b)
    if op == "Pow":
        x = g.op("Abs", x)
    return [g.op(op, x, y, out="y")]


def _integers(g: GraphBuilder, op: str, dtype: Any) -> list[str]:
    shifted = g.op("Add", g.input("z", (3,), dtype), g.const([1, 2, 3], dtype=dtype))
    spread = g.op("Mul", g.input("x", (2, 3), dtype), g.const(5, dtype=dtype))
    return [g.op(op, g.op("Add", spread, g.const(7, dtype=dtype)), shifted, out="y")]


def _booleans(g: GraphBuilder, op: str) -> list[str]:
    return [g.op(op, g.input("x", (2, 3, 4), bool), g.input("z", (4,), bool), out="y")]


def _where(g: GraphBuilder, c: tuple[int, ...], x: tuple[int, ...]) -> list[str]:
    return [g.op("Where", g.input("c", c, bool), g.input("x", x), g.const(-1.0), out="y")]


def _cast(g: GraphBuilder, a: Any, b: Any) -> list[str]:
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(b))
    x = g.input("x", (2, 3), a)
    if a is np.float32:
        x = g.op("Mul", x, g.const(9.0))  # so that more than zeros is left
    return [g.op("Cast", x, to=to, out="y")]


def _clip(g: GraphBuilder, low: float, high: float, dtype: Any = np.float32) -> list[str]:
    x = g.input("x", (3, 4), dtype)
    return [g.op("Clip", x, g.const(low, dtype=dtype), g.const(high, dtype=dtype), out="y")]


def _prelu(g: GraphBuilder, shape: tuple[int, ...], slope: tuple[int, ...]) -> list[str]:
    return [g.op("PRelu", g.input("x", shape), g.const(noise(*slope)), out="y")]


def _silu(g: GraphBuilder) -> list[str]:
    return [g.silu(g.input("x", (2, 5)), out="y")]


def _named() -> dict[str, Case]:
    return {
        "gelu": Case(seeded(_unary, "Gelu", approximate="none"), ROUNDED),
        "gelu-tanh": Case(seeded(_unary, "Gelu", approximate="tanh"), ROUNDED),
        "hard-sigmoid": Case(seeded(_unary, "HardSigmoid", alpha=0.2, beta=0.5), ROUNDED),
        "hard-sigmoid-6": Case(seeded(_unary, "HardSigmoid", alpha=1 / 6, beta=0.5), ROUNDED),
        "elu-alpha": Case(seeded(_unary, "Elu", alpha=0.7), ROUNDED),
        "leaky-alpha": Case(seeded(_unary, "LeakyRelu", alpha=0.3), ROUNDED),
        "relu-rank-0": Case(seeded(_unary, "Relu", ()), EXACT),
        "relu-rank-5": Case(seeded(_unary, "Relu", (2, 1, 3, 2, 3)), EXACT),
        "silu": Case(_silu, ROUNDED),
        "prelu-channels": Case(seeded(_prelu, (2, 3, 4, 5), (3, 1, 1)), ROUNDED),
        "prelu-vector": Case(seeded(_prelu, (2, 6), (6,)), ROUNDED),
        "not": Case(seeded(_unary, "Not", dtype=bool), EXACT),
        "and": Case(seeded(_booleans, "And"), EXACT),
        "or": Case(seeded(_booleans, "Or"), EXACT),
        "where": Case(seeded(_where, (2, 1, 4), (2, 3, 4)), EXACT),
        "where-rank-5": Case(seeded(_where, (2, 1, 1, 1, 4), (2, 3, 2, 2, 4)), EXACT),
        "clip": Case(seeded(_clip, -0.5, 0.25), EXACT),
        "clip-relu6": Case(seeded(_clip, 0.0, 6.0), EXACT),
        "clip-relu1": Case(seeded(_clip, -1.0, 1.0), EXACT),
        "clip-below": Case(seeded(_clip, -0.5, np.inf), EXACT),
        "clip-nothing": Case(seeded(_clip, -np.inf, np.inf), EXACT),
        "clip-int64": Case(seeded(_clip, 1, 2, np.int64), EXACT),
    }


def _all() -> dict[str, Case]:
    cases = _named()
    cases |= {op.lower(): Case(seeded(_unary, op), EXACT) for op in _EXACT_UNARY}
    cases |= {op.lower(): Case(seeded(_unary, op), ROUNDED) for op in _UNARY}
    for op in _POSITIVE:
        cases[op.lower()] = Case(seeded(_unary, op, positive=True), ROUNDED)
    for op in (*_BINARY, *_CHOOSING):
        limit = ROUNDED if op in _BINARY else EXACT
        for i, (a, b) in enumerate(_SHAPES):
            cases[f"{op.lower()}-shapes-{i}"] = Case(seeded(_binary, op, a, b), limit)
    for op in ("Add", "Sub", "Mul", *_CHOOSING):
        for dtype in (np.int32, np.int64):
            name = f"{op.lower()}-{np.dtype(dtype).name}"
            cases[name] = Case(seeded(_integers, op, dtype), EXACT)
    cases["div-int32"] = Case(seeded(_integers, "Div", np.int32), EXACT)
    casts: list[tuple[Any, Any]] = [(np.float32, np.int64), (np.int64, np.float32)]
    casts += [(bool, np.float32), (np.float32, np.int32), (np.int32, bool)]
    for source, to in casts:
        name = f"cast-{np.dtype(source).name}-{np.dtype(to).name}"
        cases[name] = Case(seeded(_cast, source, to), EXACT)
    return cases


CASES = _all()
