"""Layers that give the answers may quantize what they read as they run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import (
    Edit,
    QuantizeActivation,
    QuantizeAsRun,
    QuantizeWeight,
    dump,
    parse,
)
from edgevit.errors import InternalError
from edgevit.loading import load
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.quantize import Quantize
from edgevit.passes.shiftadd import ShiftRound
from edgevit.passes.unpack_shifts import UnpackShifts
from edgevit.pipeline import Context
from edgevit.quantizers import mark_as_run, quantized_as_run, stored
from edgevit.target import QuantScheme, load_target
from tests.passes.test_channel_folds import context
from tests.support.graphs import GraphBuilder

SCHEME = QuantScheme(
    activations="int8", outputs=("Conv", "MatMul"), answers="as-run", source="a test"
)


def network(between: str = "Gelu", behind: tuple[str, ...] = ("Softmax",)) -> ir.Model:
    """``last(between(first(x)))`` with ``behind`` on the way out."""
    rng = np.random.default_rng(0)
    g = GraphBuilder()

    def linear(x: str, inputs: int, outputs: int, name: str) -> str:
        weight = g.const(rng.normal(0, 1, (inputs, outputs)), f"{name}.weight")
        bias = g.const(rng.normal(0, 1, outputs), f"{name}.bias")
        return g.op("Add", g.op("MatMul", x, weight, out=f"{name}.product"), bias, out=name)

    y = linear(g.input("x", (1, 6, 4)), 4, 8, "first")
    if between == "Reshape":
        y = g.op("Reshape", y, g.ints([2, 3, 8]))
    elif between == "Gather":
        y = g.op("Gather", y, g.ints([0]), axis=1)
    elif between != "none":
        y = g.op(between, y)
    y = linear(y, 8, 5, "last")
    for op in behind:
        if op == "Mul":
            y = g.op("Mul", y, g.const(2.0))
        elif op == "Transpose":
            y = g.op("Transpose", y, perm=[0, 2, 1])
        elif op == "hidden":
            return g.model(g.op("Softmax", y), g.op("Relu", y))
        elif op == "itself":
            return g.model(y, g.op("Softmax", y))
        else:
            y = g.op(op, y)
    return g.model(y)


def planned(model: ir.Model, scheme: QuantScheme = SCHEME, **options: Any) -> tuple[Edit, ...]:
    target = load_target("onnx")
    target = target.model_copy(update={"quantization": {"w8a8": scheme}, "layers": ()})
    data = context(model, np.random.default_rng(1)).samples
    return Quantize(**options).plan(model, Context(data, target, "w8a8"))


def as_run(edits: tuple[Edit, ...]) -> list[str]:
    return [e.value for e in edits if isinstance(e, QuantizeAsRun)]


def in_codes(edits: tuple[Edit, ...]) -> set[str]:
    return {e.value for e in edits if isinstance(e, QuantizeActivation)}


@pytest.mark.parametrize(
    "behind",
    [(), ("Softmax",), ("Transpose", "LogSoftmax"), ("Sigmoid",), ("ArgMax",), ("itself",)],
)
def test_the_layer_that_gives_the_answers_has_no_static_codes(behind: tuple[str, ...]) -> None:
    edits = planned(network(behind=behind))
    assert as_run(edits) == ["last.product"]
    assert in_codes(edits) == {"x", "first"}
    weights = {e.value for e in edits if isinstance(e, QuantizeWeight)}
    assert weights == {"first.weight", "last.weight"}


@pytest.mark.parametrize("behind", [("Mul",), ("hidden",), ("Softmax", "Mul")])
def test_other_layers_are_static(behind: tuple[str, ...]) -> None:
    """What is computed with has codes; a tie of scores matters where they are answers."""
    edits = planned(network(behind=behind))
    assert as_run(edits) == []
    assert "last" in in_codes(edits)


@pytest.mark.parametrize("between", ["none", "Reshape", "Gather"])
def test_codes_are_read_as_they_are(between: str) -> None:
    """The layer in front writes codes: they need no other ones."""
    edits = planned(network(between))
    assert as_run(edits) == []
    assert in_codes(edits) >= {"x", "first", "last"}


def test_what_is_dequantized_already_is_read_as_codes() -> None:
    model = network()
    first = planned(model, SCHEME.model_copy(update={"answers": ""}), weights=-1)
    apply(model, [e for e in first if getattr(e, "value", "") != "last"], "quantize")
    assert as_run(planned(model)) == []


@pytest.mark.parametrize(
    "change",
    [{"answers": ""}, {"activations": ""}, {"activations": "int16"}, {"activation_bits": 6}],
)
def test_only_where_the_scheme_has_such_kernels(change: dict[str, Any]) -> None:
    edits = planned(network(), SCHEME.model_copy(update=change))
    assert as_run(edits) == []
    assert ("last" in in_codes(edits)) == bool(SCHEME.model_copy(update=change).activations)


def test_convolutions_and_stacked_weights_have_no_such_kernel() -> None:
    rng = np.random.default_rng(0)
    g = GraphBuilder()
    weight = g.const(rng.normal(0, 1, (3, 4, 1, 1)))
    conv = g.model(g.op("Conv", g.input("x", (1, 4, 5, 5)), weight, kernel_shape=[1, 1]))
    g = GraphBuilder()
    stacked = g.const(rng.normal(0, 1, (2, 4, 3)))
    products = g.model(g.op("MatMul", g.input("x", (2, 5, 4)), stacked))
    assert as_run(planned(conv)) == as_run(planned(products)) == []


def test_excluded_layers_stay_float() -> None:
    edits = planned(network(), exclude="last.product")
    assert as_run(edits) == []
    assert in_codes(edits) == {"x", "first"}


def test_the_plan_is_kept_and_marks_the_layer() -> None:
    model = network()
    edits = planned(model)
    content = dump([("quantize", edits)])
    ((_, read),) = parse(_npz(content))
    assert as_run(read) == as_run(edits)
    outcome = apply(model, read, "quantize")
    marked = [str(n.outputs[0].name) for n in model.graph if quantized_as_run(n)]
    assert marked == ["last.product"]
    (change,) = (c for c in outcome.changes if c.node == "last.product")
    assert change.detail.startswith("reads int8 rows")
    # Verification takes a copy, and a file.
    again = ir.from_proto(ir.to_proto(model.clone()))
    assert [n.name for n in again.graph if quantized_as_run(n)] == [
        n.name for n in model.graph if quantized_as_run(n)
    ]


def _npz(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_what_no_layer_makes_cannot_be_marked() -> None:
    with pytest.raises(InternalError, match="nothing makes it"):
        apply(network(), [QuantizeAsRun("x")], "quantize")


def test_a_marked_layer_is_not_planned_again() -> None:
    model = network()
    assert as_run(planned(model, weights=-1))
    apply(model, planned(model, weights=-1), "quantize")
    assert as_run(planned(model)) == []
    assert "last" not in in_codes(planned(model))


def test_shifts_take_the_mark_over() -> None:
    """``shiftadd`` and ``unpack-shifts`` put other nodes in the layer's place."""
    model = network()
    apply(model, planned(model, weights=-1), "quantize")
    data = context(model, np.random.default_rng(1)).samples
    given = Context(data, load_target("linux-x86"), "w8a8")
    shift = ShiftRound(terms="1")
    shift.perform(model, shift.plan(model, given))
    assert {n.op_type for n in model.graph if quantized_as_run(n)} == {"ShiftLinear"}
    UnpackShifts().call(model)
    (marked,) = (n for n in model.graph if quantized_as_run(n))
    assert marked.op_type == "MatMul"
    assert stored(marked.inputs[1]) is not None


def test_a_file_cannot_ask(tmp_path: Path) -> None:
    model = network()
    for node in model.graph:
        mark_as_run(node)
    ir.save(model, tmp_path / "model.onnx")
    read = load(tmp_path / "model.onnx", {}).model
    assert not any(quantized_as_run(n) for n in read.graph)
