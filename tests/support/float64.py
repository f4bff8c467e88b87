"""Operators in float64 numpy, written from their definitions: oracles of rounding errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from scipy.special import erf

from tests.support.graphs import GraphBuilder

__all__ = ["CASES", "Array", "Case"]

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], dict[str, Array]]


@dataclass(frozen=True)
class Case:
    """An operator: how its inputs are drawn, and what it computes in float64.

    Attributes:
        op: Canonical operator.
        draw: (generator, size 1..8) -> inputs ``x`` first, then the others by name.
        compute: Inputs in order -> output.
        attributes: Of the node.
        fixed: Inputs that are constants in the graph.
    """

    op: str
    draw: Draw
    compute: Callable[..., Array]
    attributes: dict[str, Any] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()

    def model(self, inputs: dict[str, Array]) -> ir.Model:
        """The graph ``x -> Identity -> h -> op -> y``; ``h`` can carry an error into it."""
        g = GraphBuilder(self.op)
        names = []
        for name, array in inputs.items():
            if name in self.fixed:
                names.append(g.const(array, name=name, dtype=array.dtype))
            else:
                names.append(g.input(name, array.shape, array.dtype))
        names[0] = g.op("Identity", names[0], out="h")
        return g.model(g.op(self.op, *names, out="y", **self.attributes))


def _normal(**shapes: Callable[[int], tuple[int, ...]]) -> Draw:
    def draw(rng: np.random.Generator, size: int) -> dict[str, Array]:
        return {
            name: rng.standard_normal(shape(size)).astype(np.float32)
            for name, shape in shapes.items()
        }

    return draw


def _positive(rng: np.random.Generator, size: int) -> dict[str, Array]:
    return {"x": (rng.random((3, 4 * size)) * 4 + 0.05).astype(np.float32)}


def _with(draw: Draw, **constants: Any) -> Draw:
    def more(rng: np.random.Generator, size: int) -> dict[str, Array]:
        return {**draw(rng, size), **constants}

    return more


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _attention(q: Array, k: Array, v: Array) -> Array:
    scores = np.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(q.shape[-1])
    return np.asarray(np.einsum("bhij,bhjd->bhid", _softmax(scores), v))


def _layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    centered = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(centered / deviation * scale + shift)


def _convolution(x: Array, w: Array, b: Array) -> Array:
    """Padding 1, stride 1, two groups, as sums over shifted copies of the image."""
    n, _, height, width = x.shape
    out, inner, kh, kw = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((n, out, height, width), x.dtype) + b[:, None, None]
    for o in range(out):
        first = (o // (out // 2)) * inner
        for c, i, j in np.ndindex(inner, kh, kw):
            window = padded[:, first + c, i : i + height, j : j + width]
            y[:, o] += w[o, c, i, j] * window
    return y


def _gelu(x: Array) -> Array:
    return np.asarray(x * (1 + erf(x / np.sqrt(2))) / 2)


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


_ROWS = _normal(x=lambda s: (3, 16 * s))

CASES: dict[str, Case] = {
    "matmul": Case(
        "MatMul",
        _normal(x=lambda s: (2, 5, 24 * s), w=lambda s: (24 * s, 3 * s)),
        np.matmul,
        fixed=frozenset({"w"}),
    ),
    "convolution": Case(
        "Conv",
        _normal(x=lambda s: (1, 4, 6, 7), w=lambda s: (2 * s, 2, 3, 3), b=lambda s: (2 * s,)),
        _convolution,
        {"pads": [1, 1, 1, 1], "group": 2},
        frozenset({"w", "b"}),
    ),
    "layer norm": Case(
        "LayerNormalization",
        _normal(x=lambda s: (4, 16 * s), w=lambda s: (16 * s,), b=lambda s: (16 * s,)),
        _layer_norm,
        {"epsilon": 1e-5, "axis": -1},
        frozenset({"w", "b"}),
    ),
    "softmax": Case("Softmax", _ROWS, _softmax, {"axis": -1}),
    "attention": Case(
        "Attention",
        _normal(
            x=lambda s: (1, 2, 3 * s, 8),
            k=lambda s: (1, 2, 4 * s, 8),
            v=lambda s: (1, 2, 4 * s, 8),
        ),
        _attention,
    ),
    "gelu": Case("Gelu", _ROWS, _gelu),
    "hard swish": Case("HardSwish", _ROWS, _hard_swish),
    "leaky relu": Case(
        "LeakyRelu", _ROWS, lambda x: np.where(x < 0, 3 * x, x), {"alpha": 3.0}
    ),
    "prelu": Case(
        "PRelu",
        _with(_ROWS, slope=np.array([4.0], np.float32)),
        lambda x, slope: np.where(x < 0, slope * x, x),
        fixed=frozenset({"slope"}),
    ),
    "cumulative sum": Case(
        "CumSum",
        _with(_ROWS, axis=np.array(1, np.int64)),
        lambda x, axis: np.cumsum(x, axis=1),
        fixed=frozenset({"axis"}),
    ),
    "mean": Case("ReduceMean", _positive, lambda x: x.mean(keepdims=True), {"keepdims": 1}),
    "exponential": Case("Exp", _ROWS, np.exp),
    "logarithm": Case("Log", _positive, np.log),
    "square root": Case("Sqrt", _positive, np.sqrt),
    "reciprocal": Case("Reciprocal", _positive, np.reciprocal),
    "reciprocal root": Case(
        "Pow",
        _with(_positive, e=np.array([-0.5], np.float32)),
        lambda x, e: x**e,
        fixed=frozenset({"e"}),
    ),
    "sigmoid": Case("Sigmoid", _ROWS, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": Case("Tanh", _ROWS, np.tanh),
}
