"""Bridge blocks, against answers worked out by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.bridges import Bridge, bridges
from edgevit.loading import load
from edgevit.passes.order import canonicalize
from tests.support.hybrids import Hybrid

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "models"
CACHE = ROOT / ".cache" / "models"

Ends = list[tuple[str, str, str]]


def ends(h: Hybrid, output: str) -> Ends:
    model = h.g.model(output)
    canonicalize(model)
    return [(b.direction, b.entry, b.exit) for b in bridges(model)]


def test_a_patch_embedding_is_no_bridge() -> None:
    h = Hybrid()
    x = h.tokens(h.conv(h.image(), 2, stride=2), side=3)
    assert ends(h, h.block(h.block(x))) == []


def test_a_convolutional_stem_is_one() -> None:
    h = Hybrid()
    a = h.g.op("Relu", h.conv(h.image(), 3), out="a")
    b = h.g.op("Relu", h.conv(a, 3), out="b")
    assert ends(h, h.block(h.block(h.tokens(b, "t")))) == [("in", "a", "t")]


def test_convolution_only_has_none() -> None:
    h = Hybrid()
    x = h.conv_unit(h.conv_unit(h.image(), "a"), "b")
    gate = h.g.op("Sigmoid", h.conv(h.g.op("ReduceMean", x, h.g.ints((2, 3))), 1))
    assert ends(h, h.g.op("Mul", x, gate)) == []


def efficientformer(h: Hybrid) -> str:
    c = h.conv_unit(h.conv_unit(h.image(), "c1"), "c2")
    return h.block(h.block(h.tokens(c, "t")))


def test_maps_to_tokens_once() -> None:
    h = Hybrid()
    assert ends(h, efficientformer(h)) == [("in", "c1", "t")]


def efficientformerv2(h: Hybrid, units: int, talking: bool) -> str:
    """Two convolutional units; attention twice; then units and attention again."""
    x = h.conv_unit(h.conv_unit(h.image(), "c1"), "c2")
    x = h.conv_unit(h.map_attention(x, talking=talking), "f1")
    x = h.conv_unit(h.map_attention(x, talking=talking), "f2")
    for index in range(units):
        x = h.conv_unit(x, f"d{index}")
    return h.conv_unit(h.map_attention(x, talking=talking), "f3")


@pytest.mark.parametrize("talking", [False, True])
def test_a_feed_forward_of_convolutions_is_no_stage(talking: bool) -> None:
    h = Hybrid()
    found = ends(h, efficientformerv2(h, 1, talking))
    assert found == [("in", "c1", "c2"), ("in", "f2", "d0")]
    h = Hybrid()
    assert ends(h, efficientformerv2(h, 0, talking)) == [("in", "c1", "c2")]


def test_a_longer_stage_has_a_way_out_and_a_way_in() -> None:
    h = Hybrid()
    found = ends(h, efficientformerv2(h, 3, talking=False))
    assert found == [("in", "c1", "c2"), ("out", "f2", "d0"), ("in", "d1", "d2")]


def test_a_stage_that_pools_into_attention_stays_a_transformer() -> None:
    """CoAtNet: the next stage begins with an attention whose skip has a projection."""
    h = Hybrid()
    x = h.tokens(h.conv_unit(h.conv_unit(h.image(), "c1"), "c2"), "t")
    x = h.block(x, "b")
    normed = h.norm(x)
    x = h.mlp(h.g.op("Add", h.linear(x), h.attend(normed, normed)))
    assert ends(h, h.block(x)) == [("in", "c1", "t")]


def test_merging_patches_by_one_convolution_is_no_bridge() -> None:
    """PVTv2: a convolution in the feed-forward, and one between the stages."""
    h = Hybrid()
    x = h.attention(h.tokens(h.conv(h.image(), 3)))
    hidden = h.tokens(h.conv(h.map(h.linear(x)), 3, groups=4))
    x = h.g.op("Add", x, h.linear(h.g.op("Gelu", hidden)))
    x = h.tokens(h.conv(h.map(x), 3))
    assert ends(h, h.block(h.norm(x))) == []


def mobilevit_block(
    h: Hybrid, x: str, name: str, attention: Callable[[str], str], skip: bool
) -> str:
    """Local convolutions, tokens, attention, back, and a fusing convolution."""
    local = h.conv(h.g.op("HardSwish", h.conv(x, 3)), 1)
    t = attention(h.tokens(local, f"{name}_t"))
    back = h.conv(h.map(t), 1, f"{name}_out")
    if not skip:
        return back
    both = h.g.op("Concat", x, back, axis=1)
    fused = h.g.op("Conv", both, h.weight(4, 8, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    return h.g.op("Relu", fused)


@pytest.mark.parametrize("skip", [True, False])
def test_there_and_back_again(skip: bool) -> None:
    h = Hybrid()
    a = h.conv_unit(h.image(), "a")

    def attention(t: str) -> str:
        return h.block(h.block(t), t.replace("_t", "_e"))

    x = mobilevit_block(h, a, "first", attention, skip)
    b = h.conv_unit(x, "b")
    x = mobilevit_block(h, b, "second", attention, skip)
    found = ends(h, h.conv_unit(x, "last"))
    assert found == [
        ("in", "a", "first_t"),
        ("out", "first_e", "first_out"),
        ("in", "b", "second_t"),
        ("out", "second_e", "second_out"),
    ]


def test_separable_attention_is_attention() -> None:
    h = Hybrid()
    x = h.conv_unit(h.conv_unit(h.image(), "a"), "b")
    x = h.separable_attention(h.separable_attention(x))
    assert ends(h, x) == [("in", "a", "b")]


def test_a_decoder_of_convolutions_is_a_way_out() -> None:
    h = Hybrid()
    x = h.block(h.tokens(h.conv(h.image(), 1)), "e")
    x = h.g.op("Relu", h.conv(h.map(x, "m"), 3, "c"))
    assert ends(h, h.conv(x, 3)) == [("out", "e", "c")]


def test_a_skip_between_tokens_is_no_bridge() -> None:
    h = Hybrid()
    x = h.tokens(h.conv(h.image(), 1))
    early = h.block(x)
    late = h.block(early)
    both = h.g.op("Concat", early, late, axis=2)
    x = h.g.op("MatMul", both, h.weight(8, 4))
    assert ends(h, h.block(x)) == []


def mobile_former(h: Hybrid, blocks: int, local: bool = True) -> str:
    """Two streams: a map with convolutions and tokens with attention, both ways a block."""
    x = h.conv_unit(h.g.op("Relu", h.conv(h.image(), 3)), "x0") if local else h.image()
    z = h.weight(1, 3, 4)
    for i in range(1, blocks + 1):
        z = h.g.op("Add", z, h.attend(z, h.tokens(x), f"in{i}"))
        z = h.block(z, f"z{i}")
        y = h.conv_unit(x, f"y{i}") if local else x
        x = h.g.op("Add", y, h.map(h.attend(h.tokens(y), z, f"out{i}")), out=f"x{i}")
    return x


def test_each_cross_attention_of_a_two_way_block_is_a_bridge() -> None:
    h = Hybrid()
    found = ends(h, mobile_former(h, 3))
    assert [(d, entry) for d, entry, _ in found] == [
        ("in", "x0"),
        ("out", "z1"),
        ("in", "x1"),
        ("out", "z2"),
        ("in", "x2"),
        ("out", "z3"),
    ]


def test_cross_attention_between_streams_of_tokens_is_none() -> None:
    h = Hybrid()
    assert ends(h, mobile_former(h, 2, local=False)) == []


def shuffled(proto: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The same graph in another topological order with other names, and old -> new names."""
    rng = np.random.default_rng(seed)
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    graph = other.graph
    made = {o for n in graph.node for o in n.output}
    waiting, order = list(graph.node), []
    done: set[str] = set()
    while waiting:
        ready = [n for n in waiting if all(i in done or i not in made for i in n.input)]
        node = ready[rng.integers(len(ready))]
        waiting.remove(node)
        done.update(node.output)
        order.append(node)
    values = sorted(made | {v.name for v in (*graph.input, *graph.initializer)})
    new = {v: f"v{i}" for v, i in zip(values, rng.permutation(len(values)), strict=True)}
    for index, node in enumerate(order):
        new[node.name], node.name = f"n{index}", f"n{index}"
        node.input[:] = [new[i] if i else "" for i in node.input]
        node.output[:] = [new[o] if o else "" for o in node.output]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    del graph.node[:]
    graph.node.extend(kept)
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        named.name = new[named.name]
    return other, new


