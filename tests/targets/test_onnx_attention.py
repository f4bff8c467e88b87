"""Attention in pieces, for engines that fuse those: the same function, plain ones only."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.attention import is_plain, take_apart
from edgevit.backend import LowerOptions
from edgevit.rewrite import Builder
from edgevit.target import load_target
from edgevit.targets.onnx.lower import OnnxBackend
from tests.support.graphs import GraphBuilder, feeds_for, run_reference

Array = np.ndarray[Any, Any]
SHAPES = ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4))
# Scores sum 8 products of numbers up to 4, scaled by .3: off by 8 roundings of 40; weights
# follow them, and 7 of them weigh values up to 4.
LIMIT = 2.0**-24 * (8 * 40 * 2 + 7) * 4


def _network(mask: Array | None = None, boolean: bool = False, **other: Any) -> ir.Model:
    g = GraphBuilder()
    inputs = [g.input(name, shape) for name, shape in zip("qkv", SHAPES, strict=True)]
    inputs += [] if mask is None else [g.const(mask)]
    if boolean:
        inputs[3] = g.op("Cast", inputs[3], to=int(ir.DataType.BOOL))
    attributes = {"scale": 0.3, **other}
    g.op("Attention", *inputs, out="y", **attributes)
    return g.model("y")


def _by_hand(feeds: dict[str, Array], scale: float, mask: Array | float) -> Array:
    q, k, v = (feeds[name].astype(np.float64) for name in "qkv")
    weights = np.exp(scale * np.einsum("bhsd,bhtd->bhst", q, k) + mask)
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray(np.einsum("bhst,bhte->bhse", weights, v))


MASK = np.where(np.arange(7) < 4, np.float32(0.5), np.float32(-np.inf))[None, None, None]


@pytest.mark.parametrize(
    ("target", "precision"),
    [("linux-x86:engine=openvino", "fp32"), ("onnx", "w8a8"), ("onnx", "w8a8-dyn")],
)
@pytest.mark.parametrize("mask", [None, MASK], ids=["open", "masked"])
def test_pieces_compute_the_same(mask: Array | None, target: str, precision: str) -> None:
    """OpenVINO reads them always, ONNX Runtime where layers around are integers."""
    model = _network(mask)
    options = LowerOptions(precision, "source", "m")
    lowered = OnnxBackend().lower(model, load_target(target), options)
    written = ir.from_proto(_proto(lowered.files["m.onnx"]))
    kinds = Counter(node.op_type for node in written.graph)
    extra = {} if mask is None else {"Add": 1}
    assert kinds == Counter({"MatMul": 2, "Transpose": 1, "Mul": 1, "Softmax": 1, **extra})
    feeds = feeds_for(model)
    found = run_reference(written, feeds)["y"]
    expected = _by_hand(feeds, 0.3, 0.0 if mask is None else mask.astype(np.float64))
    assert np.abs(found - expected).max() <= LIMIT
    wrong = _by_hand(feeds, 0.31, 0.0 if mask is None else mask.astype(np.float64))
    assert np.abs(found - wrong).max() > LIMIT
    assert [n.op_type for n in model.graph] == ["Attention"]  # the caller's stays


def test_onnx_runtime_keeps_the_operator_of_a_float_graph() -> None:
    model = _network()
    target = load_target("onnx")
    lowered = OnnxBackend().lower(model, target, LowerOptions("fp32", "source", "m"))
    written = ir.from_proto(_proto(lowered.files["m.onnx"]))
    assert [n.op_type for n in written.graph] == ["Attention"]


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo(np.float32).min)])
def test_onnx_runtime_keeps_what_may_leave_a_row_no_key(low: float) -> None:
    """The operator gives zeros for such a row; a softmax of pieces does not."""
    mask = np.where(np.arange(5)[:, None] < 2, np.float32(low), np.float32(0))
    model = _network(np.broadcast_to(mask, (1, 1, 5, 7)).astype(np.float32))
    options = LowerOptions("w8a8", "source", "m")
    lowered = OnnxBackend().lower(model, load_target("onnx"), options)
    written = ir.from_proto(_proto(lowered.files["m.onnx"]))
    assert "Attention" in [n.op_type for n in written.graph]


def test_only_the_canonical_form_is_taken_apart() -> None:
    boolean = _network(np.ones((1, 1, 1, 7)), boolean=True)
    others = [_network(is_causal=1), _network(softcap=2.0), boolean]
    bare = _network()
    next(iter(bare.graph)).attributes.pop("scale")
    for model in (*others, bare):
        assert not any(is_plain(node) for node in model.graph)
    assert is_plain(next(iter(_network().graph)))


def test_grouped_heads_stay() -> None:
    g = GraphBuilder()
    q, k, v = (g.input(n, (1, heads, 5, 4)) for n, heads in zip("qkv", (4, 2, 2), strict=True))
    g.op("Attention", q, k, v, out="y", scale=0.5)
    assert not is_plain(next(iter(g.model("y").graph)))


def test_the_weights_are_what_is_given_back() -> None:
    model = _network()
    node = next(iter(model.graph))
    weights = take_apart(model.graph, node, Builder("test", model.graph, "y"))
    model.graph.outputs.append(weights)
    found = run_reference(model, feeds_for(model))[str(weights.name)]
    assert np.abs(found.sum(-1) - 1).max() <= 8 * 2.0**-24


def _proto(content: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(content)
