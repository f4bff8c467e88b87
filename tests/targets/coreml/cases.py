"""Every row of the operator tables in at least one small graph."""

from __future__ import annotations

import numpy as np

from tests.targets.coreml.harness import Case, f32, half, normal

X = "(float[2,3,4] x) => (float[2,3,4] y)"
IMAGE = "(float[1,4,6,6] x)"


def _activation(node: str, *ops: str, roundings: float = 1.0) -> Case:
    name = node.split("(")[0].split("<")[0].strip().replace("ai.edgevit.", "")
    extra = "_tanh" if '"tanh"' in node else ""
    return Case(f"{name}{extra}", f"{X} {{ y = {node} }}", ops, roundings=roundings)


ACTIVATIONS = [
    _activation("Relu(x)", "relu"),
    _activation("Sigmoid(x)", "sigmoid"),
    _activation("Tanh(x)", "tanh"),
    _activation("Softplus(x)", "softplus"),
    _activation("Erf(x)", "erf"),
    _activation("ai.edgevit.Silu(x)", "silu"),
    _activation("LeakyRelu<alpha = 0.1>(x)", "leaky_relu"),
    _activation("Elu<alpha = 0.7>(x)", "elu"),
    _activation('Gelu<approximate = "none">(x)', "gelu"),
    _activation('Gelu<approximate = "tanh">(x)', "gelu"),
    _activation("HardSigmoid<alpha = 0.2, beta = 0.5>(x)", "sigmoid_hard"),
    _activation("HardSwish(x)", "sigmoid_hard", "mul", roundings=2),
    _activation("Mish(x)", "softplus", "tanh", "mul", roundings=3),
    _activation("Softmax<axis = 1>(x)", "softmax"),
    Case(
        "Clip",
        f"{X} {{ y = Clip(x, lo, hi) }}",
        ("clip",),
        {"lo": f32(-0.5), "hi": f32(0.75)},
    ),
    Case(
        "Clip_relu6",
        f"{X} {{ y = Clip(x, lo, hi) }}",
        ("relu6",),
        {"lo": f32(0), "hi": f32(6)},
    ),
    Case(
        "Clip_below",
        f"{X} {{ y = Clip(x, lo, hi) }}",
        ("maximum",),
        {"lo": f32(-0.5), "hi": f32(np.inf)},
    ),
    Case(
        "Clip_above",
        f"{X} {{ y = Clip(x, lo, hi) }}",
        ("minimum",),
        {"lo": f32(-np.inf), "hi": f32(0.25)},
    ),
    Case(
        "Clip_point",
        f"{X} {{ y = Clip(x, lo, hi) }}",
        ("maximum", "minimum"),
        {"lo": f32(0.5), "hi": f32(0.5)},
    ),
    Case(
        "PRelu_channel",
        f"{IMAGE} => (float[1,4,6,6] y) {{ y = PRelu(x, s) }}",
        ("prelu",),
        {"s": normal(1, 4, 1, 1)},
    ),
    Case("PRelu_scalar", f"{X} {{ y = PRelu(x, s) }}", ("leaky_relu",), {"s": half([0.3])}),
    Case(
        "PRelu_full",
        f"{X} {{ y = PRelu(x, s) }}",
        ("minimum", "mul", "relu", "add"),
        {"s": normal(2, 3, 4)},
        roundings=2,
    ),
]

