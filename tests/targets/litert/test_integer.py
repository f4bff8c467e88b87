"""Integer truth: LiteRT's kernels compute what their specification says, bit for bit.

The oracle (``tests/support/integer_kernels.py``) sees the numbers of the case only, never the
lowering. Built-in kernels must equal it; XNNPACK multiplies in float32 and may be off by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered
from edgevit.targets.litert.writer import pack
from tests.support.integer_kernels import (
    convolve,
    requantize,
    requantize_once,
    requantize_wide,
)
from tests.support.quantized import Codes, QuantizedBuilder
from tests.support.tflite import Result, lower, run_all

Array = np.ndarray[Any, Any]
_READ: Codes = (0.05, -3)


@dataclass(frozen=True)
class Layer:
    """A layer on codes.

    Attributes:
        kind: ``conv`` or ``linear``.
        x: Codes, channels first.
        weight: Codes: ``[O, C / groups, kh, kw]`` or ``[K, N]``.
        made: Scale and zero point of the result.
        groups: Of a convolution.
        strides: Of a convolution.
        pads: Top, left, bottom, right.
        clamp: Real limits in front of the last quantizer.
        dtype: Of activations.
        bits: Of weights.
        one_scale: Weights have one scale for all channels.
    """

    kind: str
    x: Array
    weight: Array
    made: Codes = (0.1, 4)
    read: Codes = _READ
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    clamp: tuple[float, float] | None = None
    dtype: Any = np.int8
    bits: int = 8
    one_scale: bool = False

    @property
    def channels(self) -> int:
        return int(self.weight.shape[0 if self.kind == "conv" else 1])

    @property
    def scale(self) -> Array:
        rng = np.random.default_rng(3)
        count = 1 if self.one_scale else self.channels
        return (rng.uniform(0.5, 1.5, count) / 127).astype(np.float32)

    @property
    def bias(self) -> Array:
        return np.random.default_rng(4).standard_normal(self.channels).astype(np.float32)


def _codes(*shape: int, low: int = -127, high: int = 127, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def _layers() -> dict[str, Layer]:
    image, rows = _codes(2, 6, 7, 5), _codes(1, 9, 12)
    square = Layer("conv", image, _codes(8, 6, 3, 3, seed=1))
    linear = Layer("linear", rows, _codes(12, 10, seed=1))
    sixteen: dict[str, Any] = {"dtype": np.int16, "read": (0.001, 0), "made": (0.004, 0)}
    wide: dict[str, Any] = {"x": _codes(1, 9, 12, low=-30000, high=30000), **sixteen}
    wide_image: dict[str, Any] = {"x": _codes(2, 6, 7, 5, low=-30000, high=30000), **sixteen}
    four: dict[str, Any] = {"low": -7, "high": 7, "seed": 1}
    return {
        "conv": square,
        "conv-1x1": replace(square, weight=_codes(8, 6, 1, 1, seed=1)),
        "conv-strided-padded": replace(square, strides=(2, 2), pads=(1, 1, 1, 1)),
        "conv-odd-pads": replace(square, pads=(2, 0, 1, 1)),
        "conv-relu": replace(square, clamp=(0.0, np.inf)),
        "conv-relu6": replace(square, clamp=(0.0, 6.0)),
        "conv-narrow": replace(square, clamp=(-3.6, 2.7)),
        "conv-one-scale": replace(square, one_scale=True),
        "depthwise": replace(square, weight=_codes(6, 1, 3, 3, seed=1), groups=6),
        "depthwise-twice": replace(square, weight=_codes(12, 1, 3, 3, seed=1), groups=6),
        "grouped": replace(square, weight=_codes(8, 3, 3, 3, seed=1), groups=2),
        "conv-int4": replace(square, weight=_codes(8, 6, 3, 3, **four), bits=4),
        "conv-16x8": replace(square, **wide_image),
        "depthwise-16x8": replace(
            square, weight=_codes(6, 1, 3, 3, seed=1), groups=6, **wide_image
        ),
        "linear": linear,
        "linear-one-scale": replace(linear, one_scale=True),
        "linear-relu": replace(linear, clamp=(0.0, np.inf)),
        "linear-narrow": replace(linear, clamp=(-3.6, 2.7)),
        "linear-int4": replace(linear, weight=_codes(12, 10, **four), bits=4),
        "linear-int4-odd": replace(
            linear, x=_codes(1, 9, 13), weight=_codes(13, 9, **four), bits=4
        ),
        "linear-16x8": replace(linear, **wide),
    }


LAYERS = _layers()


def _build(layer: Layer) -> ir.Model:
    g = QuantizedBuilder()
    x = g.dequantize(g.input("x", layer.x.shape, layer.dtype), layer.read, layer.dtype)
    conv = layer.kind == "conv"
    scale: Any = float(layer.scale[0]) if layer.one_scale else [float(s) for s in layer.scale]
    dtype = np.int8 if layer.bits == 8 else ml_dtypes.int4
    w = g.weight(layer.weight, scale, 0 if conv else 1, dtype)
    bias = g.const(layer.bias)
    if conv:
        y = g.op("Conv", x, w, bias, kernel_shape=layer.weight.shape[2:], group=layer.groups,
                 strides=layer.strides, pads=layer.pads, dilations=[1, 1])  # fmt: skip
    else:
        y = g.op("Add", g.op("MatMul", x, w), bias)
    if layer.clamp == (0.0, np.inf):
        y = g.op("Relu", y)
    elif layer.clamp is not None:
        y = g.op("Clip", y, *(g.const(v) for v in layer.clamp))
    g.quantize(y, layer.made, layer.dtype, out="y")
    return g.model("y")


def _sums(layer: Layer) -> Array:
    """Exact sums with the bias in their units, channels last."""
    centered = layer.x.astype(np.int64) - layer.read[1]
    unit = np.float32(layer.read[0]) * layer.scale
    if layer.kind == "conv":
        total = convolve(
            centered.transpose(0, 2, 3, 1), layer.weight.transpose(0, 2, 3, 1),
            layer.strides, layer.pads, layer.groups,
        )  # fmt: skip
    else:
        total = centered @ layer.weight.astype(np.int64)
    return np.asarray(total + np.rint(layer.bias / unit.astype(np.float64)).astype(np.int64))


Rounding = Callable[[Array, Array], Array]


def expected(layer: Layer, rounding: Rounding) -> Array:
    """Codes of the result, in the source's layout."""
    total = _sums(layer)
    factors = np.float32(layer.read[0]).astype(np.float64) * layer.scale
    factors = factors.astype(np.float64) / np.float64(np.float32(layer.made[0]))
    info = np.iinfo(layer.dtype)
    low, high = int(info.min), int(info.max)
    if layer.clamp is not None:
        ends = np.rint(np.asarray(layer.clamp) / np.float32(layer.made[0])) + layer.made[1]
        low, high = (int(v) for v in np.clip(ends, low, high))
    codes = np.clip(rounding(total, factors) + layer.made[1], low, high).astype(layer.dtype)
    return np.asarray(codes.transpose(0, 3, 1, 2) if layer.kind == "conv" else codes)


