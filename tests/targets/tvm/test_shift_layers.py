"""Layers of packed shift codes as native code: the same integers as int64 and ONNX Runtime."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgevit.backend import Lowered
from edgevit.model import shape_of
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.shift_codes import Packed, encode, levels
from edgevit.targets.tvm.tables import refusal
from tests.support.native import lower, run_all
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]
STEP, ZERO = 2.0**-5, 117
FORMS = [(1, False), (2, False), (3, False), (1, True), (2, True)]


def coded(q: Array, terms: int, wide: bool) -> tuple[Packed, Array]:
    """Packed integers [K, N], and scales: powers of two, one a column."""
    rng = np.random.default_rng(9)
    return encode(q, terms, wide), (2.0 ** rng.integers(-9, 0, q.shape[1])).astype(np.float32)


def linear(q: Array, terms: int, wide: bool, rows: int, *, quantized: bool = True) -> ir.Model:
    """A product with integers [K, N], a bias and an activation behind it."""
    b, (packed, scale) = QuantizedBuilder(), coded(q, terms, wide)
    x = b.input("x", (2, rows, q.shape[0]))
    data = b.pair(x, (STEP, ZERO), np.uint8) if quantized else x
    signs = [] if packed.signs is None else [b.const(packed.signs, dtype=np.uint8)]
    inputs = [data, b.const(packed.codes, dtype=np.uint8), *signs, b.const(scale)]
    name = "WideShiftLinear" if wide else "ShiftLinear"
    b.op(name, *inputs, domain=DOMAIN, out="y")
    return finished(b, name, q.shape[0], (2, rows, q.shape[1]))


def finished(b: QuantizedBuilder, name: str, inputs: int, shape: tuple[int, ...]) -> ir.Model:
    """The model of one function call, with its body."""
    model = ir.serde.deserialize_model(b.proto(["y"]))
    (layer,) = (n for n in model.graph if n.op_type == name)
    layer.attributes["inputs"] = ir.AttrInt64("inputs", inputs)
    y = layer.outputs[0]
    y.shape, y.dtype = ir.Shape(shape), ir.DataType.FLOAT
    ensure_function(model, name)
    return model


def conv(q: Array, terms: int, wide: bool, group: int, size: int, **attrs: Any) -> ir.Model:
    """A convolution of [1, C, size, size] with integers [M, C / group, kh, kw]."""
    b, (m, per, kh, kw) = QuantizedBuilder(), q.shape
    packed, scale = coded(q.reshape(m, -1).T, terms, wide)
    given = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], **attrs}
    x = b.input("x", (1, per * group, size, size))
    data = b.pair(x, (STEP, ZERO), np.uint8)
    signs = [] if packed.signs is None else [b.const(packed.signs, dtype=np.uint8)]
    bias = b.const(np.arange(m) / 4)
    inputs = [data, b.const(packed.codes, dtype=np.uint8), *signs, b.const(scale), bias]
    name = "WideShiftConv" if wide else "ShiftConv"
    attrs = {**given, "weight_shape": list(q.shape), "kernel_shape": [kh, kw], "group": group}
    b.op(name, *inputs, domain=DOMAIN, out="y", **attrs)
    sides = [
        (size + given["pads"][i] + given["pads"][i + 2] - k) // given["strides"][i] + 1
        for i, k in enumerate((kh, kw))
    ]
    return finished(b, name, packed.inputs, (1, m, *sides))


def whole(x: Array) -> Array:
    """The bytes that x is quantized to, less the zero point, int64."""
    steps = np.clip(np.rint(x.astype(np.float32) / np.float32(STEP)) + ZERO, 0, 255)
    return np.asarray(steps.astype(np.int64) - ZERO)


def ran(model: ir.Model, x: Array) -> tuple[Lowered, Array]:
    """The files, and what they answer."""
    made = lower(model, "w8a8")
    (result,) = run_all([(made, {"x": x})])
    assert not result.error
    return made, result.outputs["y"]


def data(model: ir.Model) -> Array:
    """Seeded input over all of the bytes' range."""
    shape = shape_of(model.graph.inputs[0])
    return np.random.default_rng(3).normal(size=shape).astype(np.float32) * 2