LINEAR = [
    Case(
        "MatMul_constant",
        "(float[2,3,8] x) => (float[2,3,5] y) { y = MatMul(x, w) }",
        ("linear",),
        {"w": normal(3, 8, 5)},
        reach=8,
    ),
    Case(
        "MatMul_bias",
        "(float[2,3,8] x) => (float[2,3,5] y) { m = MatMul(x, w) y = Add(m, b) }",
        ("linear",),
        {"w": normal(3, 8, 5), "b": normal(4, 5)},
        reach=9,
    ),
    Case(
        "MatMul_bias_of_shared_product",
        "(float[2,8] x) => (float[2,5] y, float[2,5] z)"
        "{ m = MatMul(x, w) y = Add(m, b) z = Relu(m) }",
        ("linear", "add", "relu"),
        {"w": normal(3, 8, 5), "b": normal(4, 5)},
        reach=9,
        roundings=2,
    ),
    Case(
        "MatMul_rank4",
        "(float[1,2,3,8] x) => (float[1,2,3,5] y) { y = MatMul(x, w) }",
        ("matmul",),
        {"w": normal(3, 8, 5)},
        reach=8,
    ),
    Case(
        "MatMul_dynamic",
        "(float[2,3,8] x, float[8,5] z) => (float[2,3,5] y) { y = MatMul(x, z) }",
        ("matmul",),
        reach=8,
    ),
    Case(
        "MatMul_broadcast",
        "(float[2,1,3,8] x, float[4,8,5] z) => (float[2,4,3,5] y) { y = MatMul(x, z) }",
        ("matmul",),
        reach=8,
    ),
    Case(
        "MatMul_vectors",
        "(float[8] x, float[8] z) => (float y) { y = MatMul(x, z) }",
        ("reshape", "reshape", "matmul", "reshape"),
        reach=8,
    ),
    Case(
        "MatMul_vector_right",
        "(float[2,3,8] x, float[8] z) => (float[2,3] y) { y = MatMul(x, z) }",
        ("reshape", "matmul", "reshape"),
        reach=8,
    ),
    Case(
        "Attention",
        "(float[1,2,5,4] q, float[1,2,6,4] k, float[1,2,6,3] v) => (float[1,2,5,3] y)"
        "{ y = Attention<scale = 0.5>(q, k, v) }",
        ("mul", "matmul", "softmax", "matmul"),
        reach=24,
        roundings=6,
    ),
    Case(
        "Attention_prompts",
        "(float[1,2,5,4] q) => (float[1,2,5,3] y) { y = Attention<scale = 0.5>(q, k, v) }",
        ("mul", "matmul", "softmax", "matmul"),
        {"k": normal(11, 1, 2, 6, 4), "v": normal(12, 1, 2, 6, 3)},
        reach=24,
        roundings=6,
    ),
    Case(
        "Attention_mask",
        "(float[1,2,5,4] q, float[1,2,6,4] k, float[1,2,6,3] v) => (float[1,2,5,3] y)"
        "{ y = Attention<scale = 0.5>(q, k, v, mask) }",
        ("mul", "matmul", "add", "softmax", "matmul"),
        {"mask": f32([[0, 0, 0, -1e38, 0, 0]]) * np.ones((5, 1), np.float32)},
        reach=24,
        roundings=6,
    ),
    Case(
        "Attention_masked_row",
        "(float[1,2,5,4] q, float[1,2,6,4] k, float[1,2,6,3] v) => (float[1,2,5,3] y)"
        "{ y = Attention<scale = 0.5>(q, k, v, mask) }",
        ("mul", "matmul", "add", "softmax", "matmul"),
        {"mask": f32([[0, 0, 0, -1e38, 0, 0]] * 4 + [[-1e38] * 6])},
        reach=24,
        roundings=6,
    ),
]


def _conv(name: str, attributes: str, out: str, weight: tuple[int, ...], **more: int) -> Case:
    return Case(
        name,
        f"{IMAGE} => (float{out} y) {{ y = Conv<{attributes}>(x, w, b) }}",
        ("conv",),
        {"w": normal(5, *weight), "b": normal(6, weight[0])},
        reach=int(np.prod(weight[1:])) + 1,
    )


PLAIN = "strides = [1,1], dilations = [1,1], group = 1, pads = [0,0,0,0]"

