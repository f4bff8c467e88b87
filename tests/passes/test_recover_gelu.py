from __future__ import annotations

import math

import numpy as np
import pytest

from edgevit.passes.recover_gelu import RecoverGelu
from tests.passes.harness import (
    U,
    apply,
    build,
    check_same,
    difference,
    f32,
    only,
    operators,
    reasons,
)

SIGNATURE = "float[3,40] x => float[3,40] y"
CONSTANTS = {
    "half": f32(0.5),
    "half1": np.asarray([0.5], np.float32),
    "one": f32(1.0),
    "two": f32(2.0),
    "three": f32(3.0),
    "root2": f32(math.sqrt(2.0)),
    "inv_root2": f32(math.sqrt(0.5)),
    "c": f32(0.044715),
    "k": f32(math.sqrt(2.0 / math.pi)),
}
# Inputs stay below 10. Both sides round about ten times between x and the result, each
# rounding moves the gate, of slope below 1, by at most u |argument| and the result by u |y|.
LIMIT = 40 * U * 10.0

ERF = [
    "a = Div(x, root2)\n e = Erf(a)\n s = Add(e, one)\n p = Mul(x, s)\n y = Mul(p, half)",
    "a = Mul(x, inv_root2)\n e = Erf(a)\n s = Add(one, e)\n p = Mul(half, s)\n y = Mul(x, p)",
    "h = Mul(x, half1)\n a = Div(x, root2)\n e = Erf(a)\n s = Add(e, one)\n y = Mul(h, s)",
    "h = Div(x, two)\n a = Mul(inv_root2, x)\n e = Erf(a)\n s = Add(e, one)\n y = Mul(s, h)",
    "a = Div(x, root2)\n e = Erf(a)\n s = Add(e, one)\n p = Mul(s, x)\n y = Div(p, two)",
    "a = Div(x, root2)\n e = Erf(a)\n h = Mul(e, half)\n s = Add(h, half)\n y = Mul(x, s)",
]
CUBES = [
    "q = Pow(x, three)\n r = Mul(q, c)\n t = Add(x, r)\n a = Mul(t, k)",
    "x2 = Mul(x, x)\n x3 = Mul(x2, x)\n r = Mul(c, x3)\n t = Add(r, x)\n a = Mul(k, t)",
    "x2 = Mul(x, x)\n x3 = Mul(x, x2)\n r = Mul(x3, c)\n t = Add(x, r)\n a = Mul(t, k)",
    "x2 = Pow(x, two)\n r = Mul(x2, c)\n t = Add(r, one)\n xk = Mul(x, k)\n a = Mul(xk, t)",
    "x2 = Mul(x, x)\n r = Mul(x2, c)\n t = Add(one, r)\n xt = Mul(x, t)\n a = Mul(xt, k)",
    "xc = Mul(x, c)\n x2 = Mul(x, x)\n r = Mul(xc, x2)\n t = Add(x, r)\n a = Mul(t, k)",
]
GATES = [
    "e = Tanh(a)\n s = Add(e, one)\n p = Mul(x, s)\n y = Mul(p, half)",
    "e = Tanh(a)\n s = Add(one, e)\n h = Mul(x, half)\n y = Mul(h, s)",
    "e = Tanh(a)\n s = Add(e, one)\n h = Mul(s, half)\n y = Mul(x, h)",
]


@pytest.mark.parametrize("body", ERF)
def test_erf_forms(body: str) -> None:
    model = build(SIGNATURE, body, CONSTANTS)
    check_same(RecoverGelu(), model, LIMIT)
    assert operators(model) == {"Gelu": 1}
    assert only(model, "Gelu").attributes.get_string("approximate") == "none"


@pytest.mark.parametrize("cube", CUBES)
@pytest.mark.parametrize("gate", GATES)
def test_tanh_forms(cube: str, gate: str) -> None:
    model = build(SIGNATURE, f"{cube}\n {gate}", CONSTANTS)
    check_same(RecoverGelu(), model, LIMIT)
    assert operators(model) == {"Gelu": 1}
    assert only(model, "Gelu").attributes.get_string("approximate") == "tanh"


def test_gelu_inside_a_gated_product() -> None:
    body = ERF[0].replace("y = Mul(p, half)", "g = Mul(p, half)\n y = Mul(g, z)")
    model = build("float[3,40] x, float[3,40] z => float[3,40] y", body, CONSTANTS)
    check_same(RecoverGelu(), model, LIMIT * 10)  # z stays below 10
    assert operators(model) == {"Gelu": 1, "Mul": 1}


def test_output_keeps_its_name_and_the_rule_its_mark() -> None:
    model = build(SIGNATURE, ERF[0], CONSTANTS)
    outcome = apply(RecoverGelu(), model)
    node = only(model, "Gelu")
    assert node.outputs[0].name == "y"
    assert node.metadata_props["edgevit.rule"] == "erf-gelu"
    assert [(c.rule, c.node) for c in outcome.changes] == [("erf-gelu", "y")]


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("root2", 1.4142, "erf's argument is scaled by"),
        ("half", 0.51, "not multiplied by"),
        ("k", 0.8, "tanh's argument is scaled by"),
        ("c", 0.0447, "the cubic term has factor"),
    ],
)
def test_other_constants_are_refused(name: str, number: float, reason: str) -> None:
    body = ERF[0] if name in ("root2", "half") else f"{CUBES[0]}\n {GATES[0]}"
    model = build(SIGNATURE, body, {**CONSTANTS, name: f32(number)})
    outcome = apply(RecoverGelu(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_intermediate_in_use_is_refused() -> None:
    model = build("float[3,40] x => float[3,40] y, float[3,40] s", ERF[0], CONSTANTS)
    outcome = apply(RecoverGelu(), model)
    assert not outcome.modified
    assert "'s' is not multiplied" in reasons(outcome) or "output of the graph" in reasons(
        outcome
    )


def test_intermediate_read_elsewhere_is_refused() -> None:
    body = ERF[0] + "\n z = Neg(a)"
    model = build("float[3,40] x => float[3,40] y, float[3,40] z", body, CONSTANTS)
    outcome = apply(RecoverGelu(), model)
    assert not outcome.modified
    assert reasons(outcome)


def test_quick_gelu_stays() -> None:
    body = "a = Mul(x, q)\n s = Sigmoid(a)\n y = Mul(x, s)"
    model = build(SIGNATURE, body, {"q": f32(1.702)})
    assert not apply(RecoverGelu(), model).modified


def test_the_oracle_tells_the_two_forms_apart() -> None:
    erf = build(SIGNATURE, 'y = Gelu<approximate="none">(x)')
    tanh = build(SIGNATURE, 'y = Gelu<approximate="tanh">(x)')
    assert difference(erf, tanh) > 10 * LIMIT