@pytest.mark.parametrize(("terms", "wide"), FORMS)
def test_linear_layers_are_exact(terms: int, wide: bool) -> None:
    k, n, rows = 60, 64, 5
    q = np.random.default_rng(0).choice(levels(terms, wide), (k, n))
    model = linear(q, terms, wide, rows)
    x = data(model)
    made, got = ran(model, x)
    sums = (whole(x) @ q.astype(np.int64)).astype(np.float32)
    scale = np.float32(STEP) * coded(q, terms, wide)[1]
    assert np.array_equal(got, sums * scale)
    if not wide:  # there ONNX Runtime multiplies the same integers
        content = ir.to_proto(model).SerializeToString()
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert np.array_equal(got, session.run(None, {"x": x})[0])
    # The parameters hold packed codes, offsets and scales of 4 bytes a column, padding.
    assert ("gemm_shift" if wide else "gemm_codes") in kernels(made)
    packed = k * n * terms * (5 if wide else 4) // 8
    assert packed <= len(made.files["m.params"]) <= packed + 8 * n + 3 * 64


CONVOLUTIONS = {
    "1x1": ((40, 20, 1, 1), 1, {}),
    "3x3, padded, strided": ((17, 6, 3, 3), 1, {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    "groups": ((24, 8, 3, 3), 3, {"pads": [1, 1, 1, 1]}),
    "uneven groups": ((6, 3, 3, 3), 2, {}),
    "depthwise": ((12, 1, 3, 3), 12, {"pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize(
    ("name", "wide"),
    [*((name, False) for name in CONVOLUTIONS), ("3x3, padded, strided", True)],
)
def test_convolutions_are_exact(name: str, wide: bool) -> None:
    shape, group, attrs = CONVOLUTIONS[name]
    q = np.random.default_rng(0).choice(levels(2, wide), shape)
    model = conv(q, 2, wide, group, 7, **attrs)
    x = data(model)
    _, got = ran(model, x)
    scale = np.float32(STEP) * coded(q.reshape(shape[0], -1).T, 2, wide)[1]
    sums = convolved(whole(x), q.astype(np.int64), group, attrs).astype(np.float32)
    bias = np.arange(shape[0], dtype=np.float32)[:, None, None] / 4
    want = sums * scale[:, None, None] + bias
    if name == "uneven groups":  # in float32
        size = np.abs(whole(x)).max() * np.abs(q).sum(axis=(1, 2, 3)).max()
        assert np.abs(got - want).max() <= 2.0**-23 * 32 * size * scale.max()
    else:
        assert np.array_equal(got, want)


def convolved(x: Array, q: Array, group: int, attrs: dict[str, Any]) -> Array:
    """The integer convolution, tap by tap."""
    top, left, bottom, right = attrs.get("pads", [0] * 4)
    down, along = attrs.get("strides", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    m, per, kh, kw = q.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))
    windows = windows[0, :, ::down, ::along]
    out = [
        np.tensordot(q[i], windows[i * group // m * per :][:per], axes=([0, 1, 2], [0, 3, 4]))
        for i in range(m)
    ]
    return np.stack(out)[None]


def kernels(made: Lowered) -> list[str]:
    """Labels of the calls."""
    return list(json.loads(made.files["m.plan.json"])["kernels"])


def test_float_data_are_multiplied_in_float() -> None:
    q = np.random.default_rng(0).choice(levels(2), (24, 18))
    model = linear(q, 2, False, 3, quantized=False)
    x = data(model)
    made, got = ran(model, x)
    assert "gemm" in kernels(made)
    scale = coded(q, 2, False)[1].astype(np.float64)
    exact, size = (f(x.astype(np.float64)) @ (f(q) * scale) for f in (np.asarray, np.abs))
    assert (np.abs(got - exact) <= 26 * 2.0**-24 * size).all()


def test_sums_beyond_int32_are_refused_the_integer_kernel() -> None:
    """255 * 2 * 32767 * 129 > 2^31: the layer is computed in float32 instead."""
    q = np.full((129, 4), 32767 - 32767 % 2**12, np.int64)
    q[:, 1:] = 2**14
    made, got = ran(linear(q, 3, True, 1), np.full((2, 1, 129), 4, np.float32))
    assert "gemm" in kernels(made)
    assert (got[..., 1:] > 0).all()


def test_codes_that_mean_no_bytes_are_refused() -> None:
    q = np.full((4, 4), 64)
    model = linear(q, 2, False, 1)
    (layer,) = (n for n in model.graph if n.op_type == "ShiftLinear")
    wrong = np.full((2, 2, 4), 0x77, np.uint8)  # 64 + 64
    value = layer.inputs[1]
    assert value is not None
    value.const_value = ir.tensor(wrong)
    assert "beyond 127" in (refusal(layer) or "")
