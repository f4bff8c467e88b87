"""Passes that say six axes and more with fewer: results are equal bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.passes.narrow_transpose import narrowed
from tests.passes.cases import Case, Refusal, rng_array
from tests.passes.harness import f32, i64

WINDOWS = "float[1,2,3,2,3,5] x => float[1,2,2,3,3,5] y"

CASES = [
    Case("windows", "narrow-transpose", WINDOWS,
         "y = Transpose <perm = [0,1,3,2,4,5]> (x)", "Reshape Transpose Reshape"),
    Case("unfold", "narrow-transpose", "float[1,4,2,3,2,3] x => float[1,4,2,2,3,3] y",
         "y = Transpose <perm = [0,1,4,2,5,3]> (x)", "Reshape Transpose Reshape"),
    Case("two-steps", "narrow-transpose",
         "float[2,2,2,2,2,2] x => float[2,2,2,2,2,2] y",
         "y = Transpose <perm = [0,2,1,4,3,5]> (x)",
         "Reshape Transpose Reshape Transpose Reshape"),
    Case("pooled", "narrow-reduce", "float[1,2,3,4,3,5] x => float[1,2,3,1,3,5] y",
         "y = ReduceMax <keepdims = 1> (x, a)", "Reshape ReduceMax Reshape", {"a": i64(3)}),
    Case("linear", "narrow-pointwise", "float[1,2,2,3,3,5] x => float[1,2,2,3,3,4] y",
         "y = MatMul(x, w)", "Reshape MatMul Reshape", {"w": rng_array(5, 4)},
         limit=5 * 2**-24 * 50),  # five products, in one order or another
    Case("bias", "narrow-pointwise", WINDOWS.replace("2,2,3,3", "2,3,2,3"),
         "y = Add(x, b)", "Reshape Add Reshape", {"b": rng_array(5)}),
    Case("residual", "narrow-pointwise", WINDOWS.replace("2,2,3,3", "2,3,2,3"),
         "a = Tanh(x)\n b = Sub(x, a)\n y = Neg(b)",
         "Reshape Tanh Reshape Reshape Reshape Sub Reshape Neg"),
    Case("softmax", "narrow-pointwise", WINDOWS.replace("2,2,3,3", "2,3,2,3"),
         "y = Softmax <axis = -1> (x)", "Reshape Softmax Reshape"),
]  # fmt: skip

REFUSALS = [
    Refusal("all-on-their-own", "narrow-transpose",
            "float[2,2,2,2,2,2,2,2] x => float[2,2,2,2,2,2,2,2] y",
            "y = Transpose <perm = [7,6,5,4,3,2,1,0]> (x)", "on their own"),
    Refusal("apart", "narrow-reduce", "float[1,2,3,4,3,5] x => float[1,1,3,1,3,5] y",
            "y = ReduceMax <keepdims = 1> (x, a)", "no neighbors", {"a": i64(1, 3)}),
    Refusal("five-axes", "narrow-transpose", "float[2,3,2,3,5] x => float[2,2,3,3,5] y",
            "y = Transpose <perm = [0,2,1,3,4]> (x)", ""),
    Refusal("other-axis", "narrow-pointwise", WINDOWS.replace("2,2,3,3", "2,3,2,3"),
            "y = Softmax <axis = 2> (x)", ""),
    Refusal("broadcast", "narrow-pointwise", WINDOWS.replace("2,2,3,3", "2,3,2,3"),
            "y = Mul(x, b)", "", {"b": rng_array(3, 5)}),
    Refusal("batched-weight", "narrow-pointwise",
            "float[1,2,3,2,3,5] x => float[1,2,3,2,3,4] y",
            "y = MatMul(x, w)", "", {"w": rng_array(2, 5, 4)}),
    Refusal("scalar-on-five", "narrow-pointwise", "float[1,2,3,2,5] x => float[1,2,3,2,5] y",
            "y = Mul(x, b)", "", {"b": f32(2.0)}),
    Refusal("sandwich-of-six", "merge-transpose",
            "float[1,1,3,4,1,6] x => float[1,1,3,6,1,4] y",
            "a = Reshape(x, s)\n b = Transpose <perm = [0,2,1]> (a)\n y = Reshape(b, t)",
            "", {"s": i64(3, 4, 6), "t": i64(1, 1, 3, 6, 1, 4)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_leaves_alone(case: Refusal) -> None:
    case.check()


@given(st.permutations(range(6)), st.lists(st.integers(1, 3), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_narrowed_moves_the_same_elements(perm: list[int], shape: list[int]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    small, moves = narrowed(tuple(shape), tuple(perm))
    found = x.reshape(small).transpose(moves)
    assert np.array_equal(found.reshape(-1), x.transpose(perm).reshape(-1))
    assert len(small) <= len(shape)


def test_narrowed_is_as_narrow_as_it_says() -> None:
    assert narrowed((1, 8, 7, 8, 7, 96), (0, 1, 3, 2, 4, 5)) == ((8, 7, 8, 672), (0, 2, 1, 3))
