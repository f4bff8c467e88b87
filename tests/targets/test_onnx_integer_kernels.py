"""ONNX Runtime fuses the quantizers of our artifacts into integer kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.backend import LowerOptions
from edgevit.target import load_target
from edgevit.targets.onnx.lower import OnnxBackend
from tests.support.optimized import optimized
from tests.support.quantized import QuantizedBuilder


def _conv(output: bool, relu: bool = False) -> ir.Model:
    g = QuantizedBuilder()
    x = g.pair(g.input("x", (1, 8, 8, 8)), (0.03, 120), np.uint8)
    y = g.op("Conv", x, g.stored((16, 8, 3, 3), 0, bits=7), kernel_shape=[3, 3],
             strides=[1, 1], pads=[1] * 4, dilations=[1, 1], group=1)  # fmt: skip
    if relu:
        return g.model(g.pair(g.op("Relu", y), (0.1, 0), np.uint8))
    return g.model(g.pair(y, (0.1, 128), np.uint8) if output else y)


def _linear(output: bool, bias: bool = False, rank: int = 3, rounded: bool = True) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (1, 9, 16)[3 - rank :])
    x = g.pair(x, (0.03, 120), np.uint8) if rounded else x
    y = g.op("MatMul", x, g.stored((16, 12), 1, bits=7))
    y = g.op("Add", y, g.const(np.ones(12))) if bias else y
    return g.model(g.pair(y, (0.1, 128), np.uint8) if output else y)


def _tiled(window: int, rounded: bool = True) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (1, 8, 8, 8))
    x = g.pair(x, (0.03, 120), np.uint8) if rounded else x
    weight = g.stored((16, 8, window, window), 0, bits=7)
    y = g.op("Conv", x, weight, g.const(np.ones(16)), kernel_shape=[window] * 2,
             strides=[window] * 2, pads=[0] * 4, dilations=[1, 1], group=1)  # fmt: skip
    return g.model(g.op("Relu", y))


def _optimized(model: ir.Model, precision: str, folder: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime runs."""
    lowered = OnnxBackend().lower(
        model, load_target("onnx"), LowerOptions(precision, "source", "m")
    )
    before, after = folder / "m.onnx", folder / "optimized.onnx"
    before.write_bytes(lowered.files["m.onnx"])
    return Counter(node.op_type for node in optimized(before, after).graph.node)


STATIC = {"MatMulIntegerToFloat"}
CASES = {
    "conv": (_conv(True), {"QLinearConv"}),
    "conv-float-result": (_conv(False), {"ConvInteger"}),
    "conv-relu": (_conv(True, relu=True), {"QLinearConv"}),
    "linear": (_linear(True), {"QLinearMatMul"}),
    "linear-float-result": (_linear(False), STATIC),
    "linear-bias": (_linear(False, bias=True), STATIC),
    "linear-bias-codes": (_linear(True, bias=True), STATIC),
    "linear-matrix": (_linear(False, bias=True, rank=2), STATIC),
    "pointwise": (_tiled(1), STATIC),
    "patches": (_tiled(2), STATIC),
}
FLOATS = {"Conv", "MatMul", "FusedConv", "Gemm", "FusedGemm"}


@pytest.mark.parametrize("case", CASES)
def test_the_layer_is_an_integer_kernel(case: str, tmp_path: Path) -> None:
    model, kernels = CASES[case]
    found = _optimized(model, "w8a8", tmp_path)
    assert sum(found[k] for k in kernels) == 1, found
    assert not found.keys() & FLOATS


@pytest.mark.parametrize(
    "model",
    [_linear(False, True, 3, False), _linear(False, True, 2, False), _tiled(1, False),
     _tiled(2, False)],
    ids=["linear", "matrix", "pointwise", "patches"],
)  # fmt: skip
def test_activations_are_quantized_as_the_model_runs(model: ir.Model, tmp_path: Path) -> None:
    found = _optimized(model, "w8a8-dyn", tmp_path)
    assert found["DynamicQuantizeMatMul"] == 1, found
    assert not found.keys() & (FLOATS | {"Add", "DequantizeLinear"})
