"""Parallel layers of one tensor as one layer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.cases import Case, Refusal, rng_array
from tests.passes.harness import Array, i64

# 3x3 kernels over 4 channels of standard normals: sums of 36 products of size 2 x 1, whose
# absolute values sum to about 80; each of a few reassociated sums is off by 36 U of that.
LIMIT = 80 * 36 * 2**-24 * 4
IMAGE = "float[1,4,6,6] x => float[1,4,6,6] y"
THREE = "Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w3, b3)"
ONE = "Conv <kernel_shape = [1,1]> (x, w1, b1)"


def _weights(group: int = 1) -> dict[str, Array]:
    return {
        "w3": rng_array(4, 4 // group, 3, 3, seed=2),
        "b3": rng_array(4, seed=3),
        "w1": rng_array(4, 4 // group, 1, 1, seed=4),
        "b1": rng_array(4, seed=5),
        "a": rng_array(4, 1, 1, seed=6),
        "b": rng_array(4, 1, 1, seed=7),
    }


NORMAL = ("normalize-attributes", "normalize-conv")
HEADS = "float[1,5,8] x => float[1,2,5,4] y"
LINEAR = {
    **{f"w{n}": rng_array(8, 8, seed=i) for i, n in enumerate("qkv")},
    **{f"b{n}": rng_array(8, seed=i) for i, n in enumerate("qkv")},
    "s": i64(1, 5, 2, 4),
}


def _operand(name: str, bias: bool = True, source: str = "x") -> str:
    lines = [f"m{name} = MatMul({source}, w{name})"]
    flat = f"m{name}"
    if bias:
        lines.append(f"a{name} = Add(m{name}, b{name})")
        flat = f"a{name}"
    lines.append(f"r{name} = Reshape({flat}, s)")
    return "\n".join([*lines, f"{name} = Transpose <perm = [0,2,1,3]> (r{name})", ""])


ATTENTION = "y = Attention <scale = 0.1> (q, k, v)"
# Scores are sums of 8 and 4 products with |q||k| about 100; the probabilities follow their
# error, and the values are about 8.
ATTENTION_LIMIT = 8 * (2 * 0.1 * 400 * 16 * 2**-24)
QKV = "Attention " + "Reshape Transpose " * 3
CASES = [
    Case("kernels", "merge-branches", IMAGE, f"p = {THREE}\n q = {ONE}\n y = Add(p, q)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("small-first", "merge-branches", IMAGE, f"p = {THREE}\n q = {ONE}\n y = Add(q, p)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("identity", "merge-branches", IMAGE,
         f"p = {THREE}\n q = {ONE}\n s = Add(p, q)\n y = Add(x, s)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("batchnorm", "merge-branches", IMAGE,
         f"p = {THREE}\n m = Mul(x, a)\n n = Add(m, b)\n y = Add(p, n)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("difference", "merge-branches", IMAGE,
         f"p = {THREE}\n m = Mul(x, a)\n n = Add(m, b)\n y = Sub(n, p)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("depthwise", "merge-branches", IMAGE,
         "p = Conv <kernel_shape = [3,3], pads = [1,1,1,1], group = 4> (x, w3, b3)\n"
         "q = Conv <kernel_shape = [1,1], group = 4> (x, w1)\n"
         "s = Add(p, q)\n y = Add(s, x)",
         "Conv", _weights(4), LIMIT, NORMAL),
    Case("strides", "merge-branches", "float[1,4,6,6] x => float[1,4,3,3] y",
         "p = Conv <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x, w3, b3)\n"
         "q = Conv <kernel_shape = [1,1], strides = [2,2]> (x, w1, b1)\n y = Add(p, q)",
         "Conv", _weights(), LIMIT, NORMAL),
    Case("projections", "merge-projections", HEADS,
         _operand("q") + _operand("k") + _operand("v") + ATTENTION,
         "MatMul Add Split " + QKV, LINEAR, ATTENTION_LIMIT),
    Case("some-biases", "merge-projections", HEADS,
         _operand("q") + _operand("k", bias=False) + _operand("v") + ATTENTION,
         "MatMul Add Split " + QKV, LINEAR, ATTENTION_LIMIT),
    Case("keys-and-values", "merge-projections",
         "float[1,5,8] x, float[1,5,8] z => float[1,2,5,4] y",
         _operand("q", source="z") + _operand("k") + _operand("v") + ATTENTION,
         "MatMul Add MatMul Add Split " + QKV, LINEAR, ATTENTION_LIMIT),
]  # fmt: skip

REFUSALS = [
    Refusal("residual", "merge-branches", IMAGE, f"p = {THREE}\n y = Add(p, x)", "",
            _weights(), NORMAL),
    Refusal("off-center", "merge-branches", "float[1,4,6,6] x => float[1,4,3,3] y",
            "p = Conv <kernel_shape = [2,2], strides = [2,2]> (x, w2)\n"
            "q = Conv <kernel_shape = [1,1], strides = [2,2]> (x, w1)\n y = Add(p, q)",
            "not centered", {**_weights(), "w2": rng_array(4, 4, 2, 2)}, NORMAL),
    Refusal("groups", "merge-branches", IMAGE,
            "p = Conv <kernel_shape = [3,3], pads = [1,1,1,1], group = 4> (x, w3)\n"
            f"q = {ONE}\n y = Add(p, q)",
            "groups differ", {**_weights(), "w3": rng_array(4, 1, 3, 3)}, NORMAL),
    Refusal("dilated", "merge-branches", IMAGE,
            "p = Conv <kernel_shape = [3,3], pads = [2,2,2,2], dilations = [2,2]> (x, w3)\n"
            f"q = {ONE}\n y = Add(p, q)", "dilated", _weights(), NORMAL),
    Refusal("other-reader", "merge-branches",
            IMAGE + ", float[1,4,6,6] z",
            f"p = {THREE}\n q = {ONE}\n y = Add(p, q)\n z = Neg(p)",
            "other readers", _weights(), NORMAL),
    Refusal("other-source", "merge-branches",
            "float[1,4,6,6] x, float[1,4,6,6] z => float[1,4,6,6] y",
            f"p = {THREE}\n q = Conv <kernel_shape = [1,1]> (z, w1)\n y = Add(p, q)",
            "", _weights(), NORMAL),
    Refusal("stride-beside-identity", "merge-branches",
            "float[1,4,1,1] x => float[1,4,1,1] y",
            "p = Conv <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x, w3)\n"
            "q = Mul(x, a)\n y = Add(p, q)", "changes the shape", _weights(), NORMAL),
    Refusal("one-projection", "merge-projections",
            "float[1,5,8] x, float[1,2,5,4] k, float[1,2,5,4] v => float[1,2,5,4] y",
            _operand("q") + ATTENTION, "", LINEAR),
    Refusal("projection-with-readers", "merge-projections",
            HEADS + ", float[1,5,8] z",
            _operand("q") + _operand("k") + "v = Neg(k)\n" + ATTENTION + "\n z = Neg(aq)",
            "", LINEAR),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_leaves_alone(case: Refusal) -> None:
    case.check()


def test_the_limit_sees_a_kernel_off_by_one_element() -> None:
    """A branch placed one element off is wrong by far more than the limit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 6))
    assert np.abs(x[1:, 1:] - x[:-1, :-1]).min() * 0.1 > LIMIT
