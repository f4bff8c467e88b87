"""Tolerances of functions on tokens, replayed as one: mixtures, attention of 0/1 codes.

First-order running error analysis as in ``edgevit.tolerance``, through the function's body.
Both hold discrete choices. A mixture's is made on scores: where these are the reference's own,
so is the routing, and what is judged is the experts. A code is made inside of its function:
where a normalized query or key lies within its own rounding of the threshold, either code is
right, and the bound is what the other one would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.roundoff import FUNCTION_ULPS, SAFETY, Operand, Roundoff
from edgevit.shift_codes import Packed, decode

__all__ = ["TOKEN_RULES"]

Array = np.ndarray[Any, Any]
# No activation between two layers is steeper.
_SLOPE = 1.13


def _norms(array: Array, axis: int) -> float:
    return float(np.sqrt(np.square(array, dtype=np.float64).sum(axis=axis).max(initial=0)))


def _peak(array: Array) -> float:
    return float(np.abs(array).max(initial=0))


def _layer(x: Array, error: float, w: Array, b: Array, u: float) -> tuple[Array, float]:
    """A linear layer's result and the bound on its error."""
    y = x.astype(np.float64) @ w + b
    length = x.shape[-1]
    own = SAFETY * math.sqrt(length) * u * _norms(x, -1) * _norms(w, 0)
    carried = error * math.sqrt(length) * _norms(w, 0)
    return y, own + carried + SAFETY * u * (_peak(y) + _peak(b))


def _expert(
    x: Array, error: float, layers: Sequence[tuple[Array, Array]], act: str, u: float
) -> tuple[Array, float]:
    y = x
    for i, (w, b) in enumerate(layers):
        y, error = _layer(y, error, w, b, u)
        if act and i + 1 < len(layers):
            y = _activated(act, y)
            error = _SLOPE * error + SAFETY * FUNCTION_ULPS * u * max(_peak(y), 1.0)
    return y, error


def _activated(act: str, x: Array) -> Array:
    """To a few digits: only magnitudes are read off it."""
    if act == "Relu":
        return np.maximum(x, 0)
    slope = 1.702 if act == "Gelu" else 1.0
    return np.asarray(x * (0.5 + 0.5 * np.tanh(0.5 * slope * x)))


def _mixture(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    x, score = ops[0], ops[1]
    act = node.op_type.removeprefix("MixtureOfPrimitives")
    count = 2 if act else 1
    own = [(ops[2 + 2 * i].array, ops[3 + 2 * i].array) for i in range(count)]
    shifts = []
    for i, key in enumerate(("inputs", "hidden")[:count]):
        codes, scale, bias = (o.array for o in ops[2 + 2 * count + 3 * i :][:3])
        size = node.attributes.get_int(key, 0) or 0
        shifts.append((decode(Packed(codes, None, size)) * scale, bias))
    tokens = x.array.reshape(-1, x.array.shape[-1])
    u = max(unit.compute, unit.storage)
    made = [_expert(tokens, x.error, layers, act, u) for layers in (own, shifts)]
    # Other scores may choose other tokens: then all that experts differ by.
    other = 0.0 if score.error == 0 else _peak(made[0][0] - made[1][0])
    return max(bound for _, bound in made) + other


def _unsure(x: Array, threshold: float, u: float) -> Array:
    """Where rounding decides the code of ``x / |x|``."""
    norm = np.maximum(np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True), 1e-12)
    unit = x / norm
    near = SAFETY * (math.sqrt(x.shape[-1]) + FUNCTION_ULPS) * u * np.abs(unit) + u
    return np.asarray(np.abs(unit - threshold) <= near)


def _binary(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    q, k, v, tq, tk, w = (o.array.astype(np.float64) for o in ops)
    u = max(unit.compute, unit.storage)
    if any(o.error for o in ops[:2]):
        return math.inf  # codes of other queries and keys: nothing can be said
    tokens, width = v.shape[2], q.shape[3]
    above = [
        (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) > t).astype(float)
        for x, t in ((q, tq), (k, tk))
    ]
    unsure_q, unsure_k = (_unsure(x, float(t), u) for x, t in ((q, tq), (k, tk)))
    a = above[1].swapaxes(2, 3) @ v
    size = np.abs(v).sum(axis=2, keepdims=True)
    off_a = SAFETY * math.sqrt(tokens) * u * size + ops[2].error * tokens
    off_a = off_a + unsure_k.astype(float).swapaxes(2, 3) @ np.abs(v)
    mixed = above[0] @ a / math.pi
    off = above[0] @ off_a + unsure_q.astype(float) @ (np.abs(a) + off_a)
    off = off / math.pi + SAFETY * math.sqrt(width) * u * (above[0] @ np.abs(a)) / math.pi
    o = 0.5 * v + mixed
    off = off + 0.5 * ops[2].error + SAFETY * u * (np.abs(mixed) + np.abs(v))
    norm = np.maximum(np.linalg.norm(o, axis=-1, keepdims=True), 1e-12)
    # o / |o| moves by at most twice the error of o over |o|.
    turned = 2 * np.linalg.norm(off, axis=-1, keepdims=True) / norm
    rounded = SAFETY * (math.sqrt(v.shape[3]) + FUNCTION_ULPS) * u
    taps = float(np.abs(w).sum(axis=(1, 2, 3)).max())
    near = taps * (ops[2].error + SAFETY * math.sqrt(w.shape[2]) * u * _peak(v))
    return float(np.minimum(turned, 2.0).max()) + rounded + near + SAFETY * u * _peak(out)


TOKEN_RULES: dict[str, Callable[..., float]] = {
    "BinaryLinearAttention": _binary,
    "MixtureOfPrimitives": _mixture,
    "MixtureOfPrimitivesGelu": _mixture,
    "MixtureOfPrimitivesRelu": _mixture,
    "MixtureOfPrimitivesSilu": _mixture,
}
