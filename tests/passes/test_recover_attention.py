from __future__ import annotations

import math

import numpy as np
import pytest

from edgevit.model import constant, shape_of
from edgevit.passes.recover_attention import RecoverAttention
from tests.passes.harness import (
    Arrays,
    U,
    apply,
    build,
    check_same,
    difference,
    f32,
    i64,
    only,
    operators,
    reasons,
)

S, T, D, E = 5, 7, 8, 6
QKV = f"float[2,3,{S},{D}] q, float[2,3,{T},{D}] k, float[2,3,{T},{E}] v"
OUT = f"float[2,3,{S},{E}] y"
SIGNATURE = f"{QKV} => {OUT}"
RNG = np.random.default_rng(5)
SCALE = 1.0 / math.sqrt(D)
CONSTANTS: Arrays = {
    "s": f32(SCALE),
    "root": np.asarray([math.sqrt(SCALE)], np.float32),
    "sqrt_d": f32(math.sqrt(D)),
    "bias": RNG.normal(size=(1, 3, S, T)).astype(np.float32),
    "row": RNG.normal(size=(T,)).astype(np.float32),
    "bias3": RNG.normal(size=(3, S, T)).astype(np.float32),
}
# Scores are sums of 8 products below 6 * 6 and reach 36; each of some six roundings moves
# a probability by twice that times u, the result by as much times the largest value (6).
LIMIT = (6 + math.sqrt(D)) * 2 * U * 36 * 6
KT = "kt = Transpose<perm=[0,1,3,2]>(k)\n"
READ = "p = Softmax<axis=-1>(a)\n y = MatMul(p, v)"

