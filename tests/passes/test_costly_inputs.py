"""Inputs that the network bears worst in codes stay float, within a share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle import TensorInfo
from edgevit.calibration import DataSource, NpzSource
from edgevit.cost import node_cost
from edgevit.edits import Edit, KeepFloat, QuantizeActivation, Remark
from edgevit.errors import UsageError
from edgevit.passes.costly_inputs import costly, keep_costly
from edgevit.passes.quantizable import quantizable
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context
from edgevit.target import QuantScheme, load_target
from tests.support.graphs import GraphBuilder

SHAPE = (1, 4, 8)  # rows, channels


def network(gain: float, side: bool = False) -> ir.Model:
    """Two linear layers; the second reads one channel that is ``gain`` times the others.

    With ``side`` something that is no layer reads it too.
    """
    rng = np.random.default_rng(3)
    first = rng.normal(0, 1, (8, 8)).astype(np.float32)
    second = rng.normal(0, 1, (8, 6)).astype(np.float32)
    spread = np.array([gain, *[1] * 7], "f4")
    g = GraphBuilder()
    made = g.op("MatMul", g.input("x", SHAPE), g.const(first, "first"), out="made")
    spoilt = g.op("Mul", made, g.const(spread, "spread"), out="spoilt")
    weight = g.const((second / spread[:, None]).astype("f4"), "second")
    outputs = [g.op("MatMul", spoilt, weight, out="y")]
    outputs += [g.op("Relu", spoilt, out="side")] if side else []
    return g.model(*outputs)


def source(folder: Path, count: int = 64) -> DataSource:
    x = np.random.default_rng(4).normal(0, 1, (count, *SHAPE)).astype(np.float32)
    np.savez(folder / "calibration.npz", x=x)
    return NpzSource(
        folder / "calibration.npz", (TensorInfo(name="x", dtype="float32", shape=SHAPE),)
    )


def planned(data: DataSource, gain: float, **options: Any) -> tuple[Edit, ...]:
    scheme = QuantScheme(activations="int8", scheme="symmetric", source="a test")
    target = load_target("onnx")
    target = target.model_copy(update={"quantization": {"w8a8": scheme}, "layers": ()})
    return Quantize(**options).plan(network(gain), Context(data, target, "w8a8"))


def in_codes(edits: tuple[Edit, ...]) -> set[str]:
    return {e.value for e in edits if isinstance(e, QuantizeActivation)}


# Beside a channel 1,000 times as large the others are zero in int8.
@pytest.mark.parametrize(
    ("gain", "widen", "expected"),
    [
        (1000.0, 0.0, {"x", "spoilt"}),
        (1000.0, 0.5, {"x"}),
        (1000.0, 0.3, {"x", "spoilt"}),  # the layer has 6/14 of all multiplications
        (1.0, 1.0, {"x", "spoilt"}),
    ],
)
def test_the_worst_input_stays_float(
    tmp_path: Path, gain: float, widen: float, expected: set[str]
) -> None:
    edits = planned(source(tmp_path), gain, widen=widen)
    assert in_codes(edits) == expected
    kept = [e.node for e in edits if isinstance(e, KeepFloat)]
    assert kept == [name for name in ("x", "spoilt") if name not in expected]


def test_what_was_gained_is_said(tmp_path: Path) -> None:
    edits = planned(source(tmp_path), 1000.0, widen=0.5)
    (said,) = (e.text for e in edits if isinstance(e, Remark) and "costly" in e.text)
    before, after = (float(part.split()[0]) for part in said.split("nats: ")[1].split(", "))
    assert said.startswith("costly inputs: 1 of 2 stay float; divergence on 8 samples")
    assert after < before / 100


def test_too_few_samples_are_said_and_nothing_changes(tmp_path: Path) -> None:
    data = source(tmp_path, 8)
    edits = planned(data, 1000.0, widen=0.5)
    assert in_codes(edits) == in_codes(planned(data, 1000.0))
    assert any(isinstance(e, Remark) and "too few samples" in e.text for e in edits)


@pytest.mark.parametrize("widen", [-0.1, 1.5])
def test_a_share_is_between_nothing_and_all(tmp_path: Path, widen: float) -> None:
    with pytest.raises(UsageError, match="widen expects 0 to 1"):
        planned(source(tmp_path), 1.0, widen=widen)


def test_the_most_for_its_multiplications_comes_first() -> None:
    alone = {"dear": 3.0, "cheap": 2.0, "least": 0.1, "trifle": 0.04}
    macs = {"dear": 100, "cheap": 10, "least": 10, "trifle": 20}
    assert costly(alone, macs, 200) == ("cheap", "dear", "least")  # .04 nats are left
    assert costly(alone, macs, 110) == ("cheap", "dear")
    assert costly(alone, macs, 109) == ("cheap", "least", "trifle")
    assert costly(alone, macs, 9) == ()


@given(
    st.dictionaries(
        st.text("abc", min_size=1),
        st.tuples(st.floats(0, 10), st.integers(0, 1000)),
        max_size=8,
    ),
    st.integers(0, 3000),
)
def test_the_budget_holds(inputs: dict[str, tuple[float, int]], budget: int) -> None:
    macs = {name: m for name, (_, m) in inputs.items()}
    chosen = costly({name: a for name, (a, _) in inputs.items()}, macs, budget)
    assert len(set(chosen)) == len(chosen)
    assert sum(macs[name] for name in chosen) <= budget


def test_errors_that_cancel_are_left_to_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(model: ir.Model, plans: dict[str, Any], samples: DataSource) -> dict[str, float]:
        return {name: 2.0 if name == "rest" else 1.0 for name in plans}

    monkeypatch.setattr("edgevit.passes.costly_inputs.divergences", found)
    edits = planned(source(tmp_path), 1000.0, widen=0.6, observer="mse")
    assert in_codes(edits) == {"x", "spoilt"}
    assert any(isinstance(e, Remark) and "no better, all in codes" in e.text for e in edits)
    monkeypatch.undo()
    assert in_codes(planned(source(tmp_path), 1000.0, widen=0.6, observer="mse")) == {"x"}


def test_what_has_no_multiplications_is_not_free() -> None:
    assert costly({"unknown": 3.0, "known": 2.0}, {"unknown": 0, "known": 5}, 0) == ()
    assert costly({"unknown": 3.0, "known": 2.0}, {"unknown": 0, "known": 5}, 5) == ("known",)


def layered(kind: str) -> ir.Model:
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return g.const(rng.normal(0, 1, shape).astype(np.float32), "w")

    g = GraphBuilder()
    if kind == "linear":
        return g.model(g.op("MatMul", g.input("x", (2, 3, 4)), weight(4, 5), out="y"))
    if kind == "stacked":
        return g.model(g.op("MatMul", g.input("x", (2, 3, 4)), weight(2, 4, 5), out="y"))
    x = g.input("x", (1, 4, 6, 6))
    if kind == "transposed":
        return g.model(g.op("ConvTranspose", x, weight(4, 3, 2, 2), strides=[2, 2], out="y"))
    if kind == "grouped":
        return g.model(g.op("Conv", x, weight(8, 2, 3, 3), group=2, out="y"))
    return g.model(g.op("Conv", x, weight(5, 4, 3, 3), strides=[2, 2], out="y"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", 2 * 3 * 5 * 4),
        ("stacked", 2 * 3 * 5 * 4),
        ("transposed", 4 * 6 * 6 * 3 * 2 * 2),
        ("grouped", 8 * 4 * 4 * 2 * 3 * 3),
        ("conv", 5 * 2 * 2 * 4 * 3 * 3),
    ],
)
def test_every_kind_of_layer_has_its_multiplications(kind: str, expected: int) -> None:
    (layer,) = quantizable(layered(kind))
    assert node_cost(layer.node).macs == expected


def test_queries_keep_their_codes_when_a_layer_gives_its_up(tmp_path: Path) -> None:
    """One value, two quantizers: that of the layer goes, that of another reader stays."""
    model, data = network(1000.0, side=True), source(tmp_path, 8)
    target = load_target("onnx")
    scheme = QuantScheme(activations="int8", scheme="symmetric", source="a test")
    target = target.model_copy(update={"quantization": {"w8a8": scheme}, "layers": ()})
    plan = Quantize(observer="mse").plan(model, Context(data, target, "w8a8"))
    (mine,) = (e for e in plan if isinstance(e, QuantizeActivation) and e.value == "spoilt")
    other = dataclasses.replace(mine, consumers=("side",))
    found = keep_costly(model, (*plan, other), 0.5, data)
    assert any(e is other for e in found)
    assert not any(e is mine for e in found)
