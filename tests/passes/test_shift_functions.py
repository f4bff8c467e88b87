"""Bodies of the shift functions: the same integers as the codec, in two interpreters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgevit.passes.functions import DOMAIN, VERSION, ensure_function
from edgevit.shift_codes import encode, levels

Array = np.ndarray[Any, Any]


def model_of(
    name: str, x: Array, constants: list[Array], out: tuple[int, ...], **attributes: object
) -> onnx.ModelProto:
    """A model of one function call; x is its only input."""
    given = ir.val("x", ir.DataType.FLOAT, list(x.shape))
    held = [
        ir.val(f"c{i}", ir.DataType.from_numpy(a.dtype), a.shape, const_value=ir.tensor(a))
        for i, a in enumerate(constants)
    ]
    attrs = ir.convenience.convert_attributes(attributes)
    y = ir.val("y", ir.DataType.FLOAT, list(out))
    node = ir.Node(DOMAIN, name, [given, *held], attrs, outputs=[y])
    imports = {"": 23, DOMAIN: VERSION}
    graph = ir.Graph(
        [given], [y], nodes=[node], initializers=held, opset_imports=imports, name="test"
    )
    model = ir.Model(graph, ir_version=10)
    ensure_function(model, name)
    return ir.to_proto(model)


def answers(proto: onnx.ModelProto, x: Array) -> tuple[Array, Array]:
    """Of the reference interpreter and of ONNX Runtime."""
    onnx.checker.check_model(proto, full_check=True)
    plain = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    options = ort.SessionOptions()
    # As our runtime does: by default ONNX Runtime would round float activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    content = proto.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(plain), np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("inputs", [6, 13])
def test_shift_linear_is_the_integer_product(terms: int, wide: bool, inputs: int) -> None:
    rng = np.random.default_rng(terms)
    q = rng.choice(levels(terms, wide), (inputs, 5))
    packed = encode(q, terms, wide)
    scale = (2.0 ** rng.integers(-9, 3, 5)).astype(np.float32)
    x = rng.integers(-127, 128, (2, 3, inputs)).astype(np.float32)
    signs = [] if packed.signs is None else [packed.signs]
    proto = model_of(
        "WideShiftLinear" if wide else "ShiftLinear",
        x, [packed.codes, *signs, scale], (2, 3, 5), inputs=inputs,
    )  # fmt: skip
    # Scales are powers of two and sums stay below 2^24: float32 is exact.
    sums = x.astype(np.int64) @ q.astype(np.int64)
    assert np.abs(x).max() * np.abs(q).sum(axis=0).max() < 2**24
    for found in answers(proto, x):
        assert np.array_equal(found, sums * scale.astype(np.float64))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("group", [1, 2, 6])
def test_shift_conv_is_the_integer_convolution(wide: bool, group: int) -> None:
    rng = np.random.default_rng(group)
    shape = (6, 6 // group, 3, 3)
    q = rng.choice(levels(2, wide), shape)
    packed = encode(q.reshape(6, -1).T, 2, wide)
    scale = (2.0 ** rng.integers(-6, 2, 6)).astype(np.float32)
    bias = rng.integers(-4, 5, 6).astype(np.float32)
    x = rng.integers(-3, 4, (1, 6, 5, 5)).astype(np.float32)
    signs = [] if packed.signs is None else [packed.signs]
    proto = model_of(
        "WideShiftConv" if wide else "ShiftConv",
        x, [packed.codes, *signs, scale, bias], (1, 6, 5, 5), inputs=packed.inputs,
        weight_shape=shape, kernel_shape=[3, 3], strides=[1, 1], dilations=[1, 1],
        pads=[1, 1, 1, 1], group=group,
    )  # fmt: skip
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.int64)
    per = 6 // group
    sums = np.zeros((1, 6, 5, 5), np.int64)
    for m in range(6):
        first = m // per * per
        for dy in range(3):
            for dx in range(3):
                window = padded[0, first : first + per, dy : dy + 5, dx : dx + 5]
                sums[0, m] += (window * q[m, :, dy, dx, None, None]).sum(axis=0)
    exact = sums * scale.astype(np.float64)[:, None, None] + bias[:, None, None]
    for found in answers(proto, x):
        assert np.array_equal(found, exact)


def test_onnx_runtime_makes_an_integer_kernel_of_it(tmp_path: Any) -> None:
    """Codes are folded when the file is loaded, and the product runs on integers."""
    rng = np.random.default_rng(5)
    q = rng.choice(levels(2), (16, 8))
    packed = encode(q, 2)
    x = rng.normal(size=(4, 16)).astype(np.float32)
    scale = np.full(8, 2.0**-6, np.float32)
    proto = model_of("ShiftLinear", x, [packed.codes, scale], (4, 8), inputs=16)
    step = onnx.numpy_helper.from_array(np.float32(0.03), "step")
    zero = onnx.numpy_helper.from_array(np.uint8(128), "zero")
    proto.graph.initializer.extend([step, zero])
    helper = onnx.helper.make_node
    quantizers = [
        helper("QuantizeLinear", ["x", "step", "zero"], ["xq"]),
        helper("DequantizeLinear", ["xq", "step", "zero"], ["xd"]),
    ]
    (layer,) = proto.graph.node
    layer.input[0] = "xd"
    nodes = [*quantizers, layer]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert found == ["QuantizeLinear", "MatMulIntegerToFloat"]
    codes = np.clip(np.rint(x / np.float32(0.03)) + 128, 0, 255).astype(np.int64) - 128
    exact = (codes @ q.astype(np.int64)) * (np.float64(np.float32(0.03)) * 2.0**-6)
    made = session.run(None, {"x": x})[0]
    # Two roundings of float32: the scales' product, and its product with the sum.
    assert np.all(np.abs(made - exact) <= 2 * 2.0**-24 * np.abs(exact))
