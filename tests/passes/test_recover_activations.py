from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.recover_activations import RecoverActivations
from tests.passes.harness import (
    U,
    apply,
    build,
    check_same,
    difference,
    f32,
    operators,
    reasons,
)

SIGNATURE = "float[3,40] x => float[3,40] y"
CONSTANTS = {
    "zero": f32(0.0),
    "half": f32(0.5),
    "one": f32(1.0),
    "three": np.asarray([3.0], np.float32),
    "six": f32(6.0),
    "sixth": f32(1.0 / 6.0),
    "fifth": f32(0.2),
    "slope": f32(1.702),
}
# Inputs stay below 10 and gates below 1: five roundings of values up to 60 (x * clip before
# the division by 6), divided by 6 at the end.
LIMIT = 5 * U * 60.0

HARD_SIGMOID = [
    "a = Add(x, three)\n g = Clip(a, zero, six)\n y = Div(g, six)",
    "a = Add(three, x)\n g = Clip(a, zero, six)\n y = Mul(g, sixth)",
    "a = Mul(x, sixth)\n b = Add(a, half)\n y = Clip(b, zero, one)",
    "a = Div(x, six)\n b = Add(half, a)\n y = Clip(b, zero, one)",
]
HARD_SWISH = [
    "a = Add(x, three)\n g = Clip(a, zero, six)\n p = Mul(x, g)\n y = Div(p, six)",
    "a = Add(x, three)\n g = Clip(a, zero, six)\n p = Mul(g, x)\n y = Mul(sixth, p)",
    "a = Add(x, three)\n g = Clip(a, zero, six)\n p = Div(g, six)\n y = Mul(x, p)",
    "a = Add(x, three)\n g = Clip(a, zero, six)\n h = Mul(x, sixth)\n y = Mul(h, g)",
    "g = HardSigmoid<alpha=0.16666667, beta=0.5>(x)\n y = Mul(x, g)",
    "a = Mul(x, sixth)\n b = Add(a, half)\n g = Clip(b, zero, one)\n y = Mul(g, x)",
]
REST = [
    ("g = Sigmoid(x)\n y = Mul(x, g)", "Silu"),
    ("g = Sigmoid(x)\n y = Mul(g, x)", "Silu"),
    ("a = Mul(x, one)\n g = Sigmoid(a)\n y = Mul(x, g)", "Silu"),
    ("s = Softplus(x)\n t = Tanh(s)\n y = Mul(x, t)", "Mish"),
    ("e = Exp(x)\n s = Add(e, one)\n l = Log(s)\n t = Tanh(l)\n y = Mul(t, x)", "Mish"),
    ("e = Exp(x)\n s = Add(one, e)\n y = Log(s)", "Softplus"),
]


@pytest.mark.parametrize("body", HARD_SIGMOID)
def test_hard_sigmoid(body: str) -> None:
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverActivations(), model, LIMIT)
    assert operators(model) == {"HardSigmoid": 1}


@pytest.mark.parametrize("body", HARD_SWISH)
def test_hard_swish(body: str) -> None:
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverActivations(), model, LIMIT)
    assert operators(model) == {"HardSwish": 1}


@pytest.mark.parametrize(("body", "op_type"), REST)
def test_smooth_activations(body: str, op_type: str) -> None:
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverActivations(), model, LIMIT)
    assert operators(model) == {op_type: 1}


def test_keras_hard_sigmoid_keeps_its_slope() -> None:
    body = "a = Mul(x, fifth)\n b = Add(a, half)\n y = Clip(b, zero, one)"
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverActivations(), model, LIMIT)
    [node] = model.graph
    assert node.attributes.get_float("alpha", 0.0) == pytest.approx(0.2, rel=1e-7)


def test_silu_is_a_function_with_a_standard_body() -> None:
    model = build(SIGNATURE, REST[0][0], CONSTANTS)
    apply(RecoverActivations(), model)
    [node] = model.graph
    assert node.domain == DOMAIN
    assert model.opset_imports[DOMAIN] == 1
    assert [n.op_type for n in model.functions[DOMAIN, "Silu", ""]] == ["Sigmoid", "Mul"]
    ensure_function(model, "Silu")
    assert len(model.functions) == 1


def test_silu_for_both_readers_of_one_input() -> None:
    body = "g = Sigmoid(x)\n p = Mul(x, g)\n h = Sigmoid(x)\n q = Mul(x, h)\n y = Add(p, q)"
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverActivations(), model, 2 * LIMIT)
    assert operators(model) == {"Silu": 2, "Add": 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Mul(x, slope)\n g = Sigmoid(a)\n y = Mul(x, g)", "quick-GELU"),
        ("g = HardSigmoid<alpha=0.2, beta=0.5>(x)\n y = Mul(x, g)", "slope 1/6"),
        ("a = Add(x, half)\n g = Clip(a, zero, six)\n y = Div(g, six)", "a hard sigmoid has"),
        ("a = Add(x, three)\n y = Clip(a, zero, six)", "is not divided by 6"),
        ("a = Mul(x, half)\n b = Add(a, half)\n y = Clip(b, zero, one)", "not a known"),
    ],
)
def test_near_misses_are_refused(body: str, reason: str) -> None:
    model = build(SIGNATURE, body, CONSTANTS)
    outcome = apply(RecoverActivations(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_gate_read_elsewhere_is_refused() -> None:
    body = "g = Sigmoid(x)\n p = Mul(x, one)\n y = Mul(x, g)\n z = Neg(g)"
    model = build("float[3,40] x => float[3,40] y, float[3,40] z", body, CONSTANTS)
    assert not apply(RecoverActivations(), model).modified


def test_gate_of_another_tensor_is_no_activation() -> None:
    body = "g = Sigmoid(s)\n y = Mul(x, g)"
    model = build("float[3,40] x, float[3,40] s => float[3,40] y", body, CONSTANTS)
    outcome = apply(RecoverActivations(), model)
    assert not outcome.modified
    assert not outcome.refusals


def test_older_opset_is_a_precondition() -> None:
    model = build(SIGNATURE, REST[0][0], CONSTANTS)
    model.opset_imports[""] = 17
    with pytest.raises(ir.passes.PreconditionError, match="opset 18"):
        RecoverActivations()(model)


def test_the_oracle_tells_swishes_apart() -> None:
    hard = build(SIGNATURE, "y = HardSwish(x)")
    soft = build(SIGNATURE, "g = Sigmoid(x)\n y = Mul(x, g)")
    keras = build(SIGNATURE, "g = HardSigmoid<alpha=0.2, beta=0.5>(x)\n y = Mul(x, g)")
    assert difference(hard, soft) > 10 * LIMIT
    assert difference(hard, keras) > 10 * LIMIT
