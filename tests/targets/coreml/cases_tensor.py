"""The rest of the operator tables: arithmetic, reductions, shapes."""

from __future__ import annotations

import numpy as np

from tests.targets.coreml.harness import Array, Case, f32, half, i64, ints, normal

PAIR = "(float[2,3,4] x, float[3,1] z) => (float[2,3,4] y)"
BOOLS = "(float[2,3,4] x, float[3,1] z) => (bool[2,3,4] y)"
X = "(float[2,3,4] x) => (float[2,3,4] y)"
POSITIVE = half(np.random.default_rng(1).uniform(0.5, 2, size=(2, 3, 4)))
WIDE = half(np.random.default_rng(2).uniform(0.5, 2, size=(3, 1)))
WHOLE = np.random.default_rng(3).integers(-9, 9, size=(2, 3, 4))


def _pair(op: str, mil: str, **inputs: Array) -> Case:
    return Case(op, f"{PAIR} {{ y = {op}(x, z) }}", (mil,), inputs=inputs)


def _compare(op: str, mil: str) -> Case:
    same = {"x": np.round(POSITIVE * 2), "z": f32([[1], [2], [3]])}
    return Case(op, f"{BOOLS} {{ y = {op}(x, z) }}", (mil, "cast"), inputs=same)


def _unary(op: str, *mil: str, **inputs: Array) -> Case:
    return Case(op, f"{X} {{ y = {op}(x) }}", mil, inputs=inputs)


ARITHMETIC = [
    _pair("Add", "add"),
    _pair("Sub", "sub"),
    _pair("Mul", "mul"),
    _pair("Div", "real_div", z=WIDE),
    _pair("Pow", "pow", x=POSITIVE, z=WIDE),
    _pair("Max", "maximum"),
    _pair("Min", "minimum"),
    Case("Pow_square", f"{X} {{ y = Pow(x, e) }}", ("square",), {"e": f32(2)}),
    Case(
        "Pow_root",
        f"{X} {{ y = Pow(x, e) }}",
        ("sqrt",),
        {"e": f32(0.5)},
        {"x": POSITIVE},
    ),
    Case("Pow_cube", f"{X} {{ y = Pow(x, e) }}", ("pow",), {"e": f32(3)}, {"x": POSITIVE}),
    Case("Add_constant", f"{X} {{ y = Add(x, c) }}", ("add",), {"c": normal(1, 4)}),
    Case(
        "Add_whole",
        "(int64[4] x) => (int64[4] y) { y = Add(x, c) }",
        ("add",),
        {"c": ints(1, -2, 3, 4)},
        {"x": ints(5, 6, -7, 8)},
    ),
    Case(
        "Div_whole",
        "(int64[2,3,4] x) => (int64[2,3,4] y) { y = Div(x, c) }",
        (
            "floor_div",
            "mul",
            "not_equal",
            "less",
            "less",
            "logical_xor",
            "logical_and",
            "cast",
            "add",
        ),
        {"c": ints(3, -4, 5, 7)},
        {"x": WHOLE},
    ),
    Case(
        "Neg_whole",
        "(int64[2,3,4] x) => (int64[2,3,4] y) { y = Neg(x) }",
        ("mul",),
        inputs={"x": WHOLE},
    ),
    _unary("Abs", "abs"),
    _unary("Neg", "mul"),
    _unary("Exp", "exp"),
    _unary("Log", "log", x=POSITIVE),
    _unary("Sqrt", "sqrt", x=POSITIVE),
    _unary("Reciprocal", "inverse", x=POSITIVE),
    _unary("Floor", "floor"),
    _unary("Ceil", "ceil"),
    _unary("Round", "round"),
    _unary("Sin", "sin"),
    _unary("Cos", "cos"),
    _unary("Sign", "sign"),
    _compare("Equal", "equal"),
    _compare("Less", "less"),
    _compare("Greater", "greater"),
    _compare("LessOrEqual", "less_equal"),
    _compare("GreaterOrEqual", "greater_equal"),
    Case(
        "Logic",
        "(bool[2,3] a, bool[3] b) => (bool[2,3] y)"
        "{ c = And(a, b) d = Not(c) e = Or(d, a) y = Equal(e, b) }",
        (
            "not_equal",
            "not_equal",
            "logical_and",
            "logical_not",
            "logical_or",
            "cast",
            "cast",
            "equal",
            "cast",
        ),
        inputs={"a": np.array([[0, 1, 1], [1, 0, 1]], bool), "b": np.array([1, 0, 1], bool)},
    ),
    Case(
        "Where",
        "(bool[2,3,1] c, float[2,3,4] x) => (float[2,3,4] y) { y = Where(c, x, k) }",
        ("not_equal", "select"),
        {"k": f32(-1.5)},
        {"c": np.array([[[0], [1], [1]], [[1], [0], [1]]], bool)},
    ),
    Case(
        "Cast_round_trip",
        "(float[2,3,4] x) => (float[2,3,4] y) { i = Cast<to = 7>(x) y = Cast<to = 1>(i) }",
        ("cast", "cast"),
        inputs={"x": half(POSITIVE * 3 * (-1) ** np.arange(4))},
    ),
    Case(
        "Cast_bool",
        "(float[2,3,4] x) => (float[2,3,4] y) { b = Cast<to = 9>(x) y = Cast<to = 1>(b) }",
        ("not_equal", "cast"),
        inputs={"x": f32([[[0, 1, -2, 0.5]] * 3] * 2)},
    ),
]


