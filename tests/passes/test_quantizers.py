"""Quantizers move, codes become signed, stored weights are rearranged: nothing changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.quantizers import quantizer_of, stored
from tests.passes.cases import Case, Refusal, load
from tests.passes.harness import Arrays, apply, build, check_same, f32, i64, only, operators

S8 = {"s": f32(0.03), "z": np.asarray(-7, np.int8)}
U8 = {"s": f32(0.03), "z": np.asarray(121, np.uint8)}
X = "float[2,3,4] x => float[2,4,3] y"
PAIR = "q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n"
TURN = "y = Transpose<perm = [0,2,1]>(d)"

MOVES = [
    Case("down", "sink-quantizers", X, PAIR + TURN,
         "QuantizeLinear Transpose DequantizeLinear", S8),
    Case("down-split", "sink-quantizers", "float[2,4] x => float[2,2] y, float[2,2] b",
         PAIR + "y, b = Split<axis = 1>(d, k)",
         "QuantizeLinear Split DequantizeLinear DequantizeLinear", {**S8, "k": i64(2, 2)}),
    Case("down-pad", "sink-quantizers", "float[2,4] x => float[3,6] y",
         PAIR + 'y = Pad<mode = "constant">(d, p, v)',
         "QuantizeLinear Pad DequantizeLinear",
         {**S8, "p": i64(0, 1, 1, 1), "v": f32(0.0)}),
    Case("up", "sink-quantizers", X,
         "t = Transpose<perm = [0,2,1]>(x)\n q = QuantizeLinear(t, s, z)\n"
         "y = DequantizeLinear(q, s, z)",
         "QuantizeLinear Transpose DequantizeLinear", S8),
    Case("pair", "sink-quantizers", "float[2,4] x => float[2,4] y",
         PAIR + "r = QuantizeLinear(d, s, z)\n y = DequantizeLinear(r, s, z)",
         "QuantizeLinear DequantizeLinear", S8),
    Case("signed", "sign-quantizers", X,
         "q = QuantizeLinear(x, s, z)\n t = Transpose<perm = [0,2,1]>(q)\n"
         "y = DequantizeLinear(t, s, z)",
         "QuantizeLinear Transpose DequantizeLinear", U8),
    Case("unsigned", "sign-quantizers{unsigned=true}", X,
         "q = QuantizeLinear(x, s, z)\n t = Transpose<perm = [0,2,1]>(q)\n"
         "y = DequantizeLinear(t, s, z)",
         "QuantizeLinear Transpose DequantizeLinear", S8),
]  # fmt: skip


@pytest.mark.parametrize("case", MOVES, ids=lambda c: c.name)
def test_the_numbers_stay(case: Case) -> None:
    case.check()


REFUSED = [
    Refusal("graph-output", "sign-quantizers", "float[2,4] x => uint8[2,4] y",
            "y = QuantizeLinear(x, s, z)", "input or output of the model", U8),
    Refusal("reshape-cuts", "move-stored", "float[2,6] x => float[2,5] y",
            "w = DequantizeLinear<axis = 1>(c, k)\n r = Reshape(w, to)\n y = MatMul(x, r)",
            "cuts or merges",
            {"c": np.ones((3, 10), np.int8), "k": np.full(10, 0.5, np.float32),
             "to": i64(6, 5)}),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_what_stays_says_why(case: Refusal) -> None:
    case.check()


def test_other_parameters_do_not_cancel() -> None:
    body = PAIR + "r = QuantizeLinear(d, k, z)\n y = DequantizeLinear(r, k, z)"
    model = build("float[2,4] x => float[2,4] y", body, {**S8, "k": f32(0.031)})
    assert not apply(load("sink-quantizers"), model).modified


def test_a_pad_without_a_code_stays_on_floats() -> None:
    body = PAIR + 'y = Pad<mode = "constant">(d, p, v)'
    constants: Arrays = {**S8, "p": i64(0, 1, 1, 1), "v": f32(0.01)}
    model = build("float[2,4] x => float[3,6] y", body, constants)
    assert not apply(load("sink-quantizers"), model).modified


def test_a_concat_of_other_parameters_stays_on_floats() -> None:
    body = (
        "q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n"
        "p = QuantizeLinear(x, k, z)\n e = DequantizeLinear(p, k, z)\n"
        "y = Concat<axis = 1>(d, e)"
    )
    model = build("float[2,4] x => float[2,8] y", body, {**S8, "k": f32(0.02)})
    assert not apply(load("sink-quantizers"), model).modified


def test_signed_codes_are_128_lower() -> None:
    body = "q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z)"
    model = build("float[2,4] x => float[2,4] y", body, U8)
    apply(load("sign-quantizers"), model)
    found = quantizer_of(only(model, "QuantizeLinear"))
    assert found is not None
    assert (found.dtype, int(found.zero_point)) == (ir.DataType.INT8, -7)


def test_unsigned_codes_are_128_higher_and_weights_stay() -> None:
    body = (
        "q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n"
        "w = DequantizeLinear<axis = 1>(c, k)\n y = MatMul(d, w)"
    )
    weight: Arrays = {"c": np.ones((4, 5), np.int8), "k": np.full(5, 0.5, np.float32)}
    model = build("float[2,4] x => float[2,5] y", body, {**S8, **weight})
    check_same(load("sign-quantizers{unsigned=true}"), model, 0.0)
    found = quantizer_of(only(model, "QuantizeLinear"))
    assert found is not None
    assert (found.dtype, int(found.zero_point)) == (ir.DataType.UINT8, 121)
    weights = stored(only(model, "MatMul").inputs[1])
    assert weights is not None
    assert weights.quantizer.dtype == ir.DataType.INT8


def test_a_transposed_weight_moves_its_axis() -> None:
    codes = np.arange(-15, 15, dtype=np.int8).reshape(5, 6)
    scales = np.linspace(0.1, 0.5, 5).astype(np.float32)
    body = (
        "w = DequantizeLinear<axis = 0>(c, k)\n t = Transpose<perm = [1,0]>(w)\n"
        "y = MatMul(x, t)"
    )
    model = build("float[2,6] x => float[2,5] y", body, {"c": codes, "k": scales})
    check_same(load("move-stored"), model, 0.0)
    found = stored(only(model, "MatMul").inputs[1])
    assert found is not None
    assert found.quantizer.axis == 1
    np.testing.assert_array_equal(found.codes, codes.T)


def test_a_dequantized_vector_folds_and_a_matrix_does_not() -> None:
    body = (
        "b = DequantizeLinear<axis = 0>(d, k)\n w = DequantizeLinear<axis = 1>(c, k)\n"
        "m = MatMul(x, w)\n y = Add(m, b)"
    )
    constants: Arrays = {
        "c": np.ones((6, 5), np.int8),
        "d": np.asarray([100, -200, 3, 40, 5], np.int32),
        "k": np.linspace(0.1, 0.5, 5).astype(np.float32),
    }
    model = build("float[2,6] x => float[2,5] y", body, constants)
    check_same(load("fold-constants"), model, 0.0)
    assert operators(model)["DequantizeLinear"] == 1
