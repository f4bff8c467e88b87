"""The quantize pass: its plan, the graph it makes, what it refuses, what it computes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.bundle import TensorInfo
from edgevit.calibration import DataSource, NpzSource
from edgevit.edits import (
    Edit,
    KeepFloat,
    QuantizeActivation,
    QuantizeWeight,
    ReplaceConstant,
    dump,
    parse,
)
from edgevit.errors import ArtifactError, InternalError, UsageError
from edgevit.model import constant
from edgevit.optimize import optimize, plans
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context, Pipeline
from edgevit.quantization import QParams, fake
from edgevit.target import LayerRule, QuantScheme, load_target
from tests.support.graphs import GraphBuilder, run_reference

Array = np.ndarray[Any, Any]
SHAPE = (2, 6)


def network() -> ir.Model:
    """Two linear layers that share an input, a ReLU behind one, a residual sum."""
    rng = np.random.default_rng(0)
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    w1 = g.const(rng.normal(0, 1, (6, 6)), "w1")
    w2 = g.const(rng.normal(0, 1, (6, 6)), "w2")
    b = g.const(rng.normal(0, 1, 6), "b")
    h = g.op("Relu", g.op("Add", g.op("MatMul", x, w1, out="m1"), b, out="a1"), out="r1")
    y = g.op("Add", h, g.op("MatMul", x, w2, out="m2"), out="y")
    return g.model(y)


def samples(folder: Path, array: Array) -> DataSource:
    path = folder / "calibration.npz"
    np.savez(path, x=array)
    return NpzSource(path, (TensorInfo(name="x", dtype="float32", shape=SHAPE),))


def context(data: DataSource | None, **scheme: Any) -> Context:
    given: dict[str, Any] = {"activations": "uint8", "source": "a test", **scheme}
    target = load_target("onnx").model_copy(
        update={"quantization": {"w8a8": QuantScheme(**given)}}
    )
    return Context(data, target, "w8a8")


@pytest.fixture
def data(tmp_path: Path) -> DataSource:
    rng = np.random.default_rng(1)
    return samples(tmp_path, rng.normal(0, 1, (8, *SHAPE)).astype(np.float32))


def _array(value: ir.Value) -> Array:
    array = constant(value)
    assert array is not None
    return array


def of_kind(edits: tuple[Edit, ...], kind: type[Any]) -> list[Any]:
    return [e for e in edits if isinstance(e, kind)]


def test_the_plan_shares_one_quantizer_among_layers_of_one_input(data: DataSource) -> None:
    edits = Quantize().plan(network(), context(data))
    assert [e.value for e in of_kind(edits, QuantizeWeight)] == ["w1", "w2"]
    (activation,) = of_kind(edits, QuantizeActivation)
    assert (activation.value, activation.consumers) == ("x", ("m1", "m2"))


def test_output_quantizers_stand_behind_bias_and_clamp(data: DataSource) -> None:
    edits = Quantize().plan(network(), context(data, outputs=("MatMul",)))
    found = {e.value: e.consumers for e in of_kind(edits, QuantizeActivation)}
    assert found == {"x": ("m1", "m2"), "r1": (), "m2": ()}


def test_planning_changes_nothing_and_performing_adds_what_was_planned(
    data: DataSource,
) -> None:
    model = network()
    before = ir.to_proto(model).SerializeToString()
    pass_ = Quantize(observer="minmax", weight_observer="minmax")
    edits = pass_.plan(model, context(data))
    assert ir.to_proto(model).SerializeToString() == before
    outcome = pass_.perform(model, edits)
    assert len(outcome.changes) == len(edits) == 3
    assert [n.op_type for n in model.graph].count("DequantizeLinear") == 3
    assert [n.op_type for n in model.graph].count("QuantizeLinear") == 1
    assert "w1" not in model.graph.initializers
    assert not pass_.plan(model, context(data)), "quantized layers are left alone"


def test_the_graph_computes_the_quantized_function(data: DataSource) -> None:
    model = network()
    pass_ = Quantize()
    edits = pass_.plan(model, context(data))
    weights = {n: _array(v) for n, v in model.graph.initializers.items()}
    pass_.perform(model, edits)
    x = np.random.default_rng(2).normal(0, 1, SHAPE).astype(np.float32)
    params = {e.value: e.params for e in edits if not isinstance(e, KeepFloat)}  # type: ignore[union-attr]

    def expected(given: dict[str, QParams]) -> Array:
        q = {n: fake(a, given[n]) for n, a in {**weights, "x": x}.items() if n in given}
        made = np.maximum(q["x"] @ q["w1"] + weights["b"], 0) + q["x"] @ q["w2"]
        return np.asarray(made)

    (found,) = run_reference(model, {"x": x}).values()
    # Sums of 6 products of magnitude below 10, in another order: 6 * 10 * 2^-24 * 8.
    np.testing.assert_allclose(found, expected(params), atol=3e-5, rtol=0)
    mutant = {**params, "w1": params["w1"].scaled(1.01)}
    assert np.abs(found - expected(mutant)).max() > 1e-3


def test_narrow_activations_are_clipped_in_the_graph(data: DataSource) -> None:
    model = network()
    pass_ = Quantize(activations=4, weights=4, observer="minmax")
    edits = pass_.plan(model, context(data))
    pass_.perform(model, edits)
    (activation,) = of_kind(edits, QuantizeActivation)
    assert activation.params.high - activation.params.low == 15
    x = np.full(SHAPE, 100.0, np.float32)
    clip = next(n for n in model.graph if n.op_type == "Clip")
    assert float(constant(clip.inputs[2]).item()) == pytest.approx(activation.params.clip[1])  # type: ignore[union-attr]
    high = np.full(SHAPE, activation.params.clip[1], np.float32)
    for one, other in zip(
        run_reference(model, {"x": x}).values(),
        run_reference(model, {"x": high}).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_what_stays_float_says_why(tmp_path: Path) -> None:
    zeros = samples(tmp_path, np.zeros((3, *SHAPE), np.float32))
    edits = Quantize(exclude="m2").plan(network(), context(zeros))
    kept = {e.node: e.reason for e in of_kind(edits, KeepFloat)}
    assert "excluded by 'm2'" in kept["m2"]
    assert "zero on every calibration sample" in kept["x"]
    none = Quantize(operators="Conv").plan(network(), context(zeros))
    assert {e.node for e in of_kind(none, KeepFloat)} == {"m1", "m2"}


def test_weight_only_needs_no_samples() -> None:
    edits = Quantize().plan(network(), context(None, activations=""))
    assert len(of_kind(edits, QuantizeWeight)) == len(edits) == 2


def test_without_samples_the_hint_names_the_option() -> None:
    with pytest.raises(UsageError) as e:
        Quantize().plan(network(), context(None))
    assert "--calib" in str(e.value.hint)


@pytest.mark.parametrize(("rules", "weights"), [(True, 0), (False, 2)])
def test_the_rules_of_the_device_hold_unless_they_are_left_out(
    data: DataSource, rules: bool, weights: int
) -> None:
    given = context(data)
    assert given.target is not None
    rule = LayerRule(name="all", run="float", source="a test")
    given = replace(given, target=given.target.model_copy(update={"layers": (rule,)}))
    edits = Quantize(rules=rules).plan(network(), given)
    assert sum(isinstance(e, QuantizeWeight) for e in edits) == weights
    kept = [e.reason for e in edits if isinstance(e, KeepFloat)]
    assert len(kept) == 2 - weights
    assert all("all (a test)" in reason for reason in kept)


def test_a_precision_without_a_scheme_is_an_error(data: DataSource) -> None:
    given = Context(data, load_target("onnx"), "w3a3")
    with pytest.raises(UsageError, match="w3a3"):
        Quantize().plan(network(), given)


@pytest.mark.parametrize("option", ["observer", "weight_observer", "weight_axis", "scheme"])
def test_unknown_options_are_errors(option: str, data: DataSource) -> None:
    with pytest.raises(UsageError, match="is 'x'"):
        Quantize(**{option: "x"}).plan(network(), context(data))  # type: ignore[arg-type]


def test_per_tensor_and_block_wise_weights(data: DataSource) -> None:
    per_tensor = Quantize(weight_axis="tensor").plan(network(), context(data))
    assert all(e.params.scale.shape == () for e in of_kind(per_tensor, QuantizeWeight))
    blocks = Quantize().plan(network(), context(data, weights="int4", block=3, activations=""))
    assert all(e.params.scale.shape == (2, 6) for e in of_kind(blocks, QuantizeWeight))
    model = network()
    before = run_reference(model, {"x": np.ones(SHAPE, np.float32)})
    Quantize().perform(model, blocks)
    after = run_reference(model, {"x": np.ones(SHAPE, np.float32)})
    # 6 weights of magnitude below 3, off by at most half a step of a seventh each, twice.
    assert np.abs(after["y"] - before["y"]).max() < 2 * 6 * 3 / 14


def test_no_scale_of_a_weight_is_smaller_than_the_artifact_holds(data: DataSource) -> None:
    free, held = (
        {e.value: e.params for e in of_kind(plan, QuantizeWeight)}
        for plan in (
            Quantize().plan(network(), context(data, least_scale=least))
            for least in (0.0, 0.015)
        )
    )
    assert any((p.scale < 0.015).any() for p in free.values())
    for name, params in held.items():
        np.testing.assert_array_equal(
            params.scale, np.maximum(free[name].scale, np.float32(0.015))
        )
        weight = _array(network().graph.initializers[name])
        # Wider codes never clip what narrower ones held: half a step is all that is lost.
        lost = np.abs(fake(weight, params) - weight)
        clipped = np.abs(fake(weight, free[name]) - weight)
        assert (lost <= np.maximum(params.scale / 2 * (1 + 1e-6), clipped)).all()


def test_a_graph_output_keeps_its_name(data: DataSource) -> None:
    model = network()
    params = QParams(np.array(0.1, np.float32), np.array(0, np.int32), "int8", -127, 127)
    apply(model, [QuantizeActivation("y", params)], "test")
    assert [v.name for v in model.graph.outputs] == ["y"]
    (found,) = run_reference(model, {"x": np.ones(SHAPE, np.float32)}).values()
    np.testing.assert_allclose(found / np.float32(0.1), np.rint(found / 0.1), atol=1e-4)


def test_constants_are_replaced_and_strange_plans_refused() -> None:
    model = network()
    apply(model, [ReplaceConstant("b", np.zeros(6, np.float32))], "test")
    add = next(n for n in model.graph if n.outputs[0].name == "a1")
    assert not np.any(constant(add.inputs[1]))
    with pytest.raises(InternalError, match="nowhere"):
        apply(model, [QuantizeActivation("nowhere", _plain())], "test")
    with pytest.raises(InternalError, match="not constant"):
        apply(model, [QuantizeWeight("x", _plain())], "test")


def _plain() -> QParams:
    return QParams(np.array(1, np.float32), np.array(0, np.int32), "int8", -127, 127)


def test_plans_are_written_and_read(data: DataSource) -> None:
    edits = Quantize().plan(network(), context(data))
    codes = QuantizeWeight("w1", _plain(), codes=np.ones((6, 6), np.int32))
    content = io.BytesIO()
    np.savez(content, **dump([("quantize", (*edits, codes))]))  # type: ignore[arg-type]
    ((spec, found),) = parse(content.getvalue())
    assert spec == "quantize"
    one, two = network(), network()
    apply(one, edits, "t")
    apply(two, found[:-1], "t")
    assert ir.to_proto(one).SerializeToString() == ir.to_proto(two).SerializeToString()
    assert isinstance(found[-1], QuantizeWeight)
    np.testing.assert_array_equal(found[-1].codes, codes.codes)
    with pytest.raises(ArtifactError):
        parse(b"no npz")
    with pytest.raises(ArtifactError, match="edits cannot be read"):
        parse(b"PK\x03\x04")


def test_a_sealed_plan_is_performed_without_data(data: DataSource) -> None:
    one, two = network(), network()
    chosen = Pipeline((Quantize(),))
    made = optimize(one, chosen, context(data))
    assert made.exact is not None
    assert [n.op_type for n in made.exact.graph] == [n.op_type for n in two.graph]
    reloaded = Context(None, None, "w8a8", 0, plans(made.records))
    optimize(two, chosen, reloaded)
    assert ir.to_proto(one).SerializeToString() == ir.to_proto(two).SerializeToString()
    with pytest.raises(ArtifactError, match="no edits"):
        optimize(network(), Pipeline((Quantize(weights=4),)), reloaded)
