"""Quantized convolutions with float results become ``ConvInteger``, and compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.targets.onnx.integer_conv import integer_convolutions
from tests.support.graphs import feeds_for, run_reference
from tests.support.integer_kernels import convolve
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]
BIAS = np.random.default_rng(3).normal(0, 1, 6)
X_SCALE, X_ZERO = 0.03, 120


def _model(
    bits: int = 8, group: int = 1, quantized: bool = True, behind: str = "", zero: int = 128
) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (2, 4, 7, 6))
    data = g.pair(x, (X_SCALE, X_ZERO), np.uint8) if quantized else x
    weight = g.stored((6, 4 // group, 3, 3), 0, bits=bits)
    y = g.op("Conv", data, weight, g.const(BIAS), kernel_shape=[3, 3], strides=[2, 1],
             pads=[1, 0, 1, 2], dilations=[1, 1], group=group, out="y")  # fmt: skip
    y = g.op("Relu", y) if "relu" in behind else y
    return g.model(g.pair(y, (0.1, zero), np.uint8) if "quantizer" in behind else y)


def _operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _by_hand(model: ir.Model, x: Array) -> Array:
    """Exact integer sums times the scales, in float64; the oracle knows no graph."""
    arrays = {str(v.name): v.const_value.numpy() for v in model.graph.initializers.values()}  # type: ignore[union-attr]
    node = next(n for n in model.graph if n.op_type == "DequantizeLinear" and n.inputs[0]
                is not None and str(n.inputs[0].name) in arrays)  # fmt: skip
    codes, scale = (arrays[str(v.name)] for v in node.inputs[:2] if v is not None)
    rounded = np.clip(np.rint(x / np.float32(X_SCALE)) + X_ZERO, 0, 255) - X_ZERO
    total = convolve(
        rounded.transpose(0, 2, 3, 1), codes.transpose(0, 2, 3, 1), (2, 1), (1, 0, 1, 2), 1
    )
    numbers = total * (np.float64(np.float32(X_SCALE)) * scale) + BIAS.astype(np.float32)
    return np.asarray(numbers.transpose(0, 3, 1, 2))


def test_the_integer_form_computes_the_exact_sums() -> None:
    model = _model()
    feeds = feeds_for(model)
    expected = _by_hand(model, feeds["x"])
    before = run_reference(model, feeds)["y"]
    integer_convolutions(model)
    assert "ConvInteger" in _operators(model)
    assert "Conv" not in _operators(model)
    found = run_reference(model, feeds)["y"]
    # Two float32 roundings of numbers of this size (the product, the sum), and the scale's.
    limit = 4 * 2.0**-24 * float(np.abs(expected).max() + np.abs(BIAS).max())
    assert float(np.abs(found - expected).max()) <= limit
    # The float form sums 36 products in float32: near, and not what is compared with.
    np.testing.assert_allclose(before, expected, atol=1e-4)
    # A mutant that the limit must not excuse: one weight code off by one.
    assert float(np.abs(found * (1 + 1e-5) - expected).max()) > limit


def test_its_weights_are_unsigned() -> None:
    """The kernel's fast form."""
    model = _model()
    integer_convolutions(model)
    node = next(n for n in model.graph if n.op_type == "ConvInteger")
    weight, zero = (model.graph.initializers[str(node.inputs[i].name)] for i in (1, 3))  # type: ignore[union-attr]
    assert weight.dtype is zero.dtype is ir.DataType.UINT8
    assert zero.const_value is not None
    assert int(zero.const_value.numpy()) == 128


def test_the_result_keeps_its_name_shape_and_type() -> None:
    model = _model()
    shape = model.graph.outputs[0].shape
    integer_convolutions(model)
    (out,) = model.graph.outputs
    assert (out.name, out.shape, out.dtype) == ("y", shape, ir.DataType.FLOAT)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"group": 2}, "groups run one by one"),
        ({"bits": 4}, "codes of 4 bits"),
        ({"quantized": False}, "data that are numbers"),
        ({"behind": "quantizer"}, "QLinearConv fuses"),
        ({"behind": "relu quantizer", "zero": 0}, "QLinearConv fuses, the clamp included"),
    ],
)
def test_what_is_left_alone(options: dict[str, Any], why: str) -> None:
    model = _model(**options)
    before = _operators(model)
    integer_convolutions(model)
    assert _operators(model) == before, why


@pytest.mark.parametrize(
    "options", [{"behind": "relu"}, {"behind": "relu quantizer", "zero": 128}]
)
def test_a_relu_that_no_quantizer_stands_for(options: dict[str, Any]) -> None:
    model = _model(**options)
    integer_convolutions(model)
    assert "ConvInteger" in _operators(model)
    assert "Relu" in _operators(model)
