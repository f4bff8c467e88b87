from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.recover_group_norm import RecoverGroupNorm
from tests.passes.harness import (
    U,
    apply,
    build,
    check_same,
    difference,
    i64,
    only,
    operators,
    reasons,
)

RNG = np.random.default_rng(11)
SIGNATURE = "float[2,6,4,5] x => float[2,6,4,5] y"
CONSTANTS = {
    "grouped": i64(0, 3, -1),
    "back": i64(2, 6, 4, 5),
    "s": RNG.normal(size=3).astype(np.float32),
    "t": RNG.normal(size=3).astype(np.float32),
    "w": RNG.normal(size=(6, 1, 1)).astype(np.float32),
    "b": RNG.normal(size=(6, 1, 1)).astype(np.float32),
    "p": RNG.normal(size=(4, 1)).astype(np.float32),
}
INNER = (
    "g = Reshape(x, grouped)\n n = InstanceNormalization<epsilon=0.001>(g, s, t)\n"
    "r = Reshape(n, back)\n"
)
# Sums of 40 terms for mean and variance, ten roundings, results below 16.
LIMIT = (2 * np.sqrt(40) + 10) * U * 16


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        ("a = Mul(r, w)\n y = Add(a, b)", {}),
        ("y = Mul(w, r)", {}),
        ("y = Add(r, b)", {}),
        ("y = Mul(r, p)", {"Mul": 1}),
    ],
)
def test_groups(tail: str, left: dict[str, int]) -> None:
    model = build(SIGNATURE, INNER + tail, CONSTANTS)
    check_same(RecoverGroupNorm(), model, LIMIT)
    assert operators(model) == {"GroupNormalization": 1, **left}
    node = only(model, "GroupNormalization")
    assert node.attributes.get_int("num_groups", 0) == 3
    assert node.attributes.get_float("epsilon", 0.0) == pytest.approx(0.001)


def test_input_of_another_shape_is_reshaped() -> None:
    model = build("float[2,6,2,2,5] x => float[2,6,4,5] y", INNER + "y = Mul(r, w)", CONSTANTS)
    check_same(RecoverGroupNorm(), model, LIMIT)
    assert operators(model) == {"Reshape": 1, "GroupNormalization": 1}


@pytest.mark.parametrize(
    ("signature", "body", "constants", "reason"),
    [
        (SIGNATURE, INNER + "y = Mul(r, w)", {"grouped": i64(3, 4, -1)}, "does not group"),
        (
            "float[2,6,4,5] x, float[3] z => float[2,6,4,5] y",
            INNER.replace("(g, s, t)", "(g, z, t)") + "y = Mul(r, w)",
            {},
            "not both constant",
        ),
        (
            "float[2,6,4,5] x => float[2,6,4,5] y, float[2,3,40] z",
            INNER + "z = Neg(n)\n y = Mul(r, w)",
            {},
            "not reshaped back",
        ),
    ],
)
def test_refusals(
    signature: str, body: str, constants: dict[str, np.ndarray], reason: str
) -> None:
    groups = constants.get("grouped", i64(0, 3, 0))[1]
    sizes = {n: RNG.normal(size=groups).astype(np.float32) for n in "st"}
    model = build(signature, body, {**CONSTANTS, **sizes, **constants})
    outcome = apply(RecoverGroupNorm(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_the_oracle_sees_a_wrong_group_count() -> None:
    weights = {"w": np.ones(6, np.float32), "b": np.zeros(6, np.float32)}
    three = build(SIGNATURE, "y = GroupNormalization<num_groups=3>(x, w, b)", weights)
    two = build(SIGNATURE, "y = GroupNormalization<num_groups=2>(x, w, b)", weights)
    assert difference(three, two) > 10 * LIMIT
