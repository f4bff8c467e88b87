from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.model import constant
from edgevit.passes.check_canonical import check_canonical
from edgevit.passes.fold_constants import FoldConstants
from edgevit.passes.infer_shapes import InferShapes, open_values
from tests.passes.cases import Case, Refusal, rng_array
from tests.passes.harness import apply, build, check_same, f32, i64, operators, reasons

V = "float[2,6] x => float[2,6] y"


def test_shape_arithmetic_becomes_a_constant() -> None:
    body = (
        "s = Shape(x)\n b = Gather <axis = 0> (s, k)\n u = Unsqueeze(b, k0)\n"
        "c = Concat <axis = 0> (u, m)\n y = Reshape(x, c)"
    )
    constants: dict[str, Any] = {"k": np.int64(0), "k0": i64(0), "m": i64(3, -1)}
    model = build("float[2,3,4] x => float[2,3,4] y", body, constants)
    check_same(FoldConstants(), model, 0.0)
    assert operators(model) == {"Reshape": 1}
    target = model.graph.node(0).inputs[1]
    assert target is not None
    assert target.name == "c", "the folded value holds the same tensor and keeps its name"
    assert constant(target) is not None


def test_masks_and_ranges_fold() -> None:
    body = (
        "r = Range(a, n, d)\n c = Unsqueeze(r, k1)\n m = LessOrEqual(r, c)\n"
        "w = Where(m, z, big)\n y = Add(x, w)"
    )
    numbers = {"a": np.int64(0), "n": np.int64(6), "d": np.int64(1), "k1": i64(1)}
    constants: dict[str, Any] = {**numbers, "z": f32(0.0), "big": f32(-9.0)}
    model = build("float[6,6] x => float[6,6] y", body, constants)
    check_same(FoldConstants(), model, 0.0)
    assert operators(model) == {"Add": 1}


def test_a_transposed_weight_folds() -> None:
    Case("weight", "fold-constants", "float[2,6] x => float[2,5] y",
         "t = Transpose <perm = [1,0]> (w)\n y = MatMul(x, t)", "MatMul",
         {"w": rng_array(5, 6)}).check()  # fmt: skip


def test_a_quantized_weight_stays_narrow() -> None:
    Refusal("weight", "fold-constants", V, "d = DequantizeLinear(w, s)\n y = Add(x, d)",
            "DequantizeLinear",
            {"w": np.ones((2, 6), np.int8), "s": f32(0.5)}).check()  # fmt: skip


def test_random_numbers_are_not_frozen() -> None:
    Refusal("noise", "fold-constants", V, "n = RandomNormalLike(c)\n y = Add(x, n)",
            "RandomNormalLike", {"c": rng_array(2, 6)}).check()  # fmt: skip


def test_a_small_constant_is_not_blown_up() -> None:
    constants = {"c": f32(1.0), "s": i64(2, 6)}
    body = "e = Expand(c, s)\n y = Mul(x, e)"
    model = build(V, body, constants)
    outcome = apply(FoldConstants(grow=40), model)  # 12 floats are 48 bytes
    assert not outcome.modified
    assert "larger than 40 bytes" in reasons(outcome)
    check_same(FoldConstants(grow=48), model, 0.0)
    assert operators(model) == {"Mul": 1}


def test_folding_makes_shapes_known_that_inference_alone_does_not_see() -> None:
    body = (
        "n = NonZero(c)\n k = Squeeze(n, k0)\n d = Shape(k)\n f = Cast <to = 1> (d)\n"
        "g = Cast <to = 7> (f)\n o = Concat <axis = 0> (g, m)\n z = Reshape(x, o)\n y = Neg(z)"
    )
    constants = {"c": i64(1, 0, 1), "k0": i64(0), "m": i64(6)}
    model = build("float[2,6] x => float[2,6] y", body, constants)
    model.graph.outputs[0].shape = None
    assert open_values(model)
    FoldConstants()(model)
    assert not open_values(model)
    assert operators(model) == {"Reshape": 1, "Neg": 1}


def test_a_constant_output_keeps_its_name() -> None:
    model = build("float[2,6] x => float[2,6] y, int64[2] s", "y = Neg(x)\n s = Shape(x)")
    check_same(FoldConstants(), model, 0.0)
    assert operators(model) == {"Neg": 1, "Identity": 1}
    assert [v.name for v in model.graph.outputs] == ["y", "s"]
    assert check_canonical(model) == ()


def test_a_shape_that_depends_on_data_is_named() -> None:
    model = build("float[6] x => float[n] y", "i = NonZero(x)\n t = Transpose(i)\n"
                  "g = GatherND(x, t)\n y = Neg(g)")  # fmt: skip
    outcome = InferShapes()(model)
    assert "NonZero depends on data" in reasons(outcome)  # type: ignore[arg-type]


def test_known_shapes_are_left_alone() -> None:
    model = build(V, "y = Neg(x)")
    assert not apply(InferShapes(), model).modified
