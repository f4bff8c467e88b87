"""How many transposes the layout plan leaves, and that no operator leaves the delegate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from edgevit.backend import Lowered
from edgevit.targets.litert.grouping import group_nodes
from tests.support.graphs import GraphBuilder, feeds_for, run_reference
from tests.support.tflite import Result, lower, run_all
from tests.targets.litert.case import Build, noise
from tests.targets.litert.test_operators import distance

_LIMIT = 1e-5  # of whole small networks: some 10 layers of at most 100-term sums


def _conv(g: GraphBuilder, x: str, channels: tuple[int, int], act: str = "Relu") -> str:
    weight = g.const(noise(channels[1], channels[0], 3, 3) / 6)
    y = g.op("Conv", x, weight, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4,
             dilations=[1, 1], group=1)  # fmt: skip
    return g.op(act, y) if act else y


def _tokens(g: GraphBuilder, x: str, n: int, c: int) -> str:
    return g.op("Transpose", g.op("Reshape", x, g.ints([1, c, n])), perm=[0, 2, 1])


def _image(g: GraphBuilder, x: str, size: int, c: int) -> str:
    moved = g.op("Transpose", x, perm=[0, 2, 1])
    return g.op("Reshape", moved, g.ints([1, c, size, size]))


def _linear(g: GraphBuilder, x: str, k: int, n: int) -> str:
    return g.op("Add", g.op("MatMul", x, g.const(noise(k, n) / 4)), g.const(noise(n)))


def _attention(g: GraphBuilder, x: str, n: int, c: int, heads: int) -> str:
    """As exporters write it: one projection, split, heads moved to the front and back."""
    d = c // heads
    qkv = g.op("Reshape", _linear(g, x, c, 3 * c), g.ints([1, n, 3, heads, d]))
    moved = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    g.op("Split", moved, g.ints([1, 1, 1]), axis=0, out=("q", "k", "v"))
    parts = [g.op("Reshape", p, g.ints([1, heads, n, d])) for p in ("q", "k", "v")]
    y = g.op("Attention", *parts, scale=d**-0.5)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints([1, n, c]))
    return g.op("Add", _linear(g, y, c, c), x)


def _split_attention(g: GraphBuilder) -> list[str]:
    """As canonicalization writes it: the projection split in three, heads moved apart."""
    n, c, heads = 6, 8, 2
    d = c // heads
    x = g.input("x", (1, n, c))
    g.op("Split", _linear(g, x, c, 3 * c), g.ints([c] * 3), axis=2, out=("q", "k", "v"))
    split = [g.op("Reshape", p, g.ints([1, n, heads, d])) for p in ("q", "k", "v")]
    moved = [g.op("Transpose", p, perm=[0, 2, 1, 3]) for p in split]
    y = g.op("Attention", *moved, scale=d**-0.5)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints([1, n, c]))
    return [g.op("Add", _linear(g, y, c, c), x)]


def _split_elsewhere(g: GraphBuilder) -> list[str]:
    """Parts that are wanted in different orders: each is moved on its own."""
    g.op("Split", g.op("Relu", g.input("x", (2, 6, 4))), g.ints([2] * 3), axis=1,
         out=("a", "b", "c"))  # fmt: skip
    a = g.op("Reshape", g.op("Transpose", "a", perm=[2, 1, 0]), g.ints([4, 4]))
    b = g.op("Reshape", g.op("Transpose", "b", perm=[1, 0, 2]), g.ints([4, 4]))
    product = g.op("MatMul", a, b)
    return [g.op("MatMul", product, g.op("Reshape", "c", g.ints([4, 4])))]


def _talking_heads(g: GraphBuilder) -> list[str]:
    """1x1 convolutions that mix the heads of an attention map."""
    maps = g.op("MatMul", g.input("q", (1, 4, 20, 8)), g.input("k", (1, 4, 8, 20)))
    one = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4,
           "dilations": [1, 1], "group": 1}  # fmt: skip
    attrs: dict[str, Any] = one
    mixed = g.op("Conv", maps, g.const(noise(4, 4, 1, 1)), g.const(noise(4)), **attrs)
    soft = g.op("Softmax", mixed, axis=3)
    again = g.op("Relu", g.op("Conv", soft, g.const(noise(4, 4, 1, 1, seed=3)), **attrs))
    return [g.op("MatMul", again, g.input("v", (1, 4, 20, 8)))]


def _convolutions(g: GraphBuilder) -> list[str]:
    x = _conv(g, g.input("x", (1, 3, 8, 8)), (3, 4), "HardSwish")
    y = g.op("Add", _conv(g, x, (4, 4)), x)
    z = g.op("Concat", y, g.op("Mul", y, g.const(noise(4, 1, 1))), axis=1)
    padded = g.op("Pad", z, g.ints([0, 0, 1, 1, 0, 0, 1, 1]), g.const(0.0), mode="constant")
    sums = g.op("ReduceMean", padded, g.ints([1]), keepdims=1)
    return [_conv(g, g.op("Sub", padded, sums), (8, 3), "")]


def _stem(g: GraphBuilder) -> list[str]:
    x = _tokens(g, _conv(g, g.input("x", (1, 3, 8, 8)), (3, 4)), 64, 4)
    n = g.op("LayerNormalization", x, g.const(noise(4)), g.const(noise(4)), axis=2,
             epsilon=1e-6)  # fmt: skip
    return [_linear(g, n, 4, 5)]


def _hybrid(g: GraphBuilder) -> list[str]:
    x = _conv(g, g.input("x", (1, 3, 4, 4)), (3, 8))
    t = _attention(g, _tokens(g, x, 16, 8), 16, 8, 2)
    y = g.op("Concat", _image(g, t, 4, 8), x, axis=1)
    return [g.op("ReduceMean", _conv(g, y, (16, 4)), g.ints([2, 3]), keepdims=0)]


def _unfold(g: GraphBuilder) -> list[str]:
    """MobileViT's patches: image to [patch pixels, patches, channels] and back."""
    c, n = 4, 16
    x = _conv(g, g.input("x", (1, 3, 8, 8)), (3, c))
    y = g.op("Transpose", g.op("Reshape", x, g.ints([c * 4, 2, 4, 2])), perm=[0, 2, 1, 3])
    y = g.op("Transpose", g.op("Reshape", y, g.ints([1, c, n, 4])), perm=[0, 3, 2, 1])
    y = _linear(g, g.op("Reshape", y, g.ints([4, n, c])), c, c)
    y = g.op("Transpose", g.op("Reshape", y, g.ints([1, 4, n, c])), perm=[0, 3, 2, 1])
    y = g.op("Transpose", g.op("Reshape", y, g.ints([c * 4, 4, 2, 2])), perm=[0, 2, 1, 3])
    return [_conv(g, g.op("Reshape", y, g.ints([1, c, 8, 8])), (c, 2))]


