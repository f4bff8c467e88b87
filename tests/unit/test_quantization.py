"""Quantization parameters against ONNX's own operators and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from edgevit.errors import InternalError
from edgevit.quantization import (
    DTYPE_RANGES,
    QParams,
    Range,
    dequantize,
    fake,
    parameters,
    quantize,
    zero_point_overflow,
)

Array = np.ndarray[Any, Any]
KINDS = {"int8": onnx.TensorProto.INT8, "uint8": onnx.TensorProto.UINT8}


def onnx_codes(x: Array, params: QParams) -> Array:
    """QuantizeLinear of the specification's reference implementation."""
    given_zero = params.zero_point.astype(params.dtype)
    axis = {} if params.axis is None else {"axis": params.axis}
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [info("x", onnx.TensorProto.FLOAT, x.shape)],
        [info("q", KINDS[params.dtype], x.shape)],
        [
            onnx.numpy_helper.from_array(params.scale, "s"),
            onnx.numpy_helper.from_array(given_zero, "z"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_codes_are_those_of_onnx(dtype: str, scheme: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 2, (4, 50)).astype(np.float32)
    params = parameters(Range.of(x), dtype, scheme)  # type: ignore[arg-type]
    found = quantize(x, params)
    # ONNX saturates to the dtype, symmetric int8 uses one code less: no element lies there.
    np.testing.assert_array_equal(found, onnx_codes(x, params).astype(np.int32))


def test_per_channel_codes_are_those_of_onnx() -> None:
    x = (
        np.random.default_rng(1)
        .normal(0, np.array([[1.0], [5.0], [0.1]]), (3, 40))
        .astype(np.float32)
    )
    params = parameters(Range.of(x, axis=0), "int8", "symmetric", axis=0)
    assert params.scale.shape == (3,)
    np.testing.assert_array_equal(quantize(x, params), onnx_codes(x, params))
    wrong = QParams(params.scale[::-1], params.zero_point, "int8", -127, 127, 0)
    assert not np.array_equal(quantize(x, wrong), onnx_codes(x, params))


def test_ties_round_to_even() -> None:
    params = QParams(np.array(2.0, np.float32), np.array(0, np.int32), "int8", -127, 127)
    x = np.array([1, 3, 5, -1, -3], np.float32)
    np.testing.assert_array_equal(quantize(x, params), [0, 2, 2, 0, -2])


def test_zero_is_exact_also_where_the_range_leaves_it_out() -> None:
    # Q-HyViT's overflow: without zero in the range the zero point of [3, 3.5] were -1530.
    span = Range(np.array(3.0), np.array(3.5))
    assert bool(zero_point_overflow(span, "uint8"))
    params = parameters(span, "uint8", "asymmetric")
    assert float(fake(np.zeros(1, np.float32), params)[0]) == 0.0
    x = np.linspace(3, 3.5, 100, dtype=np.float32)
    assert float(np.abs(fake(x, params) - x).max()) <= float(params.scale) / 2 * 1.001
    assert not bool(zero_point_overflow(Range(np.array(-1), np.array(1)), "uint8"))


def test_all_negative_channels() -> None:
    x = np.array([[-4.0, -2.0], [1.0, 2.0]], np.float32)
    params = parameters(Range.of(x, axis=0), "uint8", "asymmetric", axis=0)
    assert params.zero_point.tolist() == [255, 0]
    assert float(np.abs(fake(x, params) - x).max()) <= float(params.scale.max()) / 2


def test_a_constant_zero_tensor_has_a_scale() -> None:
    params = parameters(Range(np.array(0), np.array(0)), "int8", "symmetric")
    assert float(params.scale) == 1.0
    assert fake(np.zeros(3, np.float32), params).tolist() == [0, 0, 0]


@given(
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    bits=st.integers(2, 8),
    dtype=st.sampled_from(["int8", "uint8"]),
    scheme=st.sampled_from(["symmetric", "asymmetric"]),
)
@settings(max_examples=100, deadline=None)
def test_half_a_step_is_the_error(
    low: float, width: float, bits: int, dtype: str, scheme: str
) -> None:
    span = Range(np.array(low), np.array(low + width))
    params = parameters(span, dtype, scheme, bits)  # type: ignore[arg-type]
    x = np.linspace(low, low + width, 64).astype(np.float32)
    codes = quantize(x, params)
    assert codes.min() >= params.low
    assert codes.max() <= params.high
    assert params.high - params.low < 2**bits
    # Half a step of rounding, half of the zero point's, and float32's own at this magnitude.
    slack = float(params.scale) + 1e-6 * float(np.abs(x).max())
    assert float(np.abs(dequantize(codes, params) - x).max()) <= slack


def test_narrow_says_whether_a_clip_is_needed() -> None:
    span = Range(np.array(-1), np.array(3))
    assert not parameters(span, "uint8", "asymmetric").narrow
    assert not parameters(span, "int8", "symmetric").narrow
    six = parameters(span, "uint8", "asymmetric", 6)
    assert six.narrow
    low, high = six.clip
    x = np.array([low - 1, high + 1], np.float32)
    np.testing.assert_array_equal(quantize(x, six), [six.low, six.high])


def test_parameters_survive_json() -> None:
    params = parameters(
        Range(np.array([-1.0, -0.1]), np.array([2.0, 0.3])), "int8", "asymmetric", axis=1
    )
    assert QParams.from_json(params.to_json()).same(params)
    assert not params.scaled(2.0).same(params)


@pytest.mark.parametrize(
    ("scale", "zero", "low", "high"),
    [(0.0, 0, -127, 127), (np.nan, 0, -127, 127), (1.0, 300, 0, 255), (1.0, 0, -300, 127)],
)
def test_impossible_parameters_are_refused(
    scale: float, zero: int, low: int, high: int
) -> None:
    dtype = "uint8" if low == 0 else "int8"
    with pytest.raises(InternalError):
        QParams(np.array(scale, np.float32), np.array(zero, np.int32), dtype, low, high)


def test_every_dtype_has_its_range() -> None:
    for dtype, (low, high) in DTYPE_RANGES.items():
        bits = int(dtype.lstrip("uint"))
        assert high - low + 1 == 2**bits


def test_blocks_share_a_scale() -> None:
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    params = QParams(
        np.array([[1, 2], [4, 8]], np.float32), np.zeros((2, 2)), "int8", -7, 7, 0, 2
    )
    np.testing.assert_array_equal(
        quantize(x, params), np.rint(x / np.repeat([[1, 2], [4, 8]], 2, axis=0))
    )
