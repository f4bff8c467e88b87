"""The rest of the operator tables: arithmetic, reductions, shapes, indices, resizing."""

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

INDEX = [
    Case(
        "Gather",
        "(float[2,5,4] x) => (float[2,3,4] y) { y = Gather<axis = 1>(x, i) }",
        ("gather",),
        {"i": ints(4, 0, -2)},
    ),
    Case(
        "Gather_scalar",
        "(float[2,5,4] x) => (float[2,4] y) { y = Gather<axis = 1>(x, i) }",
        ("gather", "reshape"),
        {"i": i64(-2)},
    ),
    Case(
        "Gather_dynamic",
        "(float[5,4] x, int64[2,2] i) => (float[2,2,4] y) { y = Gather<axis = 0>(x, i) }",
        ("less", "add", "select", "gather"),
        inputs={"i": i64([[0, -1], [3, 2]])},
    ),
    Case(
        "GatherElements",
        "(float[3,4] x) => (float[3,2] y) { y = GatherElements<axis = 1>(x, i) }",
        ("gather_along_axis",),
        {"i": i64([[0, 3], [-1, 1], [2, 2]])},
    ),
    Case(
        "GatherND",
        "(float[3,4,2] x) => (float[2,2] y) { y = GatherND(x, i) }",
        ("gather_nd",),
        {"i": i64([[0, 3], [-1, -2]])},
    ),
    Case(
        "ScatterND",
        "(float[4,3] x, float[2,3] u) => (float[4,3] y) { y = ScatterND(x, i, u) }",
        ("scatter_nd",),
        {"i": i64([[2], [-4]])},
    ),
    Case(
        "ScatterND_add",
        "(float[4,3] x, float[2,3] u) => (float[4,3] y)"
        '{ y = ScatterND<reduction = "add">(x, i, u) }',
        ("scatter_nd",),
        {"i": i64([[2], [2]])},
        roundings=2,
    ),
]


def _resize(name: str, attributes: str, size: tuple[int, int], ops: tuple[str, ...]) -> Case:
    height, width = size
    return Case(
        f"Resize_{name}",
        f"(float[1,2,5,6] x) => (float[1,2,{height},{width}] y)"
        f"{{ y = Resize<{attributes}>(x, r, s, z) }}",
        ops,
        {
            "r": np.zeros(0, np.float32),
            "s": np.zeros(0, np.float32),
            "z": ints(1, 2, height, width),
        },
        reach=64,
        roundings=4 if len(ops) > 1 or ops == ("matmul",) else 2,
    )


UP, DOWN = (10, 18), (3, 4)
LINEAR = 'mode = "linear", coordinate_transformation_mode'
NEAREST = 'mode = "nearest", nearest_mode'

RESIZE = [
    _resize(
        "nearest_up", f'{NEAREST} = "round_prefer_floor"', UP, ("upsample_nearest_neighbor",)
    ),
    _resize(
        "nearest_floor",
        f'{NEAREST} = "floor", coordinate_transformation_mode = "asymmetric"',
        (7, 6),
        ("gather",),
    ),
    _resize(
        "nearest_ceil",
        f'{NEAREST} = "ceil", coordinate_transformation_mode = "half_pixel"',
        DOWN,
        ("gather", "gather"),
    ),
    _resize("half_pixel", f'{LINEAR} = "half_pixel"', UP, ("resize_bilinear",)),
    _resize("half_pixel_down", f'{LINEAR} = "half_pixel"', DOWN, ("resize_bilinear",)),
    _resize("align_corners", f'{LINEAR} = "align_corners"', UP, ("resize_bilinear",)),
    _resize("asymmetric", f'{LINEAR} = "asymmetric"', UP, ("resize_bilinear",)),
    _resize(
        "pytorch_half_pixel", f'{LINEAR} = "pytorch_half_pixel"', (1, 12), ("matmul", "matmul")
    ),
    _resize(
        "cubic",
        'mode = "cubic", coordinate_transformation_mode = "half_pixel"',
        UP,
        ("matmul", "matmul"),
    ),
    _resize(
        "cubic_exclude",
        'mode = "cubic", exclude_outside = 1, cubic_coeff_a = -0.5',
        (5, 9),
        ("matmul",),
    ),
]


def _quantized(name: str, graph: str, ops: tuple[str, ...], **constants: Array) -> Case:
    # One step of the quantizer may flip where float16 rounds the scale: 2^-6 is that step.
    return Case(name, graph, ops, constants, reach=16, roundings=2)


WEIGHT = np.random.default_rng(4).integers(-127, 127, size=(8, 5), dtype=np.int8)
SCALES = f32([2**-6, 2**-7, 2**-5, 2**-6, 2**-8])

QUANT = [
    _quantized(
        "Quantize",
        "(float[2,3,8] x) => (float[2,3,8] y)"
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        ("quantize", "dequantize"),
        s=f32(2**-6),
        z=np.asarray(3, np.int8),
    ),
    _quantized(
        "Quantize_axis",
        "(float[2,3,5] x) => (float[2,3,5] y)"
        "{ q = QuantizeLinear<axis = 2>(x, s, z) y = DequantizeLinear<axis = 2>(q, s, z) }",
        ("quantize", "dequantize"),
        s=SCALES,
        z=np.asarray([0, 1, 128, 255, 7], np.uint8),
    ),
    _quantized(
        "Quantized_weight",
        "(float[2,3,8] x) => (float[2,3,5] y)"
        "{ w = DequantizeLinear<axis = 1>(c, s) m = MatMul(x, w) y = Add(m, b) }",
        ("constexpr_affine_dequantize", "matmul", "add"),
        c=WEIGHT,
        s=SCALES,
        b=normal(5, 5),
    ),
    _quantized(
        "Quantized_conv",
        "(float[1,2,4,4] x) => (float[1,4,3,3] y) {"
        "w = DequantizeLinear<axis = 0>(c, s) b = DequantizeLinear<axis = 0>(d, s)"
        "y = Conv<kernel_shape = [2,2], strides = [1,1], pads = [0,0,0,0],"
        "dilations = [1,1], group = 1>(x, w, b) }",
        ("constexpr_affine_dequantize", "conv"),
        c=WEIGHT.reshape(-1)[:32].reshape(4, 2, 2, 2),
        s=SCALES[:4],
        d=np.asarray([100, -200, 3, 40], np.int32),
    ),
]
