"""Queries and keys in codes: which, of what kind, and when not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.bundle import TensorInfo
from edgevit.calibration import DataSource, NpzSource
from edgevit.edits import QuantizeActivation
from edgevit.errors import UsageError
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context
from edgevit.target import load_target
from tests.support.graphs import GraphBuilder

SHAPE = (1, 2, 5, 4)
VNNI = "linux-x86:engine=openvino,cpu=vnni"


def network(shared: bool = False, **attention: Any) -> ir.Model:
    """Queries, keys (with a long tail upwards) and values of one input."""
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    q = g.op("Neg", x, out="q")
    k = g.op("Exp", x, out="k")
    v = k if shared else g.op("Abs", x, out="v")
    return g.model(g.op("Attention", q, k, v, out="y", scale=0.5, **attention))


@pytest.fixture
def data(tmp_path: Path) -> DataSource:
    path = tmp_path / "calibration.npz"
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.normal(0, 1, (8, *SHAPE)).astype(np.float32))
    return NpzSource(path, (TensorInfo(name="x", dtype="float32", shape=SHAPE),))


def _planned(
    data: DataSource, model: ir.Model, target: str = VNNI, **options: Any
) -> dict[str, QuantizeActivation]:
    context = Context(data, load_target(target), "w8a8")
    edits = Quantize(**{"observer": "minmax", **options}).plan(model, context)
    return {e.value: e for e in edits if isinstance(e, QuantizeActivation)}


def test_queries_and_keys_get_signed_symmetric_codes(data: DataSource) -> None:
    found = _planned(data, network())
    assert set(found) == {"q", "k"}
    for edit in found.values():
        assert (edit.params.dtype, int(edit.params.zero_point)) == ("int8", 0)
        assert edit.consumers == ("y",)
    largest = max(float(np.exp(sample["x"]).max()) for sample in data)
    assert float(found["k"].params.scale) == pytest.approx(largest / 127, rel=1e-6)


def test_the_whole_range_is_kept_unless_an_observer_is_named(data: DataSource) -> None:
    whole = _planned(data, network(), observer="minmax")["k"].params
    assert _planned(data, network(), observer="auto")["k"].params.same(whole)
    clipped = _planned(data, network(), observer="percentile", percentile=95.0)["k"].params
    assert not clipped.same(whole)


def test_performing_leaves_the_values_float(data: DataSource) -> None:
    model = network()
    chosen = Quantize(observer="minmax")
    context = Context(data, load_target(VNNI), "w8a8")
    chosen.perform(model, chosen.plan(model, context))
    (node,) = (n for n in model.graph if n.op_type == "Attention")
    makers = [v.producer().op_type for v in node.inputs if v is not None]  # type: ignore[union-attr]
    assert makers == ["DequantizeLinear", "DequantizeLinear", "Abs"]
    again = chosen.plan(model, context)  # quantized already
    assert not [e for e in again if isinstance(e, QuantizeActivation)]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("onnx:cpu=vnni", {}),
        ("linux-x86:engine=openvino", {}),  # unsigned by signed is what saturates without VNNI
        (VNNI, {"attention": "float"}),
        (VNNI, {"activations": -1}),
        (VNNI, {"exclude": "y"}),
    ],
)
def test_what_stays_float(data: DataSource, target: str, options: dict[str, Any]) -> None:
    assert not _planned(data, network(), target, **options)


def test_an_option_asks_for_codes_on_other_targets(data: DataSource) -> None:
    assert set(_planned(data, network(), "onnx", attention="int8")) == {"q", "k"}


@pytest.mark.parametrize("model", [network(shared=True), network(softcap=1.0)])
def test_keys_that_are_the_values_and_other_forms_stay(
    data: DataSource, model: ir.Model
) -> None:
    assert not _planned(data, model)


def test_learned_queries_stay(data: DataSource) -> None:
    """A constant: nothing is calibrated that no sample changes."""
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    q = g.const(np.random.default_rng(2).normal(size=(1, 2, 3, 4)).astype(np.float32))
    k, v = g.op("Exp", x), g.op("Abs", x)
    assert not _planned(data, g.model(g.op("Attention", q, k, v, out="y", scale=0.5)))


def test_self_similarity_is_quantized_once(data: DataSource) -> None:
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    k, v = g.op("Exp", x, out="k"), g.op("Abs", x)
    model = g.model(g.op("Attention", k, k, v, out="y", scale=0.5))
    context = Context(data, load_target(VNNI), "w8a8")
    chosen = Quantize(observer="minmax")
    chosen.perform(model, chosen.plan(model, context))
    kinds = [n.op_type for n in model.graph]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    assert model.graph[-1].inputs[0] is model.graph[-1].inputs[1]


def test_unknown_codes_are_refused(data: DataSource) -> None:
    with pytest.raises(UsageError, match="attention"):
        _planned(data, network(), attention="int4")