def _normalized_image(g: GraphBuilder) -> list[str]:
    """ConvNeXt's LayerNorm over channels of an image."""
    x = g.op("Transpose", _conv(g, g.input("x", (1, 3, 6, 6)), (3, 4)), perm=[0, 2, 3, 1])
    n = g.op("LayerNormalization", x, g.const(noise(4)), g.const(noise(4)), axis=3,
             epsilon=1e-6)  # fmt: skip
    y = g.op("Transpose", _linear(g, n, 4, 4), perm=[0, 3, 1, 2])
    return [_conv(g, y, (4, 2))]


_GRAPHS: dict[str, tuple[Build, int]] = {
    "convolutions": (_convolutions, 2),  # the boundary, both ways
    "stem": (_stem, 1),  # the boundary in
    # The boundary in; q, k, v together; heads back.
    "hybrid": (_hybrid, 3),
    "split-attention": (_split_attention, 2),  # q, k, v together; heads back
    "talking-heads": (_talking_heads, 0),
    "split-elsewhere": (_split_elsewhere, 2),
    "unfold": (_unfold, 4),  # the boundary both ways, patches both ways
    "normalized-image": (_normalized_image, 2),  # the boundary both ways
}


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[Lowered, Result, float]]:
    made, jobs, expected = [], [], []
    for build, _ in _GRAPHS.values():
        g = GraphBuilder()
        model = g.model(*build(g))
        feeds = feeds_for(model)
        made.append(lower(model))
        jobs.append((made[-1], feeds))
        expected.append(run_reference(model, feeds))
    found = {}
    for name, low, result, reference in zip(
        _GRAPHS, made, run_all(jobs), expected, strict=True
    ):
        worst = max(distance(result.outputs[k], reference[k]) for k in reference)
        found[name] = (low, result, worst)
    return found


@pytest.mark.parametrize("name", _GRAPHS)
def test_transposes_are_few(name: str, runs: dict[str, tuple[Lowered, Result, float]]) -> None:
    _, result, worst = runs[name]
    assert result.error == ""
    assert worst <= _LIMIT
    assert Counter(result.operators)["TRANSPOSE"] == _GRAPHS[name][1]


@pytest.mark.parametrize("name", _GRAPHS)
def test_the_delegate_takes_every_operator(
    name: str, runs: dict[str, tuple[Lowered, Result, float]]
) -> None:
    _, result, _ = runs[name]
    assert result.outside == ()


def test_native_boundary_needs_no_transposes() -> None:
    g = GraphBuilder()
    model = g.model(*_convolutions(g))
    feeds = feeds_for(model)
    reference = run_reference(model, feeds)
    lowered = lower(model, io="native")
    result = run_all([(lowered, feeds)])[0]
    assert lowered.part.inputs[0].perm == (0, 2, 3, 1)
    assert Counter(result.operators)["TRANSPOSE"] == 0
    assert max(distance(result.outputs[k], reference[k]) for k in reference) <= _LIMIT


def test_bias_and_activation_are_fused_unless_used_elsewhere() -> None:
    g = GraphBuilder()
    product = g.op("MatMul", g.input("x", (2, 4)), g.const(noise(4, 4)))
    shifted = g.op("Add", product, g.const(noise(4)))
    y = g.op("Relu", shifted)
    assert [len(group.nodes) for group in group_nodes(g.model(y).graph)] == [3]
    both = g.model(y, shifted)
    assert [len(group.nodes) for group in group_nodes(both.graph)] == [2, 1]
