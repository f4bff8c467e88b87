"""Partitions are convex, in order, and together compute what the whole graph computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.backend import Backend
from edgevit.errors import UnsupportedModelError
from edgevit.partition import Coverage, Partition, check, coverage, partition
from edgevit.target import load_target
from tests.support.graphs import GraphBuilder, feeds_for, run_reference

TARGET = load_target("linux-x86")
PHONE = load_target("iphone-npu")
UNARY, BINARY = ("Relu", "Neg", "Sigmoid"), ("Add", "Mul", "Sub")


@dataclass(frozen=True)
class Picky:
    """A backend that refuses the values it is told to."""

    refused: frozenset[str]

    def unsupported(self, node: ir.Node, target: Any, precision: str) -> str | None:
        name = str(node.outputs[0].name)
        return f"{name} is not to its taste" if name in self.refused else None


def _coverage(model: ir.Model, *refused: str, target: Any = TARGET) -> Coverage:
    return coverage(model, cast(Backend, Picky(frozenset(refused))), target, "fp32")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[ir.Model, list[str]]:
    """A random graph of elementwise nodes, none dead, and the values that are refused."""
    g = GraphBuilder()
    values = [g.input("x", (2, 3)), g.input("z", (2, 3))]
    made: list[str] = []
    unused: list[str] = []
    for i in range(draw(st.integers(1, 12))):
        picks = draw(st.lists(st.sampled_from(values[-5:]), min_size=2, max_size=2))
        if draw(st.booleans()):
            used = picks[:1]
            out = g.op(draw(st.sampled_from(UNARY)), *used, out=f"v{i}")
        else:
            used = [picks[0], g.const([0.5, -2, 1.5]) if draw(st.booleans()) else picks[1]]
            out = g.op(draw(st.sampled_from(BINARY)), *used, out=f"v{i}")
        values.append(out)
        made.append(out)
        unused = [v for v in unused if v not in used] + [out]
    kept = draw(st.lists(st.sampled_from(made), max_size=2, unique=True))
    model = g.model(*dict.fromkeys([*kept, *unused]))
    refused = draw(st.lists(st.sampled_from(made), unique=True))
    return model, refused


def _made(part: Partition) -> list[str]:
    return [str(node.outputs[0].name) for node in part.model.graph]


def _is_ordered(model: ir.Model, parts: Sequence[Sequence[str]]) -> bool:
    """Whether each part needs only graph inputs, itself and earlier parts.

    With each node in one part, this is convexity too: a path that left a part and came back
    would make a later part feed an earlier one.
    """
    place = {name: i for i, names in enumerate(parts) for name in names}
    return all(
        place.get(str(value.name), 0) <= place[str(node.outputs[0].name)]
        for node in model.graph
        for value in node.inputs
        if value is not None
    )


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_parts_are_convex_in_order_and_complete(drawn: tuple[ir.Model, list[str]]) -> None:
    model, refused = drawn
    parts = partition(model, "litert", _coverage(model, *refused))
    names = [_made(part) for part in parts]
    everything = sorted(str(node.outputs[0].name) for node in model.graph)
    assert sorted(name for part in names for name in part) == everything
    assert _is_ordered(model, names)
    for part, made in zip(parts, names, strict=True):
        expected = "onnx" if set(made) & set(refused) else "litert"
        assert part.backend == expected
        assert (set(made) <= set(refused)) if expected == "onnx" else True


def test_the_order_check_rejects_parts_by_backend_alone() -> None:
    """A mutant: one part a backend, though the graph alternates."""
    g = GraphBuilder()
    a = g.op("Relu", g.input("x", (2,)), out="a")
    b = g.op("Neg", a, out="b")
    model = g.model(g.op("Add", a, b, out="c"))
    assert not _is_ordered(model, [["a", "c"], ["b"]])
    assert not _is_ordered(model, [["b"], ["a", "c"]])
    parts = partition(model, "litert", _coverage(model, "b"))
    assert [(p.backend, _made(p)) for p in parts] == [
        ("litert", ["a"]),
        ("onnx", ["b"]),
        ("litert", ["c"]),
    ]


def _run_in_order(parts: Sequence[Partition], feeds: dict[str, Any]) -> dict[str, Any]:
    known = dict(feeds)
    for part in parts:
        needed = {str(v.name): known[str(v.name)] for v in part.model.graph.inputs}
        known |= run_reference(part.model, needed)
    return known


@settings(deadline=None, max_examples=25)
@given(graphs())
def test_parts_together_compute_what_the_whole_does(
    drawn: tuple[ir.Model, list[str]],
) -> None:
    model, refused = drawn
    feeds = feeds_for(model)
    parts = partition(model, "litert", _coverage(model, *refused))
    found = _run_in_order(parts, feeds)
    for name, expected in run_reference(model, feeds).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_the_comparison_of_parts_rejects_a_changed_constant() -> None:
    g = GraphBuilder()
    a = g.op("Mul", g.input("x", (2, 3)), g.const([2.0], name="two"), out="a")
    model = g.model(g.op("Neg", a, out="y"))
    feeds = feeds_for(model)
    parts = partition(model, "litert", _coverage(model, "y"))
    initializers = parts[0].model.graph.initializers
    initializers["two"].const_value = ir.tensor(np.array([2.0002], np.float32), name="two")
    found = _run_in_order(parts, feeds)
    assert not np.array_equal(found["y"], run_reference(model, feeds)["y"])


def _long_chain(count: int) -> ir.Model:
    g = GraphBuilder()
    value = g.input("x", (2,))
    for i in range(count):
        value = g.op("Relu", value, out=f"n{i}")
    return g.model(value)


def test_a_full_cover_is_one_part_with_the_model_itself() -> None:
    model = _long_chain(3)
    found = _coverage(model)
    assert found.share == 1.0
    check(found, TARGET, allow_fallback=False)
    (part,) = partition(model, "litert", found)
    assert part.model is model
    assert Coverage(0, 0, ()).share == 1.0


def test_the_gate_lists_what_is_left_over_and_why() -> None:
    model = _long_chain(25)
    found = _coverage(model, "n3", "n5")
    assert (found.nodes, found.on_target, found.share) == (25, 23, 23 / 25)
    with pytest.raises(UnsupportedModelError) as caught:
        check(found, TARGET, allow_fallback=False)
    error = caught.value
    assert error.exit_code == 1
    assert "2 of 25 nodes cannot run on linux-x86" in error.message
    assert "Relu 'n3': n3 is not to its taste" in error.message
    assert "Relu 'n5'" in error.message
    assert "'n4'" not in error.message
    assert "--allow-fallback" in error.hint
    check(found, TARGET, allow_fallback=True)


def test_a_long_list_is_cut_and_counted() -> None:
    model = _long_chain(25)
    with pytest.raises(UnsupportedModelError) as caught:
        check(_coverage(model, *(f"n{i}" for i in range(25))), TARGET, allow_fallback=False)
    assert "... and 5 more" in caught.value.message
    assert "'n19'" in caught.value.message
    assert "'n20'" not in caught.value.message


def test_the_phone_has_no_fallback() -> None:
    model = _long_chain(2)
    with pytest.raises(UnsupportedModelError) as caught:
        check(_coverage(model, "n1", target=PHONE), PHONE, allow_fallback=True)
    assert "iphone-npu has no fallback engine" in caught.value.hint
    assert "--allow-fallback" not in caught.value.hint


def test_the_device_file_refuses_too() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, 1, 1, 1, 1, 2))
    model = g.model(g.op("Neg", g.op("Relu", x, out="a"), out="b"))
    (first, _) = _coverage(model, target=PHONE).fallback
    assert first.reason == "rank 6 of 'x' exceeds 5"
    excluding = TARGET.model_copy(update={"exclude_ops": ("Neg",)})
    (only,) = _coverage(model, target=excluding).fallback
    assert only.node == "b"
    assert only.reason == "the device file of linux-x86 excludes Neg"


def _sized_by_data() -> ir.Model:
    """``Relu(Tile(x, n))`` with ``n`` a model input."""
    g = GraphBuilder()
    x, n = g.input("x", (2, 4)), g.input("n", (2,), np.int64)
    return g.model(g.op("Relu", g.op("Tile", x, n, out="t"), out="y"))


@pytest.mark.parametrize("fallback", [False, True])
def test_a_shape_that_depends_on_data_is_refused_before_the_backend_is_asked(
    fallback: bool,
) -> None:
    found = _coverage(_sized_by_data())
    assert [f.reason for f in found.fallback] == [
        "the shape of 't' depends on data",
        "the shape of 'y' depends on data",
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        check(found, TARGET, allow_fallback=fallback)
    assert "Tile 't': the shape of 't' depends on data" in caught.value.message
    assert "--allow-fallback" not in caught.value.hint


def test_a_missing_identity_is_explained_by_the_output_it_makes() -> None:
    g = GraphBuilder()
    g.input("x", (2,))
    model = g.model(g.op("Identity", g.const([1.0, 2.0]), out="y"), g.op("Relu", "x", out="z"))
    (first,) = _coverage(model, "y").fallback
    assert first.reason.startswith("the output is a constant or an input of the model")


def test_dropout_that_an_input_may_switch_on_is_refused_everywhere() -> None:
    g = GraphBuilder()
    x, training = g.input("x", (2, 4)), g.input("t", (), np.bool_)
    model = g.model(g.op("Dropout", x, g.const(0.3), training, out="y"))
    (found,) = _coverage(model).fallback
    assert found.nowhere
    assert found.reason.startswith("its result is random")
