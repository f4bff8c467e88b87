"""Passes on element-wise operators, reductions, linear layers and contractions."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.einsum_to_matmul import Plan, plan
from tests.passes.cases import Case, Refusal, rng_array
from tests.passes.harness import U, f32, i64

V = "float[2,6] x => float[2,6] y"
V2 = "float[2,6] x, float[2,6] z => float[2,6] y"
# Inputs are below 10. A product of k such numbers with weights below 4 is summed in another
# order or rounded once more: (k + 2) roundings of terms below 40, at most k of them.
K = 8
LIMIT = (K + 2) * U * 40 * K

CASES = [
    Case("identity", "remove-noops", V, "a = Identity(x)\n y = Tanh(a)", "Tanh"),
    Case("dropout", "remove-noops", V, "a, m = Dropout(x)\n y = Tanh(a)", "Tanh"),
    Case("cast", "remove-noops", V, "a = Cast <to = 1> (x)\n y = Tanh(a)", "Tanh"),
    Case("one", "remove-noops", V, "a = Mul(c, x)\n y = Tanh(a)", "Tanh", {"c": f32(1.0)}),
    Case("zero", "remove-noops", V, "a = Sub(x, c)\n y = Tanh(a)", "Tanh", {"c": f32(0.0)}),
    Case("single", "remove-noops", V, "a = Concat <axis = 0> (x)\n y = Tanh(a)", "Tanh"),
    Case("whole", "remove-noops", V, "a = Slice(x, s, e)\n y = Tanh(a)", "Tanh",
         {"s": i64(0), "e": i64(2)}),
    Case("where", "remove-noops", V2, "a = Where(c, x, z)\n y = Tanh(a)", "Tanh",
         {"c": np.zeros((1, 6), bool)}),
    Case("output", "remove-noops", V, "a = Tanh(x)\n y = Identity(a)", "Tanh"),
    Case("add", "order-operands", V, "y = Add(c, x)", "Add", {"c": rng_array(6)}),
    Case("sum", "split-variadic", V2, "y = Sum(x, z, x)", "Add Add"),
    Case("mean", "split-variadic", V2, "y = Mean(x, z, x)", "Add Add Div", limit=LIMIT),
    Case("max", "split-variadic", V2, "y = Max(x, z, x)", "Max Max"),
    Case("square", "normalize-power", V, "y = Pow(x, c)", "Mul", {"c": f32(2.0)}, LIMIT),
    Case("inverse", "normalize-power", V, "a = Abs(x)\n b = Add(a, o)\n y = Pow(b, c)",
         "Abs Add Reciprocal", {"c": f32(-1.0), "o": f32(1.0)}, LIMIT),
    Case("root", "normalize-power", V, "a = Abs(x)\n y = Pow(a, c)", "Abs Sqrt",
         {"c": f32(0.5)}, LIMIT),
    Case("integer-power", "normalize-power", V, "y = Pow(x, c)", "Cast Pow", {"c": i64(3)},
         LIMIT),
    Case("min", "normalize-clip", V, "y = Min(x, c)", "Clip", {"c": f32(0.5)}),
    Case("relu", "normalize-clip", V, "y = Max(x, c)", "Relu", {"c": f32(0.0)}),
    Case("open", "normalize-clip", V, "y = Clip(x, , c)", "Clip", {"c": f32(0.5)}),
    Case("clips", "normalize-clip", V, "a = Clip(x, l, h)\n y = Clip(a, o, i)", "Clip",
         {"l": f32(-1.0), "h": f32(2.0), "o": f32(-3.0), "i": f32(1.0)}),
    Case("disjoint", "normalize-clip", V, "a = Clip(x, l, h)\n y = Clip(a, o, i)", "Clip",
         {"l": f32(-2.0), "h": f32(-1.0), "o": f32(0.5), "i": f32(1.0)}),
    Case("global", "normalize-reduce", "float[1,2,3,4] x => float[1,2,1,1] y",
         "y = GlobalAveragePool(x)", "ReduceMean", limit=LIMIT),
    Case("dropped", "normalize-reduce", "float[2,3,4] x => float[3] y",
         "y = ReduceSum <keepdims = 0> (x, a)", "ReduceSum Reshape", {"a": i64(-1, 0)}, LIMIT),
    Case("all", "normalize-reduce", "float[2,3] x => float[1,1] y", "y = ReduceMax(x)",
         "ReduceMax"),
    Case("unit", "normalize-reduce", "float[2,1,3] x => float[2,3] y",
         "y = ReduceMean <keepdims = 0> (x, a)", "Reshape", {"a": i64(1)}),
    Case("cast-like", "normalize-cast", "float[2,6] x, int32[1] z => int32[2,6] y",
         "y = CastLike(x, z)", "Cast"),
    Case("gemm", "gemm-to-matmul", "float[2,6] x => float[2,5] y",
         "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)", "MatMul Add",
         {"w": rng_array(5, 6), "b": rng_array(5)}, LIMIT),
    Case("gemm-dynamic", "gemm-to-matmul", "float[6,2] x, float[5,6] z => float[2,5] y",
         "y = Gemm <transA = 1, transB = 1, alpha = 0.5> (x, z)",
         "Transpose Transpose MatMul Mul", limit=4 * LIMIT),
    Case("log-softmax", "decompose-norms", V, "y = LogSoftmax <axis = -1> (x)",
         "ReduceMax Sub Exp ReduceSum Log Sub", limit=LIMIT),
    Case("l2", "decompose-norms", V, "y = LpNormalization <axis = 1> (x)",
         "ReduceL2 Clip Div", limit=LIMIT),
    Case("l1", "decompose-norms", V, "y = LpNormalization <axis = 0, p = 1> (x)",
         "Abs ReduceSum Clip Div", limit=LIMIT),
    Case("scores", "einsum-to-matmul",
         "float[1,2,3,4] x, float[1,2,5,4] z => float[1,2,3,5] y",
         "y = Einsum <equation = \"bhid,bhjd->bhij\"> (x, z)", "Transpose MatMul",
         limit=4 * LIMIT),
    Case("outer", "einsum-to-matmul", "float[3,4] x, float[5,2,4] z => float[5,3,2] y",
         "y = Einsum <equation = \"ad,bcd -> bac\"> (x, z)",
         "Transpose Reshape MatMul Reshape Transpose", limit=4 * LIMIT),
    Case("scaled", "fold-affine", "float[2,6] x => float[2,5] y",
         "a = MatMul(x, w)\n b = Add(a, c)\n y = Mul(b, d)", "MatMul Add",
         {"w": rng_array(6, 5), "c": rng_array(5), "d": rng_array(1, 5, seed=2)}, 4 * LIMIT),
    Case("two-biases", "fold-affine", "float[2,6] x => float[2,5] y",
         "a = MatMul(x, w)\n b = Add(a, c)\n y = Sub(b, d)", "MatMul Add",
         {"w": rng_array(6, 5), "c": rng_array(5), "d": f32(3.0)}, LIMIT),
    Case("quotient", "fold-affine", "float[2,6] x => float[2,5] y",
         "a = MatMul(x, w)\n y = Div(a, d)", "MatMul",
         {"w": rng_array(6, 5), "d": f32(3.0)}, LIMIT),
    Case("tokens", "hoist-affine", "float[2,6] x => float[1,2,5] y",
         "a = MatMul(x, w)\n r = Reshape(a, s)\n y = Mul(r, d)", "MatMul Mul Reshape",
         {"w": rng_array(6, 5), "s": i64(1, 2, 5), "d": rng_array(5, seed=2)}),
]  # fmt: skip

REFUSALS = [
    Refusal("training", "remove-noops", "float[2,6] x, float[2] z => float[2,6] y",
            "s = ReduceMax <keepdims = 0> (z)\n t = Cast <to = 9> (s)\n"
            "y = Dropout(x, r, t)", "training", {"r": f32(0.5)}),
    Refusal("mask", "remove-noops", "float[2,6] x => float[2,6] y, bool[2,6] m",
            "y, m = Dropout(x)", "mask"),
    Refusal("input-to-output", "remove-noops", V, "y = Identity(x)", ""),
    Refusal("broadcast", "remove-noops", "float[1,6] x => float[2,6] y", "y = Mul(x, c)", "",
            {"c": np.ones((2, 6), np.float32)}),
    Refusal("both", "order-operands", V2, "y = Add(x, z)", ""),
    Refusal("binary", "split-variadic", V2, "y = Max(x, z)", ""),
    Refusal("cube", "normalize-power", V, "y = Pow(x, c)", "", {"c": f32(3.0)}),
    Refusal("computed", "normalize-clip", "float[2,6] x, float[2] z => float[2,6] y",
            "s = ReduceMax <keepdims = 0> (z)\n y = Clip(x, s)", "not constant"),
    Refusal("computed-axes", "normalize-reduce", "float[2,6] x, int64[1] a => float[n,m] y",
            "y = ReduceSum(x, a)", "not known"),
    Refusal("elements", "normalize-reduce", V,
            "y = ReduceL1 <noop_with_empty_axes = 1> (x)", "single elements"),
    Refusal("diagonal", "einsum-to-matmul", "float[3,3] x, float[3] z => float[3] y",
            "y = Einsum <equation = \"ii,i->i\"> (x, z)", "diagonal"),
    Refusal("readers", "fold-affine", "float[2,6] x => float[2,5] y, float[2,5] z",
            "z = MatMul(x, w)\n y = Mul(z, d)", "other readers",
            {"w": rng_array(6, 5), "d": f32(3.0)}),
    Refusal("zero", "fold-affine", "float[2,6] x => float[2,5] y",
            "a = MatMul(x, w)\n y = Div(a, d)", "by zero",
            {"w": rng_array(6, 5), "d": f32(0.0)}),
    Refusal("per-row", "fold-affine", "float[2,6] x => float[2,5] y",
            "a = MatMul(x, w)\n y = Mul(a, d)", "per channel",
            {"w": rng_array(6, 5), "d": rng_array(2, 1)}),
    Refusal("last-axis", "hoist-affine", "float[2,6] x => float[5,2] y",
            "a = MatMul(x, w)\n r = Reshape(a, s)\n y = Mul(r, d)", "last axis",
            {"w": rng_array(6, 5), "s": i64(5, 2), "d": f32(3.0)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_refuses(case: Refusal) -> None:
    case.check()


def test_plan_sorts_labels_by_role() -> None:
    assert plan("bhid,bhjd->bhij") == Plan("bh", "i", "j", "d", "bhij")
    assert plan("ij,jk") == Plan("", "i", "k", "j", "ik")


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("i,j,k->ijk", "not two operands"),
        ("...ij,...jk->...ik", "ellipsis"),
        ("ij,k->ik", "summed"),
        ("ii,i->i", "diagonal"),
    ],
)
def test_plan_says_why_not(equation: str, reason: str) -> None:
    found = plan(equation)
    assert isinstance(found, str)
    assert reason in found


def test_a_wrong_fold_is_noticed() -> None:
    """The oracle of this file rejects a factor that is off by one part in a thousand."""
    from tests.passes.cases import load
    from tests.passes.harness import build, difference

    w = rng_array(6, 5)
    body = "a = MatMul(x, w)\n y = Mul(a, d)"
    right = build("float[2,6] x => float[2,5] y", body, {"w": w, "d": f32(3.0)})
    wrong = build("float[2,6] x => float[2,5] y", body, {"w": w, "d": f32(3.003)})
    load("fold-affine")(wrong)
    assert difference(right, wrong) > 4 * LIMIT
