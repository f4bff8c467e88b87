"""The rest of the operator tables: indices, resizing, quantization."""

from __future__ import annotations

import numpy as np

from tests.targets.coreml.harness import Array, Case, f32, i64, ints, normal

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
