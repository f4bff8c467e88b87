"""Matrix products, attention, normalizations, reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.graphs import GraphBuilder
from tests.targets.litert.case import EXACT, ROUNDED, Case, accumulated, noise, seeded

__all__ = ["CASES"]

Shape = tuple[int, ...]
_LINEAR: tuple[tuple[Shape, tuple[int, int]], ...] = (
    ((4, 5), (5, 6)),
    ((2, 3, 4, 5), (5, 7)),
    ((5,), (5, 3)),
    ((1, 2, 2, 3, 4), (4, 3)),
    ((2, 2, 2, 2, 3, 4), (4, 3)),
)
_PRODUCTS: tuple[tuple[Shape, Shape], ...] = (
    ((2, 3), (3, 4)),
    ((2, 3, 4, 5), (2, 3, 5, 6)),
    ((3, 4, 5), (5, 6)),
    ((4, 5), (3, 5, 6)),
    ((2, 1, 4, 5), (1, 3, 5, 2)),
    ((5,), (5,)),
    ((5,), (2, 5, 3)),
    ((2, 4, 5), (5,)),
    ((2, 1, 2, 3, 4), (1, 3, 2, 4, 3)),
)


def _linear(g: GraphBuilder, x: Shape, w: tuple[int, int], act: str, bias: bool) -> list[str]:
    y = g.op("MatMul", g.input("x", x), g.const(noise(*w)))
    if bias:
        y = g.op("Add", y, g.const(noise(w[1])))
    return [g.op(act, y) if act else y]


def _product(g: GraphBuilder, a: Shape, b: Shape) -> list[str]:
    return [g.op("MatMul", g.input("x", a), g.input("z", b))]


def _constant_left(g: GraphBuilder) -> list[str]:
    return [g.op("MatMul", g.const(noise(4, 5)), g.input("x", (2, 3, 5, 6)))]


def _constant_right(g: GraphBuilder) -> list[str]:
    return [g.op("MatMul", g.input("x", (2, 3, 5, 6)), g.const(noise(3, 6, 4)))]


def _transposed_right(g: GraphBuilder) -> list[str]:
    z = g.op("Transpose", g.input("z", (2, 6, 5)), perm=[0, 2, 1])
    return [g.op("MatMul", g.input("x", (2, 4, 5)), z)]


def _attention(g: GraphBuilder, transposed: bool, mask: str) -> list[str]:
    q = g.input("q", (2, 3, 4, 5))
    k = g.input("k", (2, 3, 5, 7) if transposed else (2, 3, 7, 5))
    v = g.input("v", (2, 3, 7, 6))
    if transposed:
        k = g.op("Transpose", k, perm=[0, 1, 3, 2])
    masks = []
    if mask == "constant":
        masks.append(g.const(noise(3, 4, 7)))
    if mask == "computed":
        masks.append(g.input("m", (2, 1, 4, 7)))
    return [g.op("Attention", q, k, v, *masks, scale=0.3)]


def _grouped(g: GraphBuilder, masked: bool) -> list[str]:
    """Six query heads, three of which share a head of keys and values."""
    q = g.input("q", (2, 6, 4, 5))
    k, v = g.input("k", (2, 2, 7, 5)), g.input("v", (2, 2, 7, 6))
    masks = [g.const(noise(4, 7))] if masked else []
    return [g.op("Attention", q, k, v, *masks, scale=0.3)]


def _layer_norm(g: GraphBuilder, shape: Shape, plain: bool = False) -> list[str]:
    n = shape[-1]
    scale = np.ones(n) if plain else noise(n)
    bias = np.zeros(n) if plain else noise(n, seed=8)
    return [
        g.op("LayerNormalization", g.input("x", shape), g.const(scale), g.const(bias),
             axis=len(shape) - 1, epsilon=1e-6)
    ]  # fmt: skip


def _rms_norm(g: GraphBuilder) -> list[str]:
    x = g.input("x", (2, 3, 8))
    return [g.op("RMSNormalization", x, g.const(noise(8)), axis=2, epsilon=1e-6)]


def _instance_norm(g: GraphBuilder, shape: Shape) -> list[str]:
    c = shape[1]
    scale, bias = g.const(noise(c)), g.const(noise(c, seed=8))
    return [g.op("InstanceNormalization", g.input("x", shape), scale, bias, epsilon=1e-5)]


def _group_norm(g: GraphBuilder, image: bool) -> list[str]:
    """Alone, or between two convolutions and so in channels-last order."""
    shape = (2, 6, 4, 5)
    x = g.input("x", shape)
    conv: dict[str, Any] = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4,
            "dilations": [1, 1], "group": 1}  # fmt: skip
    if image:
        x = g.op("Conv", x, g.const(noise(6, 6, 1, 1)), **conv)
    y = g.op("GroupNormalization", x, g.const(noise(6)), g.const(noise(6, seed=8)),
             epsilon=1e-5, num_groups=3)  # fmt: skip
    g.like(y, shape)
    if image:
        return [g.op("Conv", y, g.const(noise(2, 6, 1, 1)), **conv)]
    return [g.op("Relu", y)]


def _softmax(g: GraphBuilder, shape: Shape, axis: int, op: str = "Softmax") -> list[str]:
    return [g.op(op, g.input("x", shape), axis=axis)]


def _reduce(g: GraphBuilder, op: str, shape: Shape, axes: list[int], keep: int) -> list[str]:
    return [g.op(op, g.input("x", shape), g.ints(axes), keepdims=keep)]


def _sum_int64(g: GraphBuilder) -> list[str]:
    return [g.op("ReduceSum", g.input("x", (2, 3), np.int64), g.ints([1]), keepdims=0)]


def _arg_max(g: GraphBuilder, keep: int) -> list[str]:
    return [g.op("ArgMax", g.input("x", (2, 3, 4, 5)), axis=1, keepdims=keep)]


def _top_k(g: GraphBuilder) -> list[str]:
    g.op("TopK", g.input("x", (2, 7, 4)), g.ints([3]), axis=1, out=("values", "indices"))
    return ["values", "indices"]


def _cum_sum(g: GraphBuilder, exclusive: int, reverse: int) -> list[str]:
    axis = g.const(1, dtype=np.int64)
    x = g.input("x", (2, 3, 4))
    return [g.op("CumSum", x, axis, exclusive=exclusive, reverse=reverse)]


def _products() -> dict[str, Case]:
    cases = {
        "matmul-constant-left": Case(_constant_left, accumulated(5)),
        "matmul-constant-right": Case(_constant_right, accumulated(6)),
        "matmul-transposed-right": Case(_transposed_right, accumulated(5)),
    }
    for i, (x, w) in enumerate(_LINEAR):
        for act in ("", "Relu"):
            for bias in (True, False):
                name = f"linear-{i}-{act or 'plain'}-{'bias' if bias else 'bare'}"
                cases[name] = Case(seeded(_linear, x, w, act, bias), accumulated(w[0] + 1))
    for i, (a, b) in enumerate(_PRODUCTS):
        cases[f"matmul-{i}"] = Case(seeded(_product, a, b), accumulated(a[-1]))
    for mask in ("none", "constant", "computed"):
        for transposed in (True, False):
            name = f"attention-{mask}-{'kt' if transposed else 'k'}"
            cases[name] = Case(seeded(_attention, transposed, mask), accumulated(5 + 7))
    for masked in (False, True):
        made = Case(seeded(_grouped, masked), accumulated(5 + 7))
        cases[f"attention-grouped-{masked}"] = made
    return cases


def _normalizations() -> dict[str, Case]:
    cases = {
        "layer-norm-plain": Case(seeded(_layer_norm, (2, 8), True), accumulated(8)),
        "rms-norm": Case(_rms_norm, accumulated(8)),
        "instance-norm": Case(seeded(_instance_norm, (2, 3, 4, 5)), accumulated(20)),
        "instance-norm-rank-3": Case(seeded(_instance_norm, (2, 3, 7)), accumulated(7)),
        "group-norm": Case(seeded(_group_norm, False), accumulated(40)),
        "group-norm-image": Case(seeded(_group_norm, True), accumulated(40 + 12)),
        "softmax-rank-5": Case(seeded(_softmax, (2, 3, 4, 5, 2), 2), ROUNDED),
        "log-softmax": Case(seeded(_softmax, (2, 3, 4, 5), 1, "LogSoftmax"), ROUNDED),
    }
    for shape in ((3, 8), (2, 3, 8), (2, 2, 3, 8), (1, 2, 2, 3, 8)):
        name = f"layer-norm-rank-{len(shape)}"
        cases[name] = Case(seeded(_layer_norm, shape), accumulated(8))
    for axis in range(4):
        cases[f"softmax-{axis}"] = Case(seeded(_softmax, (2, 3, 4, 5), axis), ROUNDED)
    return cases


def _reductions() -> dict[str, Case]:
    shape = (2, 3, 4, 5)
    cases = {
        "reduce-rank-5": Case(
            seeded(_reduce, "ReduceMean", (2, 3, 2, 3, 2), [1, 3], 0), accumulated(9)
        ),
        "reduce-int64": Case(_sum_int64, EXACT),
        "argmax": Case(seeded(_arg_max, 0), EXACT),
        "argmax-keeps": Case(seeded(_arg_max, 1), EXACT),
        "topk": Case(_top_k, EXACT),
    }
    axes = (([1], 1), ([2, 3], 0), ([0, 3], 0), ([0, 1, 2, 3], 0), ([1, 2], 1))
    for op in ("Mean", "Sum", "Max", "Min", "L2", "Prod"):
        limit = EXACT if op in ("Max", "Min") else accumulated(120)
        for i, (which, keep) in enumerate(axes):
            made = Case(seeded(_reduce, f"Reduce{op}", shape, which, keep), limit)
            cases[f"reduce-{op.lower()}-{i}"] = made
    for exclusive in (0, 1):
        for reverse in (0, 1):
            name = f"cumsum-{exclusive}{reverse}"
            cases[name] = Case(seeded(_cum_sum, exclusive, reverse), accumulated(3))
    return cases


CASES = {**_products(), **_normalizations(), **_reductions()}
