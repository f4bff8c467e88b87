from __future__ import annotations

import numpy as np
import pytest

from edgevit.model import constant
from edgevit.passes.normalize_layer_norm import NormalizeLayerNorm
from edgevit.passes.recover_layer_norm import RecoverLayerNorm
from tests.passes.harness import (
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

SIGNATURE = "float[2,5,24] x => float[2,5,24] y"
RNG = np.random.default_rng(3)
CONSTANTS = {
    "last": i64(-1),
    "two": f32(2.0),
    "one": f32(1.0),
    "half": f32(0.5),
    "minus_half": f32(-0.5),
    "eps": f32(1e-5),
    "g": RNG.normal(size=24).astype(np.float32),
    "b": RNG.normal(size=24).astype(np.float32),
    "g3": RNG.normal(size=(1, 1, 24)).astype(np.float32),
    "pad": i64(-1),
}
# Mean and variance are sums of 24 terms: sqrt(24) u each, relative; the normalized value
# and what scale and bias (below 4) make of it stay below 16. About ten more roundings.
LIMIT = (2 * np.sqrt(24) + 10) * U * 16.0

STATS = (
    "m = ReduceMean<keepdims=1>(x, last)\n d = Sub(x, m)\n {square}\n"
    "v = ReduceMean<keepdims=1>(q, last)\n e = Add(v, eps)\n s = Sqrt(e)\n"
)
TWICE = (
    "m = ReduceMean<keepdims=1>(x, last)\n d = Sub(x, m)\n"
    "m2 = ReduceMean<keepdims=1>(x, last)\n d2 = Sub(x, m2)\n q = Mul(d2, d2)\n"
    "v = ReduceMean<keepdims=1>(q, last)\n e = Add(eps, v)\n s = Sqrt(e)\n n = Div(d, s)\n"
)
DROPPED = (
    "m0 = ReduceMean<keepdims=0>(x, last)\n m = Unsqueeze(m0, last)\n d = Sub(x, m)\n"
    "q = Pow(d, two)\n v0 = ReduceMean<keepdims=0>(q, last)\n v = Unsqueeze(v0, last)\n"
    "e = Add(v, eps)\n s = Sqrt(e)\n n = Div(d, s)\n"
)
FOLDED = "r = Reciprocal(s)\n w = Mul(r, g)\n xw = Mul(x, w)\n mw = Mul(m, w)\n"
POW = STATS.format(square="q = Pow(d, two)")
MUL = STATS.format(square="q = Mul(d, d)")
AFFINE = "a = Mul(n, g)\n y = Add(a, b)"

IDIOMS = {
    "paddle2onnx": POW + "n = Div(d, s)\n" + AFFINE,
    "torch-script": TWICE + AFFINE,
    "mul-square": MUL + "n = Div(d, s)\n" + "a = Mul(g, n)\n y = Add(b, a)",
    "scale-3d": POW + "n = Div(d, s)\n a = Mul(n, g3)\n y = Add(a, b)",
    "reciprocal": MUL + "r = Reciprocal(s)\n n = Mul(d, r)\n" + AFFINE,
    "one-over": MUL + "r = Div(one, s)\n n = Mul(r, d)\n" + AFFINE,
    "dropped-axes": DROPPED + AFFINE,
    "pow-half": MUL.replace("s = Sqrt(e)", "s = Pow(e, half)") + "n = Div(d, s)\n" + AFFINE,
    "pow-minus-half": MUL.replace("s = Sqrt(e)", "s = Pow(e, minus_half)")
    + "n = Mul(d, s)\n"
    + AFFINE,
    "tf2onnx": MUL + FOLDED + "t = Sub(b, mw)\n y = Add(xw, t)",
    "tf2onnx-no-bias": MUL + FOLDED + "y = Sub(xw, mw)",
    "no-affine": POW + "y = Div(d, s)",
    "no-bias": POW + "n = Div(d, s)\n y = Mul(n, g)",
    "no-scale": POW + "n = Div(d, s)\n y = Add(n, b)",
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms(idiom: str) -> None:
    model = build(SIGNATURE, IDIOMS[idiom], CONSTANTS)
    check_same(RecoverLayerNorm(), model, LIMIT)
    assert operators(model) == {"LayerNormalization": 1}
    node = only(model, "LayerNormalization")
    assert node.attributes.get_int("axis", 0) == 2
    assert node.attributes.get_float("epsilon", 0.0) == pytest.approx(1e-5, rel=1e-6)
    assert [v.shape for v in node.inputs[1:] if v is not None] == [(24,), (24,)]


def test_channels_first_is_transposed() -> None:
    body = (POW + "n = Div(d, s)\n a = Mul(n, gc)\n y = Add(a, bc)").replace("last", "axis")
    constants = {
        **CONSTANTS,
        "axis": i64(1),
        "gc": RNG.normal(size=(6, 1, 1)).astype(np.float32),
        "bc": RNG.normal(size=(1, 6, 1, 1)).astype(np.float32),
    }
    model = build("float[2,6,4,3] x => float[2,6,4,3] y", body, constants)
    check_same(RecoverLayerNorm(), model, LIMIT)
    assert operators(model) == {"Transpose": 2, "LayerNormalization": 1}


def test_several_last_axes_are_flattened() -> None:
    body = (POW + "n = Div(d, s)\n a = Mul(n, gc)\n y = Add(a, bc)").replace("last", "axis")
    constants = {
        **CONSTANTS,
        "axis": i64(-2, -1),
        "gc": RNG.normal(size=(5, 24)).astype(np.float32),
        "bc": RNG.normal(size=(24,)).astype(np.float32),
    }
    model = build(SIGNATURE, body, constants)
    check_same(RecoverLayerNorm(), model, LIMIT * np.sqrt(5))
    assert operators(model) == {"Reshape": 2, "LayerNormalization": 1}
    assert only(model, "LayerNormalization").outputs[0].shape == (2, 120)


def test_scale_that_is_no_constant_stays() -> None:
    body = POW + "n = Div(d, s)\n y = Mul(n, z)"
    model = build("float[2,5,24] x, float[24] z => float[2,5,24] y", body, CONSTANTS)
    check_same(RecoverLayerNorm(), model, LIMIT)
    assert operators(model) == {"LayerNormalization": 1, "Mul": 1}


def test_scale_over_other_axes_stays() -> None:
    constants = {**CONSTANTS, "w": RNG.normal(size=(5, 1)).astype(np.float32)}
    model = build(SIGNATURE, POW + "n = Div(d, s)\n y = Mul(n, w)", constants)
    check_same(RecoverLayerNorm(), model, LIMIT)
    assert operators(model) == {"LayerNormalization": 1, "Mul": 1}


@pytest.mark.parametrize(
    ("signature", "body", "constants", "reason"),
    [
        (
            "float[2,5,24] x, float z => float[2,5,24] y",
            POW.replace("Add(v, eps)", "Add(v, z)") + "y = Div(d, s)",
            {},
            "epsilon is not a constant",
        ),
        (SIGNATURE, POW + "y = Div(d, s)", {"last": i64(0)}, "neither the last nor axis 1"),
        (SIGNATURE, POW + "y = Div(x, s)", {}, "does not divide"),
        (SIGNATURE, POW + "y = Div(d, s)", {"eps": f32(-1e-5)}, "epsilon is negative"),
        (
            "float[2,5,24] x => float[2,5,24] y, float[2,5,1] z",
            POW + "y = Div(d, s)\n z = Neg(v)",
            {},
            "is also used by Neg",
        ),
        (
            SIGNATURE,
            POW.replace("ReduceMean<keepdims=1>(q, last)", "ReduceMean<keepdims=1>(q, other)")
            + "y = Div(d, s)",
            {"other": i64(1, 2)},
            "mean over axes (2,), variance over axes (1, 2)",
        ),
    ],
)
def test_near_misses_are_refused(
    signature: str, body: str, constants: dict[str, np.ndarray], reason: str
) -> None:
    model = build(signature, body, {**CONSTANTS, **constants})
    outcome = apply(RecoverLayerNorm(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_a_cast_is_a_boundary() -> None:
    body = (
        "x = Cast<to=1>(h)\n" + POW + "n = Div(d, s)\n a = Mul(n, g)\n c = Add(a, b)\n"
        "y = Cast<to=10>(c)"
    )
    model = build("float16[2,5,24] h => float16[2,5,24] y", body, CONSTANTS)
    # Both sides round the same float32 value to float16; one unit there where they differ.
    check_same(RecoverLayerNorm(), model, 2.0**-10 * 16)
    assert operators(model) == {"Cast": 2, "LayerNormalization": 1}


NORM = "LayerNormalization<axis={axis}, epsilon=0.001>"


@pytest.mark.parametrize(
    ("node", "shape", "reshapes"),
    [
        ("LayerNormalization(x, g)", (24,), 0),
        (NORM.format(axis=-1) + "(x, g, b)", (24,), 0),
        (NORM.format(axis=1) + "(x, g)", (5, 24), 2),
        (NORM.format(axis=-2) + "(x, g, b)", (5, 24), 2),
        (NORM.format(axis=0) + "(x, g)", (2, 5, 24), 2),
    ],
)
def test_existing_norms(node: str, shape: tuple[int, ...], reshapes: int) -> None:
    constants = {n: RNG.normal(size=shape).astype(np.float32) for n in "gb"}
    model = build(SIGNATURE, f"y = {node}", constants)
    check_same(NormalizeLayerNorm(), model, LIMIT * np.sqrt(10))
    new = only(model, "LayerNormalization")
    assert operators(model).get("Reshape", 0) == reshapes
    assert new.attributes.get_int("axis", -1) == len(new.outputs[0].shape or ()) - 1
    assert all(constant(v) is not None for v in new.inputs[1:])
    assert len(new.inputs) == 3


@pytest.mark.parametrize(("axis", "shape"), [(0, (2, 5, 24)), (1, (24,)), (-1, (24,))])
def test_existing_root_mean_squares(axis: int, shape: tuple[int, ...]) -> None:
    constants = {"g": RNG.normal(size=shape).astype(np.float32)}
    body = f"y = RMSNormalization<axis={axis}, epsilon=0.001>(x, g)"
    model = build(SIGNATURE, body, constants)
    check_same(NormalizeLayerNorm(), model, LIMIT * np.sqrt(10))
    new = only(model, "RMSNormalization")
    assert new.attributes.get_int("axis", -1) == len(new.outputs[0].shape or ()) - 1
    assert len(new.inputs) == 2
    assert not apply(NormalizeLayerNorm(), model).modified


def test_canonical_norm_stays() -> None:
    model = build(SIGNATURE, f"y = {NORM.format(axis=2)}(x, g, b)", CONSTANTS)
    assert not apply(NormalizeLayerNorm(), model).modified


def test_norm_with_its_mean_in_use_is_refused() -> None:
    model = build(
        "float[2,5,24] x => float[2,5,24] y, float[2,5,1] m",
        "y, m = LayerNormalization(x, g)",
        CONSTANTS,
    )
    outcome = apply(NormalizeLayerNorm(), model)
    assert not outcome.modified
    assert "two outputs" in reasons(outcome)


def test_the_oracle_sees_an_epsilon_lost() -> None:
    kept = build(SIGNATURE, "y = LayerNormalization<epsilon=0.001>(x, g, b)", CONSTANTS)
    lost = build(SIGNATURE, "y = LayerNormalization<epsilon=0.0>(x, g, b)", CONSTANTS)
    assert difference(kept, lost, spread=0.05) > 10 * LIMIT
