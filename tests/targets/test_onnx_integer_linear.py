"""Linear layers and convolutions that tile: the integer forms compute the exact sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.targets.onnx.integer_linear import dynamic_products, integer_products
from tests.support.graphs import feeds_for, run_reference
from tests.support.integer_kernels import convolve
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]
BIAS = np.random.default_rng(3).normal(0, 1, 6)
X_SCALE, X_ZERO = 0.03, 120
# Float32 roundings on the way: the scales' product, the sums' product with it, the bias.
ROUNDINGS = 4 * 2.0**-24


def _conv(
    window: int, rounded: bool = True, quantizer: bool = False, **other: Any
) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (2, 4, 6, 8))
    data = g.pair(x, (X_SCALE, X_ZERO), np.uint8) if rounded else x
    group = other.get("group", 1)
    attributes = {"kernel_shape": [window] * 2, "strides": [window] * 2, "pads": [0] * 4,
                  "dilations": [1, 1], "group": 1, **other}  # fmt: skip
    weight = g.stored((6, 4 // group, window, window), 0)
    y = g.op("Conv", data, weight, g.const(BIAS), out="y", **attributes)
    return g.model(g.pair(y, (0.1, 128), np.uint8) if quantizer else y)


def _linear(rank: int, rounded: bool = True) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (5, 7, 16)[3 - rank :])
    data = g.pair(x, (X_SCALE, X_ZERO), np.uint8) if rounded else x
    y = g.op("MatMul", data, g.stored((16, 6), 1))
    return g.model(g.op("Add", y, g.const(BIAS), out="y"))


def _operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _weight(model: ir.Model) -> tuple[Array, Array]:
    """Codes and scales of the stored weight."""
    arrays = {str(v.name): v.const_value.numpy() for v in model.graph.initializers.values()}  # type: ignore[union-attr]
    node = next(n for n in model.graph if n.op_type == "DequantizeLinear" and n.inputs[0]
                is not None and str(n.inputs[0].name) in arrays)  # fmt: skip
    codes, scale = (arrays[str(v.name)] for v in node.inputs[:2] if v is not None)
    return codes.astype(np.int64), scale.astype(np.float64)


def _static(x: Array) -> tuple[Array, float]:
    codes = np.clip(np.rint(x / np.float32(X_SCALE)) + X_ZERO, 0, 255) - X_ZERO
    return codes.astype(np.int64), float(np.float32(X_SCALE))


def _dynamic(x: Array) -> tuple[Array, float]:
    """The formulas of ONNX's DynamicQuantizeLinear, opset 11, in float32."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(-low / scale), 0, 255)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    return codes.astype(np.int64), float(scale)


def _by_hand(model: ir.Model, codes: Array, scale: float, window: int) -> Array:
    """Exact integer sums times the scales, in float64; ``window`` 0: a linear layer."""
    weight, scales = _weight(model)
    if not window:
        total = codes @ weight
        return np.asarray(total * (scale * scales) + BIAS.astype(np.float32))
    sums = convolve(codes.transpose(0, 2, 3, 1), weight.transpose(0, 2, 3, 1),
                    (window, window), (0, 0, 0, 0), 1)  # fmt: skip
    return np.asarray(
        (sums * (scale * scales) + BIAS.astype(np.float32)).transpose(0, 3, 1, 2)
    )


CASES = [("linear", 2, 0), ("linear", 3, 0), ("conv", 4, 1), ("conv", 4, 2)]


@pytest.mark.parametrize("rounded", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize(("kind", "rank", "window"), CASES)
def test_the_integer_form_computes_the_exact_sums(
    kind: str, rank: int, window: int, rounded: bool
) -> None:
    model = _linear(rank, rounded) if kind == "linear" else _conv(window, rounded)
    feeds = feeds_for(model)
    codes, scale = (_static if rounded else _dynamic)(feeds["x"])
    expected = _by_hand(model, codes, scale, window)
    shape = model.graph.outputs[0].shape
    (integer_products if rounded else dynamic_products)(model)
    kinds = _operators(model)
    assert not {"Conv", "Gemm"} & set(kinds)
    assert kinds.count("Sub") == rounded
    assert (
        kinds.count("DynamicQuantizeLinear") == kinds.count("MatMulInteger") == (not rounded)
    )
    found = run_reference(model, feeds)["y"]
    assert model.graph.outputs[0].shape == shape
    # The static form is multiplied in floats without ONNX Runtime's fusions: K products too.
    length = 4 * window**2 if window else 16
    limit = (ROUNDINGS + rounded * length * 2.0**-24) * np.abs(expected).max() * 2
    assert float(np.abs(found - expected).max()) <= limit
    # One weight code off by one is outside.
    step = scale * float(_weight(model)[1].min()) * float(np.abs(codes).max())
    assert step > 4 * limit


@pytest.mark.parametrize(
    "model",
    [
        _conv(3),
        _conv(2, strides=[1, 1]),
        _conv(1, pads=[1, 1, 1, 1]),
        _conv(2, dilations=[2, 2]),
        _conv(1, group=2),
        _conv(4, strides=[4, 4]),
    ],
    ids=["overlap", "stride", "padding", "dilation", "groups", "rest"],
)
def test_other_convolutions_stay(model: ir.Model) -> None:
    before = _operators(model)
    integer_products(model)
    dynamic_products(model)
    assert _operators(model) == before


def test_a_quantized_result_stays_with_its_convolution() -> None:
    model = _conv(1, quantizer=True)
    before = _operators(model)
    integer_products(model)
    assert _operators(model) == before


def test_codes_are_not_rounded_twice() -> None:
    model = _linear(3)
    dynamic_products(model)
    assert "DynamicQuantizeLinear" not in _operators(model)