def rounding_of(layer: Layer) -> Rounding:
    """How the reference kernel of a layer rounds.

    Convolutions round the doubled high product and then the shift; the fully connected
    kernel rounds once; 64-bit sums of convolutions meet a multiplier of 16 bits.
    """
    if layer.kind == "linear":
        return requantize_once
    return requantize_wide if layer.dtype == np.int16 else requantize


@dataclass(frozen=True)
class Fault:
    """A wrong artifact.

    Attributes:
        layer: Name of the layer.
        edit: Changes the quantization of ``(data, weight, result)`` in the flatbuffer.
    """

    layer: str
    edit: Callable[[Any, Any, Any], None]


def _weight_scale(data: Any, weight: Any, result: Any) -> None:
    weight.scale = [s * 1.02 for s in weight.scale]


def _one_channel(data: Any, weight: Any, result: Any) -> None:
    weight.scale = [*weight.scale[:-1], weight.scale[-1] * 1.1]


def _channels_reversed(data: Any, weight: Any, result: Any) -> None:
    weight.scale = list(weight.scale)[::-1]


def _data_zero(data: Any, weight: Any, result: Any) -> None:
    data.zeroPoint = [int(data.zeroPoint[0]) + 1]


def _result_zero(data: Any, weight: Any, result: Any) -> None:
    result.zeroPoint = [int(result.zeroPoint[0]) + 1]


