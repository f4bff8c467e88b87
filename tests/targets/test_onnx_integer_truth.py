"""Integer truth: ONNX Runtime's kernels compute what ONNX specifies, code for code.

The oracle (``tests/support/integer_kernels.py``) sees the numbers of a case only: exact sums
of codes, a bias in their units, one product with a float32 factor, halves to even (QLinearConv
and QLinearMatMul of the ONNX operator specification). What runs is the artifact as we lower
it, with all of the engine's optimizations: uint8 x int8, the signedness that it fuses on x86,
and 7 bits of weights, as the ``onnx`` target stores them (its device file says why).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.backend import LowerOptions
from edgevit.target import load_target
from edgevit.targets.onnx.lower import OnnxBackend
from tests.support.integer_kernels import convolve, onnx_requantize
from tests.support.optimized import optimized
from tests.support.quantized import Codes, QuantizedBuilder

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer on codes.

    Attributes:
        kernel: What ONNX Runtime has to make of it.
        x: Codes of the data, channels first.
        weight: Codes: ``[O, C / groups, kh, kw]`` or ``[K, N]``.
        read: Scale and zero point of the data.
        made: Scale and zero point of the result.
        groups: Of a convolution.
        strides: Of a convolution.
        pads: Top, left, bottom, right.
        biased: Whether there is a bias.
        clamp: Operator in front of the last quantizer, or nothing.
    """

    kernel: str
    x: Array
    weight: Array
    read: Codes = (0.03, 120)
    made: Codes = (0.11, 131)
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    biased: bool = True
    clamp: str = ""

    @property
    def conv(self) -> bool:
        return self.weight.ndim == 4

    @property
    def scale(self) -> Array:
        count = self.weight.shape[0 if self.conv else 1]
        made = np.random.default_rng(3).uniform(0.5, 1.5, count) / 63
        return np.asarray(made, np.float32)

    @property
    def bias(self) -> Array:
        made = np.random.default_rng(4).standard_normal(self.scale.size).astype(np.float32)
        return np.asarray(made * np.float32(self.biased))