def _reduce(op: str, mil: str, **more: float) -> Case:
    return Case(
        op,
        f"(float[2,3,4] x) => (float[2,1,4] y) {{ y = {op}<keepdims = 1>(x, a) }}",
        (mil,),
        {"a": ints(1)},
        reach=3,
    )


REDUCE = [
    _reduce("ReduceMean", "reduce_mean"),
    _reduce("ReduceSum", "reduce_sum"),
    _reduce("ReduceMax", "reduce_max"),
    _reduce("ReduceMin", "reduce_min"),
    _reduce("ReduceProd", "reduce_prod"),
    _reduce("ReduceL2", "reduce_l2_norm"),
    Case(
        "ReduceMean_dropped",
        "(float[2,3,4] x) => (float[3] y) { y = ReduceMean<keepdims = 0>(x, a) }",
        ("reduce_mean",),
        {"a": ints(0, 2)},
        reach=8,
    ),
    Case(
        "ReduceSum_scalar",
        "(float[2,3,4] x) => (float y) { y = ReduceSum<keepdims = 0>(x, a) }",
        ("reduce_sum", "reshape"),
        {"a": ints(0, 1, 2)},
        reach=24,
    ),
    Case(
        "ArgMax",
        "(float[2,3,4] x) => (int64[2,3] y){ y = ArgMax<axis = 2, keepdims = 0>(x) }",
        ("reduce_argmax",),
    ),
    Case(
        "TopK",
        "(float[2,3,4] x) => (float[2,3,2] y, int64[2,3,2] i)"
        "{ y, i = TopK<axis = 2, largest = 1, sorted = 1>(x, k) }",
        ("topk",),
        {"k": ints(2)},
    ),
    Case(
        "TopK_smallest",
        "(float[2,3,4] x) => (float[2,2,4] y, int64[2,2,4] i)"
        "{ y, i = TopK<axis = 1, largest = 0, sorted = 1>(x, k) }",
        ("topk",),
        {"k": ints(2)},
    ),
    Case(
        "CumSum",
        "(float[2,3,4] x) => (float[2,3,4] y) { y = CumSum(x, a) }",
        ("cumsum",),
        {"a": i64(2)},
        reach=4,
    ),
    Case(
        "CumSum_reverse",
        "(float[2,3,4] x) => (float[2,3,4] y) { y = CumSum<reverse = 1>(x, a) }",
        ("cumsum",),
        {"a": i64(1)},
        reach=3,
    ),
]