def _result_scale(data: Any, weight: Any, result: Any) -> None:
    result.scale = [float(result.scale[0]) * 1.02]


_EDITS = (_weight_scale, _one_channel, _channels_reversed, _data_zero, _result_zero,
          _result_scale)  # fmt: skip
FAULTS = {
    f"{layer}{edit.__name__}": Fault(layer, edit)
    for layer in ("conv-1x1", "depthwise", "linear")
    for edit in _EDITS
}


def _broken(lowered: Lowered, fault: Fault) -> Lowered:
    ((path, content),) = lowered.files.items()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    weighted = [o for o in graph.operators if len(o.inputs) == 3]
    (operator,) = weighted
    operands = (operator.inputs[0], operator.inputs[1], operator.outputs[0])
    fault.edit(*(graph.tensors[t].quantization for t in operands))
    return replace(lowered, files={path: pack(model)})


Runs = Mapping[str, Result]


def _run(kernels: str) -> Runs:
    made = {name: lower(_build(layer), "fp32") for name, layer in LAYERS.items()}
    jobs = {n: (made[n], {"x": la.x.astype(la.dtype)}) for n, la in LAYERS.items()}
    for name, fault in FAULTS.items() if kernels == "BUILTIN_REF" else ():
        lowered, feeds = jobs[fault.layer]
        jobs[name] = (_broken(lowered, fault), feeds)
    return dict(zip(jobs, run_all(list(jobs.values()), kernels), strict=True))


@pytest.fixture(scope="module")
def runs() -> Mapping[str, Runs]:
    names = ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
    return {name: _run(name) for name in names}


@pytest.mark.parametrize("name", LAYERS)
def test_reference_kernels_equal_their_specification(
    name: str, runs: Mapping[str, Runs]
) -> None:
    result, layer = runs["BUILTIN_REF"][name], LAYERS[name]
    assert result.error == ""
    reference = expected(layer, rounding_of(layer))
    assert np.unique(reference).size > 20, "a saturated result proves nothing"
    np.testing.assert_array_equal(result.outputs["y"], reference)


@pytest.mark.parametrize("name", FAULTS)
def test_the_specification_rejects_a_wrong_artifact(
    name: str, runs: Mapping[str, Runs]
) -> None:
    layer = LAYERS[FAULTS[name].layer]
    result = runs["BUILTIN_REF"][name]
    assert result.error == ""
    assert not np.array_equal(result.outputs["y"], expected(layer, rounding_of(layer)))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kernels", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
def test_fast_kernels_are_within_one_code_on_few_elements(
    name: str, kernels: str, runs: Mapping[str, Runs]
) -> None:
    result, layer = runs[kernels][name], LAYERS[name]
    assert result.error == ""
    reference = expected(layer, rounding_of(layer)).astype(np.int64)
    off = np.abs(result.outputs["y"].astype(np.int64) - reference)
    assert off.max() <= 1
    # Only a sum whose quotient lies within 2^-9 of a half can be rounded the other way by a
    # product in float32 or by one more rounding: two in 512 elements, and twice that for luck.
    assert np.count_nonzero(off) <= max(4, off.size * 4 / 512)


def test_xnnpack_takes_the_8_bit_layers(runs: Mapping[str, Runs]) -> None:
    """What runs in built-in kernels instead: 4-bit convolutions, 16-bit data, clamps."""
    outside = {n for n in LAYERS if runs["AUTO"][n].outside}
    assert outside == {
        "conv-narrow", "linear-narrow", "conv-int4", "linear-int4-odd",
        "conv-16x8", "depthwise-16x8", "linear-16x8",
    }  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_no_operator_computes_in_float(name: str, runs: Mapping[str, Runs]) -> None:
    kernel = {"conv": "CONV_2D", "linear": "FULLY_CONNECTED"}[LAYERS[name].kind]
    if name.startswith("depthwise"):
        kernel = "DEPTHWISE_CONV_2D"
    allowed = {kernel, "TRANSPOSE", "RESHAPE", "PAD", "MAXIMUM", "MINIMUM"}
    operators = runs["AUTO"][name].operators
    assert kernel in operators
    assert set(operators) <= allowed
