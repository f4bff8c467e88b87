from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.check_canonical import check_canonical
from tests.passes.cases import rng_array
from tests.passes.harness import Array, build, f32, i64

V = "float[2,6] x => float[2,6] y"
V4 = "float[1,4,7,8] x => float[1,4,{}] y"
CONV = "kernel_shape = [3,3], strides = [1,1], dilations = [1,1], group = 1"

GOOD: list[tuple[str, str, dict[str, Array]]] = [
    (V, "y = Add(x, c)", {"c": rng_array(6)}),
    (V4.format("7,8"), f"y = Conv <{CONV}, pads = [1,1,1,1]> (x, w)",
     {"w": rng_array(4, 4, 3, 3)}),
    (V4.format("7,4"), "y = Slice(x, s, e, a, t)",
     {"s": i64(0), "e": i64(7), "a": i64(3), "t": i64(2)}),
    ("float[2,6] x => float[12] y", "y = Reshape <allowzero = 0> (x, s)", {"s": i64(12)}),
    (V, "y = Identity(x)", {}),
]  # fmt: skip

BAD: list[tuple[str, str, dict[str, Array], str]] = [
    (V, "y = Softmax <axis = -1> (x)", {}, "negative"),
    (V, "y = Softmax(x)", {}, "not written out"),
    (V, "y = Add(c, x)", {"c": rng_array(6)}, "the first"),
    (V, "y = Max(x, x, x)", {}, "expected two"),
    (V, "d = Mul(c, c)\n y = Add(x, d)", {"c": rng_array(6)}, "constants only"),
    (V, "y = Gemm(x, w)", {"w": rng_array(6, 6)}, "not in the canonical set"),
    (V, "a = Identity(x)\n y = Neg(a)", {}, "no-op"),
    (V, "y = Cast <to = 1> (x)", {}, "does not change the dtype"),
    (V, "y = Clip(x, a)", {"a": f32(1.0)}, "two constant numbers"),
    (V, "y = Reshape(x, s)", {"s": i64(2, -1)}, "written out"),
    (V, "a = Transpose <perm = [1,0]> (x)\n y = Transpose <perm = [1,0]> (a)", {}, "another"),
    (V, "y = Concat <axis = 0> (x)", {}, "fewer than two"),
    ("float[2,6] x => float[2,3] y", "y = Slice(x, s, e, a, t)",
     {"s": i64(3), "e": i64(99), "a": i64(1), "t": i64(1)}, "not within"),
    ("float[2,6] x => float[2,3] y", "y = Slice(x, s, e)", {"s": i64(0, 0), "e": i64(2, 3)},
     "not all constant"),
    ("float[2,6] x => float[2,2] y", "y = Gather <axis = 1> (x, i)", {"i": i64(2, 3)},
     "range"),
    ("float[2,6] x => float[2,3] y, float[2,3] z",
     "y, z = Split <axis = 1, num_outputs = 2> (x)", {}, "sizes"),
    ("float[2,6] x => float[2,1] y", "y = ReduceMean <keepdims = 1> (x, a)", {"a": i64(-1)},
     "sorted and non-negative"),
    ("float[2,6] x => float[2,8] y", "y = Pad <mode = \"constant\"> (x, p)",
     {"p": i64(0, 1, 0, 1)}, "the value is missing"),
    (V, "y = LayerNormalization <axis = 1, epsilon = 0.1> (x, g)",
     {"g": np.ones(6, np.float32)}, "constant vectors"),
    ("float[2,6] x => float[n] y", "b = Cast <to = 9> (x)\n y = Compress(x, c)",
     {"c": np.array([True, False])}, "no dtype or no static shape"),
    (V4.format("7,8"), "y = Conv <auto_pad = \"SAME_UPPER\"> (x, w)",
     {"w": rng_array(4, 4, 3, 3)}, "not written out"),
    (V4.format("5,6"), f"y = Conv <{CONV}, pads = [0,0,0,0]> (x, w, b)",
     {"w": rng_array(4, 4, 3, 3), "b": np.zeros(4, np.float32)}, "bias is zero"),
    (V4.format("7,8"),
     f"p = Pad <mode = \"constant\"> (x, q, z)\n y = Conv <{CONV}, pads = [0,0,0,0]> (p, w)",
     {"w": rng_array(4, 4, 3, 3), "q": i64(0, 0, 1, 1, 0, 0, 1, 1), "z": f32(0.0)},
     "not folded in"),
    (V4.format("4,4"), "y = MaxPool <kernel_shape = [2,2], strides = [2,2], "
     "pads = [0,0,0,0], ceil_mode = 1> (x)", {}, "not resolved"),
]  # fmt: skip


@pytest.mark.parametrize(("signature", "body", "constants"), GOOD)
def test_canonical_graphs_pass(signature: str, body: str, constants: dict[str, Array]) -> None:
    assert check_canonical(build(signature, body, constants)) == ()


@pytest.mark.parametrize(("signature", "body", "constants", "problem"), BAD)
def test_violations_are_named(
    signature: str, body: str, constants: dict[str, Array], problem: str
) -> None:
    found = check_canonical(build(signature, body, constants))
    assert problem in "; ".join(found)
    assert all(" " in line for line in found)


def test_a_foreign_operator_is_a_violation() -> None:
    model = build(V, "y = Neg(x)")
    model.graph.node(0).domain = "com.example"
    assert "domain" in check_canonical(model)[0]