SHAPE = [
    Case("Identity_input", f"{X} {{ y = Identity(x) }}", ("identity",)),
    Case(
        "Identity_twice",
        "(float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] z)"
        "{ y = Identity(x) z = Identity(x) }",
        ("identity", "identity"),
    ),
    Case(
        "Identity_constant",
        "(float[2,3] x) => (float[2,3] y, float[4] z) { y = Relu(x) z = Identity(c) }",
        ("relu", "identity"),
        {"c": normal(1, 4)},
    ),
    Case(
        "Identity_scalar",
        "(float[2,3] x) => (float[2,3] y, float z) { y = Relu(x) z = Identity(c) }",
        ("relu", "reshape"),
        {"c": f32(2.5)},
    ),
    Case(
        "Identity_bool",
        "(bool[4] x) => (bool[4] y) { y = Identity(x) }",
        ("not_equal", "identity", "cast"),
        inputs={"x": np.array([1, 0, 0, 1], bool)},
    ),
    Case(
        "Reshape",
        "(float[2,3,4] x) => (float[6,4] y) { y = Reshape(x, s) }",
        ("reshape",),
        {"s": ints(6, 4)},
    ),
    Case(
        "Reshape_scalar",
        "(float[1,1] x) => (float y) { y = Reshape(x, s) }",
        ("reshape",),
        {"s": ints()},
    ),
    Case(
        "Transpose",
        "(float[2,3,4] x) => (float[4,2,3] y){ y = Transpose<perm = [2,0,1]>(x) }",
        ("transpose",),
    ),
    Case(
        "Concat",
        "(float[2,3] x, float[2,1] z) => (float[2,6] y) { y = Concat<axis = 1>(x, z, c) }",
        ("concat",),
        {"c": normal(3, 2, 2)},
    ),
    Case(
        "Split",
        "(float[2,6] x) => (float[2,1] a, float[2,3] b, float[2,2] c)"
        "{ a, b, c = Split<axis = 1>(x, s) }",
        ("split",),
        {"s": ints(1, 3, 2)},
    ),
    Case(
        "Slice",
        "(float[2,6,5] x) => (float[2,2,3] y) { y = Slice(x, b, e, a, s) }",
        ("slice_by_index",),
        {"b": ints(1, 0), "e": ints(5, 5), "a": ints(1, 2), "s": ints(2, 2)},
    ),
    Case(
        "Slice_backwards",
        "(float[2,6,5] x) => (float[2,3,5] y){ y = Slice(x, b, e, a, s) }",
        ("slice_by_index", "reverse"),
        {"b": ints(5, 4), "e": ints(-(2**63), -(2**63)), "a": ints(1, 2), "s": ints(-2, -1)},
    ),
    Case(
        "Pad",
        "(float[2,3,4] x) => (float[3,3,7] y) { y = Pad(x, p, v) }",
        ("pad",),
        {"p": ints(1, 0, 1, 0, 0, 2), "v": f32(0.5)},
    ),
    Case(
        "Pad_reflect",
        '(float[2,3,4] x) => (float[2,5,6] y) { y = Pad<mode = "reflect">(x, p) }',
        ("pad",),
        {"p": ints(0, 1, 2, 0, 1, 0)},
    ),
    Case(
        "Pad_edge",
        '(float[2,3,4] x) => (float[2,4,7] y) { y = Pad<mode = "edge">(x, p) }',
        ("pad",),
        {"p": ints(0, 0, 2, 0, 1, 1)},
    ),
    Case(
        "Tile",
        "(float[2,3] x) => (float[4,9] y) { y = Tile(x, r) }",
        ("tile",),
        {"r": ints(2, 3)},
    ),
    Case(
        "Expand",
        "(float[3,1] x) => (float[2,3,4] y) { y = Expand(x, s) }",
        ("reshape", "tile"),
        {"s": ints(2, 3, 4)},
    ),
    Case(
        "DepthToSpace_dcr",
        "(float[1,8,2,3] x) => (float[1,2,4,6] y)"
        '{ y = DepthToSpace<blocksize = 2, mode = "DCR">(x) }',
        ("depth_to_space",),
    ),
    Case(
        "DepthToSpace_crd",
        "(float[1,8,2,3] x) => (float[1,2,4,6] y)"
        '{ y = DepthToSpace<blocksize = 2, mode = "CRD">(x) }',
        ("pixel_shuffle",),
    ),
    Case(
        "SpaceToDepth",
        "(float[1,2,4,6] x) => (float[1,8,2,3] y) { y = SpaceToDepth<blocksize = 2>(x) }",
        ("space_to_depth",),
    ),
]