def _codes(low: int, high: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def _layers() -> dict[str, Layer]:
    image, rows = _codes(0, 255, 2, 6, 8, 7), _codes(0, 255, 2, 9, 24)
    square = Layer("QLinearConv", image, _codes(-63, 63, 8, 6, 3, 3, seed=1))
    linear = Layer("QLinearMatMul", rows, _codes(-63, 63, 24, 10, seed=1), biased=False)
    return {
        "conv": square,
        "conv-plain": replace(square, biased=False),
        "conv-1x1": replace(square, weight=_codes(-63, 63, 8, 6, 1, 1, seed=1)),
        "conv-strided-padded": replace(square, strides=(2, 2), pads=(1, 1, 1, 1)),
        "conv-odd-pads": replace(square, pads=(2, 0, 1, 1)),
        "conv-relu": replace(square, clamp="Relu", made=(0.05, 0)),
        "depthwise": replace(square, weight=_codes(-63, 63, 6, 1, 3, 3, seed=1), groups=6),
        "grouped": replace(square, weight=_codes(-63, 63, 8, 3, 3, 3, seed=1), groups=2),
        "linear": linear,
        "linear-long": replace(
            linear,
            x=_codes(0, 255, 4, 9, 700),
            weight=_codes(-63, 63, 700, 5, seed=1),
            made=(0.4, 120),
        ),
    }


LAYERS = _layers()


def _build(layer: Layer) -> ir.Model:
    g = QuantizedBuilder()
    x = g.dequantize(g.input("x", layer.x.shape, np.uint8), layer.read, np.uint8)
    scale = [float(s) for s in layer.scale]
    w = g.weight(layer.weight, scale, 0 if layer.conv else 1)
    if layer.conv:
        bias = [g.const(layer.bias)] if layer.biased else []
        y = g.op("Conv", x, w, *bias, kernel_shape=layer.weight.shape[2:], group=layer.groups,
                 strides=layer.strides, pads=layer.pads, dilations=[1, 1])  # fmt: skip
    else:
        y = g.op("MatMul", x, w)
    y = g.op(layer.clamp, y) if layer.clamp else y
    g.quantize(y, layer.made, np.uint8, out="y")
    return g.model("y")


def _sums(layer: Layer) -> Array:
    """Exact sums with the bias in their units, channels last."""
    centered = layer.x.astype(np.int64) - layer.read[1]
    if layer.conv:
        total = convolve(
            centered.transpose(0, 2, 3, 1), layer.weight.transpose(0, 2, 3, 1),
            layer.strides, layer.pads, layer.groups,
        )  # fmt: skip
    else:
        total = centered @ layer.weight.astype(np.int64)
    unit = (np.float32(layer.read[0]) * layer.scale).astype(np.float32)
    return np.asarray(total + np.rint(layer.bias / unit).astype(np.int64))


def expected(layer: Layer) -> Array:
    """Codes of the result, in the source's layout."""
    factors = np.float32(layer.read[0]) * layer.scale / np.float32(layer.made[0])
    info = np.iinfo(np.uint8)
    low = max(int(info.min), layer.made[1]) if layer.clamp else int(info.min)
    codes = onnx_requantize(_sums(layer), factors) + layer.made[1]
    held = np.clip(codes, low, int(info.max)).astype(np.uint8)
    return np.asarray(held.transpose(0, 3, 1, 2) if layer.conv else held)


def _lowered(layer: Layer) -> bytes:
    options = LowerOptions("w8a8", "source", "m")
    made = OnnxBackend().lower(_build(layer), load_target("onnx"), options)
    return made.files["m.onnx"]


def _run(content: bytes, layer: Layer) -> Array:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": layer.x.astype(np.uint8)})
    return np.asarray(found)


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_equal_their_specification(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]
    content = _lowered(layer)
    before, after = tmp_path / "m.onnx", tmp_path / "optimized.onnx"
    before.write_bytes(content)
    kernels = Counter(node.op_type for node in optimized(before, after).graph.node)
    assert kernels[layer.kernel] == 1, kernels
    reference = expected(layer)
    assert np.unique(reference).size > 20, "a saturated result proves nothing"
    np.testing.assert_array_equal(_run(content, layer), reference)


def _edit(layer: Layer, which: str, change: Callable[[Array], Array]) -> bytes:
    """The artifact with another constant: the wrong artifact of a mutant."""
    proto = onnx.load_model_from_string(_lowered(layer))
    node = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear"
                and n.input[0] in {t.name for t in proto.graph.initializer})  # fmt: skip
    wanted = node.input[{"codes": 0, "scale": 1}[which]]
    tensor = next(t for t in proto.graph.initializer if t.name == wanted)
    array = onnx.numpy_helper.to_array(tensor)
    changed = change(array).astype(array.dtype)
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, wanted))
    return bytes(proto.SerializeToString())


def _one_code(codes: Array) -> Array:
    flat = codes.copy().reshape(-1)
    flat[0] += 3 if flat[0] < 60 else -3
    return flat.reshape(codes.shape)


@pytest.mark.parametrize("name", ["conv", "depthwise", "linear"])
@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("codes", _one_code),
        ("scale", lambda s: s * 1.01),
        ("scale", lambda s: s[::-1]),
    ],
    ids=["one code", "scales", "scales reversed"],
)
def test_the_specification_rejects_a_wrong_artifact(
    name: str, which: str, change: Callable[[Array], Array]
) -> None:
    layer = LAYERS[name]
    found = _run(_edit(layer, which, change), layer)
    assert not np.array_equal(found, expected(layer))


def test_a_float_result_is_the_exact_sum_in_float32() -> None:
    """``MatMulIntegerToFloat``: integer sums, then one product with the scales."""
    layer = LAYERS["linear"]
    g = QuantizedBuilder()
    x = g.dequantize(g.input("x", layer.x.shape, np.uint8), layer.read, np.uint8)
    w = g.weight(layer.weight, [float(s) for s in layer.scale], 1)
    model = g.model(g.op("MatMul", x, w, out="y"))
    made = OnnxBackend().lower(model, load_target("onnx"), LowerOptions("w8a8", "source", "m"))
    found = _run(made.files["m.onnx"], layer).astype(np.float64)
    exact = _sums(layer) * (np.float64(np.float32(layer.read[0])) * layer.scale)
    # The factor is rounded once, the sum as a float32 once, their product once.
    limit = 3 * 2.0**-24 * np.abs(exact) + 1e-12
    assert (np.abs(found - exact) <= limit).all()
    assert not (np.abs(found * (1 + 1e-6) - exact) <= limit).all()