IDIOMS = {
    "scores-mul": KT + "d = MatMul(q, kt)\n a = Mul(d, s)\n" + READ,
    "scores-div": KT + "d = MatMul(q, kt)\n a = Div(d, sqrt_d)\n" + READ,
    "query-mul": KT + "r = Mul(q, s)\n a = MatMul(r, kt)\n" + READ,
    "both-sqrt": KT + "r = Mul(q, root)\n l = Mul(kt, root)\n a = MatMul(r, l)\n" + READ,
    "key-before": "l = Mul(s, k)\n kt = Transpose<perm=[0,1,3,2]>(l)\n a = MatMul(q, kt)\n"
    + READ,
    "bias": KT + "d = MatMul(q, kt)\n c = Mul(d, s)\n a = Add(c, bias)\n" + READ,
    "bias-first": KT + "r = Mul(q, s)\n d = MatMul(r, kt)\n a = Add(bias3, d)\n" + READ,
    "two-masks": KT
    + "d = MatMul(q, kt)\n c = Mul(d, s)\n e = Add(c, bias)\n a = Add(e, row)\n"
    + READ,
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_scales_and_masks(idiom: str) -> None:
    model = build(SIGNATURE, IDIOMS[idiom], CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    assert operators(model) == {"Attention": 1}
    node = only(model, "Attention")
    assert node.attributes.get_float("scale", 0.0) == pytest.approx(SCALE, rel=1e-6)
    masked = any(word in idiom for word in ("bias", "mask"))
    assert len(node.inputs) == (4 if masked else 3)


def test_without_a_scale_it_is_one() -> None:
    model = build(SIGNATURE, KT + "a = MatMul(q, kt)\n" + READ, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    assert only(model, "Attention").attributes.get_float("scale", 0.0) == 1.0


def test_regrouped_transpose_of_the_dynamo_exporter() -> None:
    body = (
        "k3 = Reshape(k, merged)\n t3 = Transpose<perm=[0,2,1]>(k3)\n"
        "kt = Reshape(t3, apart)\n"
        "r = Mul(q, root)\n l = Mul(kt, root)\n a = MatMul(r, l)\n" + READ
    )
    constants = {**CONSTANTS, "merged": i64(-1, T, D), "apart": i64(2, 3, D, T)}
    model = build(SIGNATURE, body, constants)
    check_same(RecoverAttention(), model, LIMIT)
    assert operators(model)["Attention"] == 1
    assert operators(model)["Transpose"] == 0


def test_permutations_of_the_keys_are_composed() -> None:
    signature = f"float[2,{S},3,{D}] q4, float[2,{T},3,{D}] k4, float[2,3,{T},{E}] v => {OUT}"
    body = (
        "q = Transpose<perm=[0,2,1,3]>(q4)\n kt = Transpose<perm=[0,2,3,1]>(k4)\n"
        "a = MatMul(q, kt)\n" + READ
    )
    model = build(signature, body, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    perms = [n.attributes["perm"].as_ints() for n in model.graph if n.op_type == "Transpose"]
    assert [tuple(p) for p in perms] == [(0, 2, 1, 3), (0, 2, 1, 3)]


def test_keys_that_come_transposed() -> None:
    signature = f"{QKV.replace(f'{T},{D}] k', f'{D},{T}] kt')} => {OUT}"
    model = build(signature, "a = MatMul(q, kt)\n" + READ, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    assert operators(model) == {"Transpose": 1, "Attention": 1}


GUARD = (
    KT + "r = Mul(q, root)\n l = Mul(kt, root)\n d = MatMul(r, l)\n a = Add(d, m)\n"
    "p = Softmax<axis=-1>(a)\n n = IsNaN(p)\n w = Where(n, zero, p)\n y = MatMul(w, v)"
)


def mask_with(rows: int) -> Arrays:
    mask = np.where(RNG.random((S, T)) < 0.4, -np.inf, 0.0).astype(np.float32)
    mask[:, 0] = 0.0
    mask[:rows] = -np.inf
    return {**CONSTANTS, "m": mask, "zero": f32(0.0)}


def test_guard_against_nan_is_seen_through() -> None:
    model = build(SIGNATURE, GUARD, mask_with(0))
    check_same(RecoverAttention(), model, LIMIT)
    assert operators(model) == {"Attention": 1}


def test_guard_that_matters_is_refused() -> None:
    outcome = apply(RecoverAttention(), build(SIGNATURE, GUARD, mask_with(1)))
    assert not outcome.modified
    assert "may be masked whole" in reasons(outcome)


def test_transposed_readout() -> None:
    turned = QKV.replace(f"{T},{E}] v", f"{E},{T}] vt")
    signature = f"{turned} => float[2,3,{E},{S}] y"
    body = KT + (
        "a = MatMul(q, kt)\n p = Softmax<axis=3>(a)\n pt = Transpose<perm=[0,1,3,2]>(p)\n"
        "y = MatMul(vt, pt)"
    )
    model = build(signature, body, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    assert operators(model) == {"Attention": 1, "Transpose": 2}


def test_computed_mask_is_spread() -> None:
    signature = f"{QKV}, float[2,1,1,{T}] m => {OUT}"
    body = KT + "d = MatMul(q, kt)\n c = Mul(d, s)\n a = Add(c, m)\n" + READ
    model = build(signature, body, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    mask = only(model, "Attention").inputs[3]
    assert mask is not None
    assert shape_of(mask) == (2, 1, S, T)


def test_rank_three_merged_heads_are_separated() -> None:
    body = (
        "q3 = Reshape(q, mq)\n k3 = Reshape(k, mk)\n v3 = Reshape(v, mv)\n"
        "kt = Transpose<perm=[0,2,1]>(k3)\n d = MatMul(q3, kt)\n c = Mul(d, s)\n"
        "a = Add(c, mask)\n p = Softmax<axis=-1>(a)\n z = MatMul(p, v3)\n y = Reshape(z, my)"
    )
    constants = {
        **CONSTANTS,
        "mq": i64(6, S, D),
        "mk": i64(6, T, D),
        "mv": i64(6, T, E),
        "my": i64(2, 3, S, E),
        "mask": RNG.normal(size=(6, S, T)).astype(np.float32),
    }
    model = build(SIGNATURE, body, constants)
    check_same(RecoverAttention(), model, LIMIT)
    assert only(model, "Attention").outputs[0].shape == (2, 3, S, E)


def test_rank_three_has_one_head() -> None:
    signature = (
        f"float[6,{S},{D}] q, float[6,{T},{D}] k, float[6,{T},{E}] v => float[6,{S},{E}] y"
    )
    body = KT.replace("0,1,3,2", "0,2,1") + "a = MatMul(q, kt)\n" + READ
    model = build(signature, body, CONSTANTS)
    check_same(RecoverAttention(), model, LIMIT)
    assert only(model, "Attention").outputs[0].shape == (6, 1, S, E)


def test_window_mask_of_swin() -> None:
    signature = (
        f"float[8,3,{T},{D}] q, float[8,3,{T},{D}] k, float[8,3,{T},{E}] v "
        f"=> float[8,3,{T},{E}] y"
    )
    body = (
        KT + "r = Mul(q, s)\n d = MatMul(r, kt)\n b = Add(d, rpb)\n w = Reshape(b, inside)\n"
        "m = Add(w, shift)\n a = Reshape(m, outside)\n" + READ
    )
    constants = {
        **CONSTANTS,
        "inside": i64(2, 4, 3, T, T),
        "outside": i64(-1, 3, T, T),
        "rpb": RNG.normal(size=(1, 3, T, T)).astype(np.float32),
        "shift": np.where(RNG.random((1, 4, 1, T, T)) < 0.3, -100.0, 0.0).astype(np.float32),
    }
    model = build(signature, body, constants)
    check_same(RecoverAttention(), model, 4 * LIMIT)  # scores reach -100, not -36
    assert operators(model) == {"Attention": 1}
    mask = constant(only(model, "Attention").inputs[3])
    assert mask is not None
    assert mask.shape == (8, 3, T, T)


REFUSED = {
    "softmax over another axis": (
        SIGNATURE,
        KT + "a = MatMul(q, kt)\n p = Softmax<axis=2>(a)\n y = MatMul(p, v)",
        {},
        "over axis 2 of rank 4",
    ),
    "scores mixed over heads": (
        SIGNATURE,
        KT + "d = MatMul(q, kt)\n a = Conv(d, mix)\n" + READ,
        {"mix": RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)},
        "the scores come from Conv",
    ),
    "probabilities mixed over heads": (
        SIGNATURE,
        KT
        + "a = MatMul(q, kt)\n p = Softmax<axis=3>(a)\n c = Conv(p, mix)\n y = MatMul(c, v)",
        {"mix": RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)},
        "the probabilities are read by Conv",
    ),
    "probabilities are an output": (
        f"{QKV} => {OUT}, float[2,3,{S},{T}] p",
        KT + "a = MatMul(q, kt)\n" + READ,
        {},
        "probabilities are an output",
    ),
    "scores are used": (
        f"{QKV} => {OUT}, float[2,3,{S},{T}] z",
        KT + "a = MatMul(q, kt)\n z = Neg(a)\n" + READ,
        {},
        "'a' is also used by Neg",
    ),
    "one head of keys": (
        f"{QKV.replace(f'2,3,{T}', f'2,1,{T}')} => {OUT}",
        KT + "a = MatMul(q, kt)\n" + READ,
        {},
        "batch and head axes differ",
    ),
    "scaled after the mask": (
        SIGNATURE,
        KT + "d = MatMul(q, kt)\n c = Add(d, bias)\n a = Mul(c, s)\n" + READ,
        {},
        "scaled after the mask",
    ),
    "masked by Where": (
        SIGNATURE,
        KT + "d = MatMul(q, kt)\n a = Where(keep, d, low)\n" + READ,
        {"keep": RNG.random((S, T)) < 0.5, "low": f32(-1e9)},
        "masked by Where",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_near_misses_are_refused(case: str) -> None:
    signature, body, constants, reason = REFUSED[case]
    model = build(signature, body, {**CONSTANTS, **constants})
    outcome = apply(RecoverAttention(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_a_classifier_is_no_near_miss() -> None:
    model = build(
        "float[2,8] x => float[2,4] y",
        "a = MatMul(x, w)\n y = Softmax<axis=-1>(a)",
        {"w": RNG.normal(size=(8, 4)).astype(np.float32)},
    )
    outcome = apply(RecoverAttention(), model)
    assert not outcome.modified
    assert not outcome.refusals


@pytest.mark.parametrize("scale", [SCALE * 1.01, 1.0])
def test_the_oracle_sees_a_wrong_scale(scale: float) -> None:
    right = build(SIGNATURE, IDIOMS["scores-mul"], CONSTANTS)
    wrong = build(SIGNATURE, f"y = Attention<scale={scale:.8f}>(q, k, v)")
    assert difference(right, wrong) > 10 * LIMIT


def test_the_oracle_sees_heads_swapped() -> None:
    right = build(SIGNATURE, IDIOMS["scores-mul"], CONSTANTS)
    body = IDIOMS["scores-mul"].replace("MatMul(p, v)", "MatMul(p, u)")
    swapped = "u = Gather<axis=1>(v, turned)\n" + body
    wrong = build(SIGNATURE, swapped, {**CONSTANTS, "turned": i64(1, 0, 2)})
    assert difference(right, wrong) > 10 * LIMIT