CONV = [
    _conv("Conv", f"kernel_shape = [3,3], {PLAIN}", "[1,5,4,4]", (5, 4, 3, 3)),
    _conv(
        "Conv_pads",
        "kernel_shape = [3,2], strides = [2,1], dilations = [1,1], group = 1, "
        "pads = [1,0,0,2]",
        "[1,5,3,7]",
        (5, 4, 3, 2),
    ),
    _conv(
        "Conv_group",
        "kernel_shape = [3,3], strides = [1,1], dilations = [1,1], group = 2, "
        "pads = [1,1,1,1]",
        "[1,6,6,6]",
        (6, 2, 3, 3),
    ),
    _conv(
        "Conv_depthwise",
        "kernel_shape = [3,3], strides = [2,2], dilations = [1,1], group = 4, "
        "pads = [1,1,1,1]",
        "[1,4,3,3]",
        (4, 1, 3, 3),
    ),
    _conv(
        "Conv_dilated",
        "kernel_shape = [2,2], strides = [1,1], dilations = [2,3], group = 1, "
        "pads = [0,0,0,0]",
        "[1,5,4,3]",
        (5, 4, 2, 2),
    ),
    Case(
        "Conv_no_bias",
        f"{IMAGE} => (float[1,5,4,4] y) {{ y = Conv<kernel_shape = [3,3], {PLAIN}>(x, w) }}",
        ("conv",),
        {"w": normal(5, 5, 4, 3, 3)},
        reach=36,
    ),
    Case(
        "ConvTranspose",
        f"{IMAGE} => (float[1,3,13,13] y) {{ y = ConvTranspose<kernel_shape = [3,3], "
        "strides = [2,2], dilations = [1,1], group = 1, pads = [0,0,0,0], "
        "output_padding = [0,0]>(x, w, b) }",
        ("conv_transpose",),
        {"w": normal(7, 4, 3, 3, 3), "b": normal(8, 3)},
        reach=37,
    ),
    Case(
        "ConvTranspose_output_padding",
        f"{IMAGE} => (float[1,4,12,12] y) {{ y = ConvTranspose<kernel_shape = [3,3], "
        "strides = [2,2], dilations = [1,1], group = 2, pads = [1,1,1,1], "
        "output_padding = [1,1]>(x, w) }",
        ("conv_transpose",),
        {"w": normal(7, 4, 2, 3, 3)},
        reach=18,
    ),
    Case(
        "ConvTranspose_extended",
        f"{IMAGE} => (float[1,3,13,12] y) {{ y = ConvTranspose<kernel_shape = [2,2], "
        "strides = [2,2], dilations = [1,1], group = 1, pads = [0,0,0,0], "
        "output_padding = [1,0]>(x, w) }",
        ("pad", "conv_transpose"),
        {"w": normal(7, 4, 3, 2, 2)},
        reach=16,
    ),
    Case(
        "MaxPool",
        f"{IMAGE} => (float[1,4,3,3] y) {{ y = MaxPool<kernel_shape = [3,3], "
        "strides = [2,2], pads = [1,1,0,0]>(x) }",
        ("max_pool",),
    ),
    Case(
        "AveragePool",
        f"{IMAGE} => (float[1,4,3,3] y) {{ y = AveragePool<kernel_shape = [3,3], "
        "strides = [2,2], pads = [1,1,0,0], count_include_pad = 0>(x) }",
        ("avg_pool",),
        reach=9,
    ),
    Case(
        "AveragePool_counted",
        f"{IMAGE} => (float[1,4,6,6] y) {{ y = AveragePool<kernel_shape = [3,3], "
        "strides = [1,1], pads = [1,1,1,1], count_include_pad = 1>(x) }",
        ("avg_pool",),
        reach=9,
    ),
]

NORM = [
    Case(
        "LayerNormalization",
        "(float[2,3,8] x) => (float[2,3,8] y)"
        "{ y = LayerNormalization<axis = 2, epsilon = 1e-5>(x, s, b) }",
        ("layer_norm",),
        {"s": normal(9, 8), "b": normal(10, 8)},
        reach=32,
    ),
    Case(
        "InstanceNormalization",
        f"{IMAGE} => (float[1,4,6,6] y)"
        "{ y = InstanceNormalization<epsilon = 1e-5>(x, s, b) }",
        ("instance_norm",),
        {"s": normal(9, 4), "b": normal(10, 4)},
        reach=72,
    ),
    Case(
        "GroupNormalization",
        f"{IMAGE} => (float[1,4,6,6] y)"
        "{ y = GroupNormalization<num_groups = 2, epsilon = 1e-5>(x, s, b) }",
        ("reshape", "layer_norm", "reshape", "mul", "add"),
        {"s": normal(9, 4), "b": normal(10, 4)},
        reach=144,
        roundings=3,
    ),
    Case(
        "RMSNormalization",
        "(float[2,3,8] x) => (float[2,3,8] y)"
        "{ y = RMSNormalization<axis = 2, epsilon = 1e-5>(x, s) }",
        ("reshape", "l2_norm", "reshape", "mul"),
        {"s": normal(9, 8)},
        reach=16,
        roundings=3,
    ),
]
