from __future__ import annotations

import numpy as np
import pytest

from edgevit.digest import digest
from tests.passes.harness import Array, build, f32

SIGNATURE = "float[2,6] x => float[2,6] y"
BODY = "a = Mul(x, c)\n b = Softmax <axis = 1> (a)\n y = Add(a, b)"


def of(body: str = BODY, signature: str = SIGNATURE, c: Array | None = None) -> str:
    return digest(build(signature, body, {"c": f32(2.0) if c is None else c}))


def test_names_and_order_of_operands_do_not_count() -> None:
    renamed = "p = Mul(x, c)\n q = Softmax <axis = 1> (p)\n z = Add(q, p)"
    assert of(renamed, SIGNATURE.replace("y", "z")) == of()


@pytest.mark.parametrize(
    "mutant",
    [
        BODY.replace("axis = 1", "axis = 0"),
        BODY.replace("Add", "Mul"),
        BODY.replace("Mul(x, c)", "Mul(x, x)"),
        BODY.replace("Add(a, b)", "Sub(b, a)"),
        BODY.replace("Softmax <axis = 1> (a)", "Softmax <axis = 1> (x)"),
        BODY + "\n d = Neg(x)",
    ],
)
def test_everything_else_counts(mutant: str) -> None:
    assert of(mutant) != of()


def test_order_counts_where_it_matters() -> None:
    assert of(BODY.replace("Add(a, b)", "Sub(a, b)")) != of(
        BODY.replace("Add(a, b)", "Sub(b, a)")
    )


def test_numbers_count_unless_left_out() -> None:
    assert of(c=f32(2.0)) != of(c=f32(2.5))
    ones, twos = (build(SIGNATURE, BODY, {"c": np.full(6, n, np.float32)}) for n in (1, 2))
    assert digest(ones) != digest(twos)
    assert digest(ones, weights=False) == digest(twos, weights=False)