def as_set(found: tuple[Bridge, ...], new: dict[str, str]) -> set[object]:
    return {
        (
            b.direction,
            new[b.entry],
            new[b.exit],
            frozenset(new[n] for n in b.nodes),
            new[b.attention],
        )
        for b in found
    }


@functools.cache
def canonical(kind: str) -> onnx.ModelProto:
    if kind == "fixture":
        model = load(FIXTURES / "fashion_hybrid_dynamo.onnx").model
    else:
        h = Hybrid()
        wide = efficientformerv2(h, 3, True) if kind == "one" else mobile_former(h, 2)
        model = h.g.model(wide)
    canonicalize(model)
    return ir.serde.serialize_model(model)


@pytest.mark.parametrize("kind", ["fixture", "one", "two-way"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_names_and_order_do_not_matter(kind: str, seed: int) -> None:
    other, new = shuffled(canonical(kind), seed)
    wanted = bridges(ir.serde.deserialize_model(canonical(kind)))
    found = bridges(ir.serde.deserialize_model(other))
    assert len(wanted) > 1
    same = {name: name for name in new.values()}
    assert as_set(found, same) == as_set(wanted, new)


def test_the_exporter_does_not_matter() -> None:
    """Node by node: both exporters give the same operators in the same regions."""
    seen = []
    for exporter in ("ts", "dynamo"):
        model = load(FIXTURES / f"fashion_hybrid_{exporter}.onnx").model
        canonicalize(model)
        place = {str(n.name): i for i, n in enumerate(model.graph)}
        ops = {str(n.name): n.op_type for n in model.graph}
        seen.append(
            [(b.direction, [(place[n], ops[n]) for n in b.nodes]) for b in bridges(model)]
        )
    assert seen[0] == seen[1]
    assert next(ops for _, ops in seen[0])[0][1] == "Conv"


def found_in(path: Path) -> list[str]:
    shapes = {"x": (1, 3, 48, 320)} if "ppocr" in path.name else {}
    model = load(path, shapes).model
    canonicalize(model)
    return [b.direction for b in bridges(model)]


@pytest.mark.parametrize("exporter", ["ts", "dynamo"])
def test_fixtures(exporter: str) -> None:
    assert found_in(FIXTURES / f"fashion_hybrid_{exporter}.onnx") == ["in", "out"]
    assert found_in(FIXTURES / f"fashion_vit_{exporter}.onnx") == []


GOLDEN = {
    "ppocrv4_rec": ["in", "out"],
    "ppocrv6_rec_small": ["in", "out"],
    "deit_tiny_patch16_224_ts": [],
    "deit_tiny_patch16_224_dynamo": [],
    "mobilevit_xxs_ts": ["in", "out"] * 3,
    "mobilevit_xxs_dynamo": ["in", "out"] * 3,
    # Behind the last attention there is one point convolution and the head.
    "mobilevitv2_050_ts": ["in", "out", "in", "out", "in"],
    "efficientformer_l1_ts": ["in"],
    "efficientformerv2_s0_ts": ["in", "in"],
    # With random weights LeViT is not exported: the trained one stands for it.
    "levit_128s_fashion": ["in"],
    "mobilevit_xxs_fashion": ["in", "out"] * 3,
    "deit_tiny_patch16_224_fashion": [],
    "coatnet_nano_rw_224_ts": ["in"],
    # Each stage starts with one convolution: it merges patches.
    "pvt_v2_b0_ts": [],
}


@pytest.mark.long
@pytest.mark.parametrize("name", GOLDEN)
def test_real_models(name: str) -> None:
    path = CACHE / f"{name}.onnx"
    if name.endswith("_fashion"):
        path = CACHE.parent / "trained" / path.name
    if not path.exists():
        pytest.skip(f"needs {path}: make models")
    assert found_in(path) == GOLDEN[name]
