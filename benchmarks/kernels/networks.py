"""Small networks of one kind of layer, with what surrounds it in real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["NETWORKS", "Network"]

_OPSET = 21
REPEATS = 3


@dataclass(frozen=True)
class Network:
    """One row of the table.

    Attributes:
        kind: Kind of its quantized layers (``edgevit.layer_rules``), and what is around them.
        size: Shown: channels, windows, positions.
        intensity: ``K N / (K + N)`` of the quantized layers, the least of them.
        build: Makes the model, of one input ``x`` and one output ``y``.
    """

    kind: str
    size: str
    intensity: float
    build: Callable[[], onnx.ModelProto]


@dataclass
class _Graph:
    """Collects nodes; weights are drawn so that values stay of order one."""

    shape: tuple[int, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def weight(self, *shape: int, fan_in: int) -> str:
        name = f"w_{len(self.weights)}"
        drawn = self.rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        self.weights.append(numpy_helper.from_array(drawn.astype(np.float32), name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, window: int, **other: int) -> str:
        group, stride = other.get("group", 1), other.get("stride", 1)
        fan_in = inputs // group * window**2
        weight = self.weight(outputs, inputs // group, window, window, fan_in=fan_in)
        bias = self.weight(outputs, fan_in=200)
        return self.op("Conv", x, weight, bias, kernel_shape=[window] * 2, group=group,
                       pads=[window // 2] * 4, strides=[stride] * 2)  # fmt: skip

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        y = self.op("MatMul", x, self.weight(inputs, outputs, fan_in=inputs))
        return self.op("Add", self.weight(outputs, fan_in=200), y)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def model(self, last: str) -> onnx.ModelProto:
        self.op("Identity", last)
        self.nodes[-1].output[0] = "y"
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "network", [given], [made], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = 10
        return onnx.shape_inference.infer_shapes(model)


def _intensity(k: int, n: int) -> float:
    return k * n / (k + n)


def _perceptron(tokens: int, width: int, hidden: int) -> Network:
    """``x + W2 gelu(W1 x)``: the feed-forward half of a transformer block."""

    def build() -> onnx.ModelProto:
        g, x = _Graph((1, tokens, width)), "x"
        for _ in range(REPEATS):
            y = g.op("Gelu", g.linear(x, width, hidden))
            x = g.op("Add", g.linear(y, hidden, width), x)
        return g.model(x)

    size = f"{tokens} x {width}, {hidden}"
    return Network("linear, GELU between", size, _intensity(width, hidden), build)


def _plain(channels: int, window: int, high: int, wide: int, kind: str) -> Network:
    """Convolutions of equal width, SiLU between."""
    group = channels if kind == "depthwise" else 1

    def build() -> onnx.ModelProto:
        g, x = _Graph((1, channels, high, wide)), "x"
        for _ in range(REPEATS):
            x = g.silu(g.conv(x, channels, channels, window, group=group))
        return g.model(x)

    size = f"{channels} channels, {window} x {window}, {high} x {wide}"
    depth = channels // group * window**2
    each = 1 if kind == "depthwise" else channels
    return Network(f"{kind}, SiLU between", size, _intensity(depth, each), build)


def _bottleneck(channels: int, hidden: int, high: int, wide: int) -> Network:
    """``x + P2 silu(D silu(P1 x))``: pointwise layers around a depthwise one of 3 x 3."""

    def build() -> onnx.ModelProto:
        g, x = _Graph((1, channels, high, wide)), "x"
        for _ in range(REPEATS):
            y = g.silu(g.conv(x, channels, hidden, 1))
            y = g.silu(g.conv(y, hidden, hidden, 3, group=hidden))
            x = g.op("Add", g.conv(y, hidden, channels, 1), x)
        return g.model(x)

    size = f"{channels}, {hidden} channels, {high} x {wide}"
    kind = "pointwise, depthwise between"
    return Network(kind, size, _intensity(channels, hidden), build)


def _stem(channels: int, side: int, window: int, stride: int) -> Network:
    """The first convolution of a network on images."""

    def build() -> onnx.ModelProto:
        g = _Graph((1, 3, side, side))
        return g.model(g.silu(g.conv("x", 3, channels, window, stride=stride)))

    size = f"3, {channels} channels, {window} x {window} / {stride}, {side} x {side}"
    return Network("spatial, stem", size, _intensity(3 * window**2, channels), build)


NETWORKS = (
    _perceptron(197, 192, 768),
    _perceptron(257, 384, 1536),
    _perceptron(256, 144, 288),
    _perceptron(3136, 32, 256),
    _perceptron(40, 120, 240),
    _plain(64, 1, 64, 64, "pointwise"),
    _plain(120, 1, 12, 160, "pointwise"),
    _plain(240, 1, 6, 80, "pointwise"),
    _plain(384, 1, 14, 14, "pointwise"),
    _bottleneck(32, 128, 56, 56),
    _bottleneck(48, 192, 28, 28),
    _bottleneck(96, 384, 14, 14),
    _bottleneck(96, 384, 32, 32),
    _bottleneck(160, 640, 16, 16),
    _bottleneck(176, 704, 7, 7),
    _plain(16, 3, 64, 64, "spatial"),
    _plain(64, 3, 32, 32, "spatial"),
    _plain(128, 3, 16, 16, "spatial"),
    _stem(16, 256, 3, 2),
    _stem(32, 224, 7, 4),
    _plain(64, 3, 64, 64, "depthwise"),
    _plain(240, 5, 12, 80, "depthwise"),
    _plain(256, 3, 14, 14, "depthwise"),
)
