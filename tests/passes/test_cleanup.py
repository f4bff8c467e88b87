"""remove-dead and merge-duplicates, and what holds for every registered pass."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit import registry
from edgevit.passes.merge_duplicates import MergeDuplicates
from edgevit.passes.normalize_attributes import NormalizeAttributes
from edgevit.passes.order import CANONICAL
from edgevit.passes.remove_dead import RemoveDead
from tests.passes.cases import load
from tests.passes.harness import apply, build, check_same, f32, i64, only, operators

V = "float[2,6] x => float[2,6] y"


def test_dead_nodes_outputs_and_initializers_go() -> None:
    body = "n, m, v = LayerNormalization(x, g, b)\n d = Mul(n, g)\n e = Neg(d)\n y = Tanh(n)"
    constants = {"g": np.ones(6, np.float32), "b": np.zeros(6, np.float32), "u": f32(1.0)}
    model = build(V, body, constants)
    check_same(RemoveDead(), model, 0.0)
    assert operators(model) == {"LayerNormalization": 1, "Tanh": 1}
    assert len(only(model, "LayerNormalization").outputs) == 1
    assert set(model.graph.initializers) == {"g", "b"}


def test_an_output_that_is_read_stays() -> None:
    signature = "float[2,6] x => float[2,6] y, float[2,1] v"
    model = build(
        signature, "y, m, v = LayerNormalization(x, g)", {"g": np.ones(6, np.float32)}
    )
    assert not apply(RemoveDead(), model).modified


def test_unused_inputs_keep_their_place() -> None:
    model = build("float[2] a, float[2] x => float[2] y", "y = Neg(x)")
    assert not apply(RemoveDead(), model).modified
    assert [v.name for v in model.graph.inputs] == ["a", "x"]


def test_equal_constants_and_the_nodes_that_read_them_merge() -> None:
    body = "a = Mul(x, c)\n b = Mul(x, d)\n y = Sub(a, b)\n z = Add(a, b)"
    signature = "float[2,6] x => float[2,6] y, float[2,6] z"
    model = build(signature, body.replace("Sub", "Max"), {"c": f32(3.0), "d": f32(3.0)})
    check_same(MergeDuplicates(), model, 0.0)
    assert operators(model) == {"Mul": 1, "Max": 1, "Add": 1}
    assert set(model.graph.initializers) == {"c"}


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("a = Mul(x, c)\n b = Mul(x, d)\n y = Add(a, b)", {"c": f32(3.0), "d": f32(3.5)}),
        ("a = Mul(x, c)\n b = Pow(x, d)\n y = Add(a, b)", {"c": f32(3.0), "d": i64(3)}),
        (
            "a = LeakyRelu <alpha = 0.1> (x)\n b = LeakyRelu <alpha = 0.2> (x)\ny = Add(a, b)",
            {},
        ),
        ("a = RandomNormalLike(x)\n b = RandomNormalLike(x)\n y = Add(a, b)", {}),
    ],
)
def test_different_things_stay_apart(body: str, constants: dict[str, object]) -> None:
    model = build(V, body, constants)  # type: ignore[arg-type]
    assert not apply(MergeDuplicates(), model).modified


def test_two_outputs_keep_their_own_nodes() -> None:
    model = build("float[2] x => float[2] y, float[2] z", "y = Neg(x)\n z = Neg(x)")
    assert not apply(MergeDuplicates(), model).modified


def test_an_output_gives_its_name_to_the_node_that_is_kept() -> None:
    body = "a = Neg(x)\n y = Neg(x)\n z = Tanh(a)"
    model = build("float[2] x => float[2] y, float[2] z", body)
    check_same(MergeDuplicates(), model, 0.0)
    assert [v.name for v in model.graph.outputs] == ["y", "z"]


def test_defaults_are_written_out_and_axes_counted_from_the_front() -> None:
    model = build(V, "a = Softmax(x)\n b = LeakyRelu(a)\n y = Gelu(b)")
    check_same(NormalizeAttributes(), model, 0.0)
    assert only(model, "Softmax").attributes.get_int("axis") == 1
    assert only(model, "LeakyRelu").attributes.get_float("alpha") == pytest.approx(0.01)
    assert only(model, "Gelu").attributes.get_string("approximate") == "none"


def test_every_canonical_pass_is_registered_under_its_own_name() -> None:
    for spec in CANONICAL:
        cls = registry.load("passes", spec)
        assert cls.name == spec
        assert str(cls()) == spec


@pytest.mark.parametrize("spec", sorted(set(CANONICAL)))
def test_a_canonical_graph_is_left_alone_to_the_byte(spec: str) -> None:
    body = "a = MatMul(x, w)\n b = Add(a, c)\n d = Tanh(b)\n y = Transpose <perm = [1,0]> (d)"
    w = np.arange(30, dtype=np.float32).reshape(6, 5)
    constants = {"w": w, "c": np.ones(5, np.float32)}
    model = build("float[2,6] x => float[5,2] y", body, constants)
    before = ir.to_proto(model).SerializeToString()
    outcome = apply(load(spec), model)
    assert not outcome.modified
    assert ir.to_proto(model).SerializeToString() == before
