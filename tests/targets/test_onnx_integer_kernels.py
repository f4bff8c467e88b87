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


def _linear(output: bool) -> ir.Model:
    g = QuantizedBuilder()
    x = g.pair(g.input("x", (1, 9, 16)), (0.03, 120), np.uint8)
    y = g.op("MatMul", x, g.stored((16, 12), 1, bits=7))
    return g.model(g.pair(y, (0.1, 128), np.uint8) if output else y)


def _optimized(model: ir.Model, folder: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime runs."""
    lowered = OnnxBackend().lower(
        model, load_target("onnx"), LowerOptions("w8a8", "source", "m")
    )
    before, after = folder / "m.onnx", folder / "optimized.onnx"
    before.write_bytes(lowered.files["m.onnx"])
    return Counter(node.op_type for node in optimized(before, after).graph.node)


@pytest.mark.parametrize(
    ("model", "kernels"),
    [
        (_conv(True), {"QLinearConv"}),
        (_conv(False), {"ConvInteger"}),
        (_conv(True, relu=True), {"QLinearConv"}),
        (_linear(True), {"QLinearMatMul"}),
        (_linear(False), {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}),
    ],
    ids=["conv", "conv-float-result", "conv-relu", "linear", "linear-float-result"],
)
def test_the_layer_is_an_integer_kernel(
    model: ir.Model, kernels: set[str], tmp_path: Path
) -> None:
    found = _optimized(model, tmp_path)
    assert sum(found[k] for k in kernels) == 1, found
    assert not found.keys() & {"Conv", "MatMul", "FusedConv", "Gemm"}
