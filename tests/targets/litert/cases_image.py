"""Convolutions, pooling, resizing."""

from __future__ import annotations

from typing import Any

from tests.support.graphs import GraphBuilder
from tests.targets.litert.case import EXACT, ROUNDED, Case, accumulated, noise, seeded

__all__ = ["CASES", "conv"]

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
_NONE: Pads = (0, 0, 0, 0)
_ONE: Pads = (1, 1, 1, 1)


def conv(
    g: GraphBuilder, shape: tuple[int, ...], out: int, kernel: Pair, strides: Pair = (1, 1),
    pads: Pads = _NONE, dilations: Pair = (1, 1), group: int = 1, bias: bool = True,
    act: str = "",
) -> list[str]:  # fmt: skip
    """One convolution."""
    x = g.input("x", shape)
    weight = g.const(noise(out, shape[1] // group, *kernel))
    biases = [g.const(noise(out))] if bias else []
    y = g.op("Conv", x, weight, *biases, kernel_shape=list(kernel), strides=list(strides),
             pads=list(pads), dilations=list(dilations), group=group)  # fmt: skip
    return [g.op(act, y) if act else y]


def _transposed(
    g: GraphBuilder, shape: tuple[int, ...], out: int, kernel: Pair, strides: Pair = (1, 1),
    pads: Pads = _NONE, dilations: Pair = (1, 1), group: int = 1, bias: bool = True,
    extra: Pair = (0, 0),
) -> list[str]:  # fmt: skip
    x = g.input("x", shape)
    weight = g.const(noise(shape[1], out // group, *kernel))
    biases = [g.const(noise(out))] if bias else []
    return [
        g.op("ConvTranspose", x, weight, *biases, kernel_shape=list(kernel),
             strides=list(strides), pads=list(pads), dilations=list(dilations), group=group,
             output_padding=list(extra))
    ]  # fmt: skip


def _pool(
    g: GraphBuilder, op: str, size: Pair, kernel: Pair, strides: Pair, pads: Pads,
    act: str = "", ceil_mode: int = 0, **attrs: Any,
) -> list[str]:  # fmt: skip
    x = g.input("x", (2, 3, *size))
    y = g.op(op, x, kernel_shape=list(kernel), strides=list(strides), pads=list(pads),
             ceil_mode=ceil_mode, **attrs)  # fmt: skip
    return [g.op(act, y) if act else y]


def _resize(g: GraphBuilder, scales: Any, sizes: Any, **attrs: Any) -> list[str]:
    x = g.input("x", (2, 3, 4, 5))
    how = [g.const(scales)] if scales else ["", g.ints(sizes)]
    return [g.op("Resize", x, "", *how, **attrs)]


_CONV: dict[str, tuple[int, dict[str, Any]]] = {
    "same": (27, {"shape": (1, 3, 8, 8), "out": 4, "kernel": (3, 3), "pads": _ONE}),
    "stride-2-relu": (27, {"shape": (2, 3, 9, 7), "out": 4, "kernel": (3, 3),
                           "strides": (2, 2), "pads": _ONE, "act": "Relu"}),
    "stride-2-even": (27, {"shape": (1, 3, 8, 8), "out": 4, "kernel": (3, 3),
                           "strides": (2, 2), "pads": _ONE}),
    "odd-pads": (45, {"shape": (1, 3, 9, 7), "out": 5, "kernel": (3, 5), "strides": (1, 2),
                      "pads": (0, 1, 2, 3), "bias": False}),
    "dilated": (36, {"shape": (1, 4, 8, 8), "out": 6, "kernel": (3, 3), "pads": (2,) * 4,
                     "dilations": (2, 2)}),
    "dilated-stride": (36, {"shape": (1, 4, 8, 8), "out": 6, "kernel": (3, 3),
                            "strides": (2, 2), "pads": (2,) * 4, "dilations": (2, 2)}),
    "groups": (18, {"shape": (1, 4, 8, 8), "out": 6, "kernel": (3, 3), "pads": _ONE,
                    "group": 2}),
    "groups-1x1": (2, {"shape": (1, 6, 5, 5), "out": 9, "kernel": (1, 1), "group": 3}),
    "depthwise": (9, {"shape": (2, 4, 8, 8), "out": 4, "kernel": (3, 3), "pads": _ONE,
                      "group": 4}),
    "depthwise-multiplier": (9, {"shape": (1, 4, 8, 8), "out": 8, "kernel": (3, 3),
                                 "strides": (2, 2), "pads": _ONE, "group": 4}),
    "depthwise-dilated": (25, {"shape": (1, 4, 9, 9), "out": 4, "kernel": (5, 5),
                               "pads": (4,) * 4, "dilations": (2, 2), "group": 4}),
    "one-channel": (9, {"shape": (1, 1, 9, 9), "out": 4, "kernel": (3, 3)}),
    "one-row": (3, {"shape": (1, 4, 1, 10), "out": 4, "kernel": (1, 3),
                    "pads": (0, 1, 0, 1), "group": 4}),
}  # fmt: skip
_TRANSPOSED: dict[str, tuple[int, dict[str, Any]]] = {
    "double": (3, {"shape": (1, 3, 5, 5), "out": 4, "kernel": (2, 2), "strides": (2, 2)}),
    "extra": (27, {"shape": (1, 3, 5, 6), "out": 4, "kernel": (3, 3), "strides": (2, 2),
                   "pads": _ONE, "extra": (1, 1)}),
    "groups": (8, {"shape": (2, 4, 5, 5), "out": 6, "kernel": (4, 4), "strides": (2, 2),
                   "pads": _ONE, "group": 2}),
    "uneven": (27, {"shape": (1, 3, 5, 5), "out": 4, "kernel": (3, 3), "strides": (3, 2),
                    "extra": (2, 1)}),
    "dilated": (27, {"shape": (1, 3, 5, 5), "out": 4, "kernel": (3, 3), "pads": _ONE,
                     "dilations": (2, 2), "bias": False}),
    "sparse": (3, {"shape": (1, 3, 5, 5), "out": 4, "kernel": (1, 1), "strides": (3, 3),
                   "extra": (2, 2)}),
}  # fmt: skip
_POOLS: tuple[tuple[Pair, Pair, Pair, Pads], ...] = (
    ((8, 8), (2, 2), (2, 2), _NONE),
    ((9, 7), (3, 3), (2, 2), _ONE),
    ((8, 8), (3, 3), (2, 2), _ONE),
    ((8, 8), (3, 3), (1, 1), _ONE),
    ((8, 9), (3, 2), (2, 1), (0, 1, 2, 0)),
    ((8, 9), (1, 1), (2, 3), _NONE),
    ((7, 9), (1, 1), (2, 3), _NONE),
)
_CEILED: tuple[tuple[Pair, Pair, Pair, Pads], ...] = (  # a last window past the pads, or none
    ((8, 8), (3, 3), (2, 2), _NONE),
    ((8, 9), (3, 2), (2, 2), (1, 0, 1, 0)),
    ((8, 9), (3, 2), (3, 3), (1, 0, 0, 1)),
    ((7, 7), (3, 3), (2, 2), _ONE),
)
_COORDINATES = (
    "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
    "half_pixel_symmetric",
)  # fmt: skip
_SCALES: tuple[tuple[Any, Any], ...] = (
    ([1, 1, 2, 2], None),
    (None, [2, 3, 7, 9]),
    ([1, 1, 0.5, 0.75], None),
    (None, [2, 3, 8, 1]),
)
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _resizes() -> dict[str, Case]:
    cases = {}
    for where in _COORDINATES:
        for i, (scales, sizes) in enumerate(_SCALES):
            common = {"coordinate_transformation_mode": where}
            for mode in ("linear", "cubic"):
                build = seeded(_resize, scales, sizes, mode=mode, **common)
                # Two products over at most 5 terms of weights below 2 in magnitude.
                cases[f"resize-{mode}-{where}-{i}"] = Case(build, accumulated(10))
            for rounding in _ROUNDINGS:
                build = seeded(_resize, scales, sizes, mode="nearest",
                               nearest_mode=rounding, **common)  # fmt: skip
                cases[f"resize-{rounding}-{where}-{i}"] = Case(build, EXACT)
    return cases


def _all() -> dict[str, Case]:
    cases = _resizes()
    for name, (terms, how) in _CONV.items():
        cases[f"conv-{name}"] = Case(seeded(conv, **how), accumulated(terms + 1))
    for name, (terms, how) in _TRANSPOSED.items():
        made = Case(seeded(_transposed, **how), accumulated(terms + 1))
        cases[f"conv-transpose-{name}"] = made
    for i, pool in enumerate(_POOLS):
        cases[f"max-pool-{i}"] = Case(seeded(_pool, "MaxPool", *pool), EXACT)
        counted = seeded(_pool, "AveragePool", *pool, act="Relu", count_include_pad=1)
        inside = seeded(_pool, "AveragePool", *pool, count_include_pad=0)
        cases[f"average-pool-counted-{i}"] = Case(counted, ROUNDED)
        cases[f"average-pool-inside-{i}"] = Case(inside, ROUNDED)
    for i, pool in enumerate(_CEILED):
        reach = seeded(_pool, "MaxPool", *pool, ceil_mode=1)
        cases[f"max-pool-ceil-{i}"] = Case(reach, EXACT)
        inside = seeded(_pool, "AveragePool", *pool, ceil_mode=1, count_include_pad=0)
        cases[f"average-pool-ceil-{i}"] = Case(inside, ROUNDED)
    return cases


CASES = _all()
