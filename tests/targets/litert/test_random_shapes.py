"""Shapes and windows that nobody chose, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.graphs import GraphBuilder, feeds_for, run_reference
from tests.support.tflite import lower, run_all
from tests.targets.litert.case import accumulated, noise
from tests.targets.litert.cases_image import conv
from tests.targets.litert.test_operators import distance

_FEW = settings(
    deadline=None, max_examples=2, suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)  # fmt: skip
_BATCH = 16  # graphs in one child process
_LIMIT = accumulated(4 * 25 + 1)  # 4 channels under a 5x5 kernel, and the bias


def _check(models: list[ir.Model]) -> None:
    feeds = [feeds_for(m, seed=i) for i, m in enumerate(models)]
    results = run_all([(lower(m), f) for m, f in zip(models, feeds, strict=True)])
    for model, feed, result in zip(models, feeds, results, strict=True):
        assert result.error == ""
        for name, expected in run_reference(model, feed).items():
            assert distance(result.outputs[name], expected) <= _LIMIT


@st.composite
def _convolutions(draw: st.DrawFn) -> ir.Model:
    group = draw(st.sampled_from([1, 2, 4]))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilations = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pads = tuple(draw(st.integers(0, 3)) for _ in range(4))
    size = (draw(st.integers(9, 12)), draw(st.integers(9, 12)))
    g = GraphBuilder()
    out = 4 * draw(st.integers(1, 2))
    outputs = conv(
        g, (draw(st.integers(1, 2)), 4, *size), out, kernel, strides,
        (pads[0], pads[1], pads[2], pads[3]), dilations, group,
        act=draw(st.sampled_from(["", "Relu", "Sigmoid"])),
    )  # fmt: skip
    return g.model(*outputs)


@st.composite
def _pools(draw: st.DrawFn) -> ir.Model:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    # A window must not lie in the padding as a whole: its mean would be 0 / 0.
    pads = [draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
    attrs: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(2)],
        "pads": pads,
        "ceil_mode": 0,
    }
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if op == "AveragePool":
        attrs["count_include_pad"] = draw(st.integers(0, 1))
    g = GraphBuilder()
    x = g.input("x", (1, 3, draw(st.integers(4, 9)), draw(st.integers(4, 9))))
    return g.model(g.op(op, x, **attrs))


@st.composite
def _products(draw: st.DrawFn) -> ir.Model:
    m, k, n = (draw(st.integers(1, 9)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    right = [d if draw(st.booleans()) else 1 for d in batch][draw(st.integers(0, 2)) :]
    g = GraphBuilder()
    x = g.input("x", (*batch, m, k))
    if draw(st.booleans()):
        return g.model(g.op("MatMul", x, g.const(noise(k, n))))
    return g.model(g.op("MatMul", x, g.input("z", (*right, k, n))))


@st.composite
def _broadcasts(draw: st.DrawFn) -> ir.Model:
    full = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    shapes = [[d if draw(st.booleans()) else 1 for d in full] for _ in range(2)]
    a, b = shapes[0], shapes[1][draw(st.integers(0, len(full))) :]
    g = GraphBuilder()
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Max"]))
    other = g.const(noise(*b)) if draw(st.booleans()) else g.input("z", b)
    return g.model(g.op(op, g.input("x", a), other))


@st.composite
def _networks(draw: st.DrawFn) -> ir.Model:
    """Convolutions, order-agnostic operators and rearrangements in any sequence."""
    g = GraphBuilder()
    x = g.input("x", (1, 4, 4, 6))
    shape = [1, 4, 4, 6]
    for _ in range(draw(st.integers(2, 7))):
        step = draw(st.sampled_from(["conv", "act", "transpose", "reshape", "softmax", "sum"]))
        x, shape = _step(draw, g, x, shape, step)
    return g.model(x)


def _step(
    draw: st.DrawFn, g: GraphBuilder, x: str, shape: list[int], step: str
) -> tuple[str, list[int]]:
    if step == "conv":
        c = shape[1]
        y = g.op("Conv", x, g.const(noise(c, c, 1, 1) / c), kernel_shape=[1, 1],
                 strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=1)  # fmt: skip
        return y, shape
    if step == "act":
        return g.op("Mul", g.op("Sigmoid", x), g.const(noise(shape[-1]))), shape
    if step == "softmax":
        return g.op("Softmax", x, axis=draw(st.integers(0, 3))), shape
    if step == "sum":
        return g.op("Add", g.op("Relu", x), x), shape
    if step == "transpose":
        perm = list(draw(st.permutations(range(4))))
        return g.op("Transpose", x, perm=perm), [shape[p] for p in perm]
    size = int(np.prod(shape))
    first = draw(st.sampled_from([d for d in (1, 2, 3, 4, 6) if size % d == 0]))
    second = draw(st.sampled_from([d for d in (1, 2, 4) if size // first % d == 0]))
    target = [1, first, second, size // first // second]
    return g.op("Reshape", x, g.ints(target)), target


@_FEW
@given(st.lists(_convolutions(), min_size=_BATCH, max_size=_BATCH))
def test_convolutions(models: list[ir.Model]) -> None:
    _check(models)


@_FEW
@given(st.lists(_pools(), min_size=_BATCH, max_size=_BATCH))
def test_pools(models: list[ir.Model]) -> None:
    _check(models)


@_FEW
@given(st.lists(_products(), min_size=_BATCH, max_size=_BATCH))
def test_products(models: list[ir.Model]) -> None:
    _check(models)


@_FEW
@given(st.lists(_broadcasts(), min_size=_BATCH, max_size=_BATCH))
def test_broadcasts(models: list[ir.Model]) -> None:
    _check(models)


@_FEW
@given(st.lists(_networks(), min_size=_BATCH, max_size=_BATCH))
def test_networks_of_rearrangements(models: list[ir.Model]) -> None:
    _check(models)
