"""Functions on tokens: attention of 0/1 codes, and mixtures of two experts.

======================  ====================================================  ================
function                inputs                                                attributes
======================  ====================================================  ================
BinaryLinearAttention   ``q``, ``k`` ``[b, h, t, d]``, ``v`` ``[b, h, t, e]``,  ``group`` (h),
                        thresholds ``tq``, ``tk``, ``w`` ``[h, 1, n, 1]``       ``pads``
MixtureOfPrimitives     ``x`` ``[.., d]``, ``score`` ``[..]``,                ``capacity``,
                        ``w`` ``[d, m]``, ``b``, ``codes``, ``scale``, ``c``  ``inputs``,
                                                                              ``result``
MixtureOfPrimitives     the same with ``w1, b1, w2, b2``,                     and ``hidden``
Gelu, ..Silu, ..Relu    ``codes1, scale1, c1, codes2, scale2, c2``
======================  ====================================================  ================

**BinaryLinearAttention** (ShiftAddViT, arXiv 2306.06446): ``qb = 1[q / |q| > tq]``, ``kb``
alike, ``A = kb^T v``, ``o = v / 2 + qb A / pi``, ``y = o / |o| + DWConv(v)``: products with
codes are additions, and their number is linear in tokens.

**MixtureOfPrimitives**: the ``capacity`` tokens with the largest scores, *of equal ones those
with the lower index* (ONNX, TopK-11), go through the multiplication expert, all others
through the expert of shifts (``ShiftLinear``); ``result`` is the shape of the result. The name
says what is between two layers; the plain one is of one layer. Shapes are static: the capacity
is a number of the compiled model, not of the data. The routing is a function of ``score``
alone, so that a replay on a reference's scores takes the reference's routing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.passes.function_parts import DOMAIN, Body

__all__ = ["ACTIVATIONS", "MIXTURES", "TOKEN_FUNCTIONS"]

_INT, _INTS = ir.AttributeType.INT, ir.AttributeType.INTS
# Operator between the layers of a perceptron -> name of its mixture.
ACTIVATIONS = {
    "Gelu": "MixtureOfPrimitivesGelu",
    "Silu": "MixtureOfPrimitivesSilu",
    "Relu": "MixtureOfPrimitivesRelu",
}
MIXTURES = frozenset({"MixtureOfPrimitives", *ACTIVATIONS.values()})


def _unit(body: Body, x: ir.Value) -> ir.Value:
    """``x / |x|`` along the last of four axes; zero stays zero."""
    norm = body.op("ReduceL2", x, body.constant([3], np.int64), keepdims=1)
    return body.op("Div", x, body.op("Max", norm, body.constant(1e-12, np.float32)))


def _binary_linear_attention() -> ir.Function:
    body = Body("q", "k", "v", "tq", "tk", "w")
    q, k, v, tq, tk, w = body.inputs

    def codes(x: ir.Value, threshold: ir.Value) -> ir.Value:
        above = body.op("Greater", _unit(body, x), threshold)
        return body.op("Cast", above, to=int(ir.DataType.FLOAT))

    qb, kb = codes(q, tq), codes(k, tk)
    a = body.op("MatMul", body.op("Transpose", kb, perm=[0, 1, 3, 2]), v)
    mixed = body.op("Mul", body.op("MatMul", qb, a), body.constant(1 / math.pi, np.float32))
    own = body.op("Mul", v, body.constant(0.5, np.float32))
    handed = {"group": ("group", _INT), "pads": ("pads", _INTS)}
    near = body.op("Conv", v, w, handed=handed)
    y = body.op("Add", _unit(body, body.op("Add", own, mixed)), near)
    return body.function("BinaryLinearAttention", y, {"group": _INT, "pads": _INTS})


def _linear(body: Body, x: ir.Value, w: ir.Value, b: ir.Value) -> ir.Value:
    return body.op("Add", body.op("MatMul", x, w), b)


def _shift(
    body: Body, x: ir.Value, codes: ir.Value, scale: ir.Value, c: ir.Value, inputs: str
) -> ir.Value:
    handed = {"inputs": (inputs, _INT)}
    y = body.op("ShiftLinear", x, codes, scale, domain=DOMAIN, handed=handed)
    return body.op("Add", y, c)


def _activated(body: Body, kind: str, x: ir.Value) -> ir.Value:
    if kind == "Silu":
        return body.op("Silu", x, domain=DOMAIN)
    return body.op(kind, x)


def _routed(
    body: Body, experts: tuple[Callable[[ir.Value], ir.Value], Callable[[ir.Value], ir.Value]]
) -> ir.Value:
    """Each token through its expert, in the shape ``result``."""
    x, score = body.inputs[:2]
    numbers = {
        key: body.op("Constant", handed={"value_int": (key, _INT)})
        for key in ("capacity", "inputs")
    }
    one = body.constant([1], np.int64)
    every = body.constant([-1], np.int64)
    rank = body.op("Reshape", numbers["inputs"], one, allowzero=0)
    tokens = body.op("Reshape", x, body.op("Concat", every, rank, axis=0), allowzero=0)
    scores = body.op("Reshape", score, every, allowzero=0)
    count = body.op("Shape", scores)
    # Sorted: of equal scores the lower index is first.
    order = body.op("TopK", scores, count, outputs=2, axis=0, largest=1, sorted=1)
    split = body.op("Reshape", numbers["capacity"], one, allowzero=0)
    zero = body.constant([0], np.int64)
    chosen = body.op("Slice", order, zero, split, zero)
    others = body.op("Slice", order, split, count, zero)
    made = [
        expert(body.op("Gather", tokens, picked, axis=0))
        for expert, picked in zip(experts, (chosen, others), strict=True)
    ]
    mixed = body.op("Concat", *made, axis=0)
    empty = body.op("ConstantOfShape", body.op("Shape", mixed))
    rows = body.op("Unsqueeze", order, body.constant([1], np.int64))
    back = body.op("ScatterND", empty, rows, mixed)
    shape = body.op("Constant", handed={"value_ints": ("result", _INTS)})
    return body.op("Reshape", back, shape, allowzero=0)


_KEYS = {"capacity": _INT, "inputs": _INT, "result": _INTS}


def _mixture_of_layers() -> ir.Function:
    body = Body("x", "score", "w", "b", "codes", "scale", "c")
    w, b, codes, scale, c = body.inputs[2:]
    experts = (
        lambda x: _linear(body, x, w, b),
        lambda x: _shift(body, x, codes, scale, c, "inputs"),
    )
    return body.function("MixtureOfPrimitives", _routed(body, experts), _KEYS)


def _mixture_of_perceptrons(kind: str) -> ir.Function:
    shift = ("codes1", "scale1", "c1", "codes2", "scale2", "c2")
    body = Body("x", "score", "w1", "b1", "w2", "b2", *shift)
    w1, b1, w2, b2 = body.inputs[2:6]
    codes1, scale1, c1, codes2, scale2, c2 = body.inputs[6:]

    def multiply(x: ir.Value) -> ir.Value:
        return _linear(body, _activated(body, kind, _linear(body, x, w1, b1)), w2, b2)

    def shifted(x: ir.Value) -> ir.Value:
        inner = _activated(body, kind, _shift(body, x, codes1, scale1, c1, "inputs"))
        return _shift(body, inner, codes2, scale2, c2, "hidden")

    made = _routed(body, (multiply, shifted))
    return body.function(ACTIVATIONS[kind], made, {**_KEYS, "hidden": _INT})


TOKEN_FUNCTIONS: dict[str, Callable[[], ir.Function]] = {
    "BinaryLinearAttention": _binary_linear_attention,
    "MixtureOfPrimitives": _mixture_of_layers,
    "MixtureOfPrimitivesGelu": lambda: _mixture_of_perceptrons("Gelu"),
    "MixtureOfPrimitivesRelu": lambda: _mixture_of_perceptrons("Relu"),
    "MixtureOfPrimitivesSilu": lambda: _mixture_of_perceptrons("Silu"),
}
