"""Cost figures against sums worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.cost import Cost, node_cost, peak_activation_bytes, total_cost
from edgevit.loading import load
from edgevit.passes.order import canonicalize
from edgevit.shift_codes import encode


def value(name: str, *shape: int, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.val(name, dtype, list(shape))


def weight(name: str, *shape: int, dtype: Any = np.float32) -> ir.Value:
    return ir.val(name, const_value=ir.tensor(np.ones(shape, dtype), name=name))


def node(
    op: str, inputs: Sequence[ir.Value | None], out: ir.Value, **attributes: Any
) -> ir.Node:
    return ir.node(op, inputs, attributes, outputs=[out])


def build(inputs: list[ir.Value], nodes: list[ir.Node], outputs: list[ir.Value]) -> ir.Model:
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": 23}, name="g")
    return ir.Model(graph, ir_version=11)


def test_linear() -> None:
    # 7 rows, 4 -> 5: 7*4*5 products; 20 weights of 4 bytes; reads 28, writes 35 floats.
    found = node_cost(node("MatMul", [value("x", 7, 4), weight("w", 4, 5)], value("y", 7, 5)))
    assert found == Cost(macs=140, params=20, weight_bytes=80, moved_bytes=4 * (28 + 35))


def test_product_of_activations_has_no_parameters() -> None:
    a, b = value("a", 2, 3, 4), value("b", 2, 4, 5)
    found = node_cost(node("MatMul", [a, b], value("y", 2, 3, 5)))
    assert (found.macs, found.params) == (2 * 3 * 4 * 5, 0)


def test_grouped_convolution() -> None:
    # 8 -> 6 channels in 2 groups, 3x3: each of 6*5*5 outputs sums 4*9 products.
    x, w, b = value("x", 1, 8, 7, 7), weight("w", 6, 4, 3, 3), weight("b", 6)
    found = node_cost(node("Conv", [x, w, b], value("y", 1, 6, 5, 5), group=2))
    assert (found.macs, found.params) == (6 * 25 * 36, 6 * 36 + 6)


def test_transposed_convolution() -> None:
    # Each of 8*4*4 inputs is spread over 3 channels of 2x2.
    x, w = value("x", 1, 8, 4, 4), weight("w", 8, 3, 2, 2)
    found = node_cost(node("ConvTranspose", [x, w], value("y", 1, 3, 8, 8), strides=[2, 2]))
    assert found.macs == 128 * 12


def test_attention() -> None:
    # 3 heads, 10 queries of depth 4, 12 keys, values of width 5: 3*10*12*(4+5).
    q, k, v = value("q", 1, 3, 10, 4), value("k", 1, 3, 12, 4), value("v", 1, 3, 12, 5)
    found = node_cost(node("Attention", [q, k, v], value("y", 1, 3, 10, 5), scale=0.5))
    assert found.macs == 3 * 10 * 12 * 9


def test_attention_of_rank_3_with_grouped_heads_and_a_past() -> None:
    # 6 query heads on 2 of keys: 6 heads of 10 queries of depth 4 see 12 + 3 keys, width 5.
    q, k, v = value("q", 1, 10, 24), value("k", 1, 12, 8), value("v", 1, 12, 10)
    inputs = [q, k, v, value("m", 10, 15), value("pk", 1, 2, 3, 4), value("pv", 1, 2, 3, 5)]
    heads = {"q_num_heads": 6, "kv_num_heads": 2}
    found = node_cost(node("Attention", inputs, value("y", 1, 10, 30), **heads))
    assert found.macs == 6 * 10 * 15 * (4 + 5)


def test_element_wise_work_is_not_macs_and_moving_is_no_work() -> None:
    relu = node_cost(node("Relu", [value("x", 2, 3)], value("y", 2, 3)))
    assert (relu.macs, relu.elements, relu.moved_bytes) == (0, 6, 48)
    shape = weight("s", 1, dtype=np.int64)
    reshape = node_cost(node("Reshape", [value("x", 2, 3), shape], value("y", 6)))
    assert (reshape.elements, reshape.params) == (0, 0)


def test_integer_weights_count_where_they_are_weights() -> None:
    w = ir.val("w", const_value=ir.tensor(np.ones((4, 5), np.int8), name="w"))
    scale = ir.val("s", const_value=ir.tensor(np.float32(0.1), name="s"))
    found = node_cost(node("DequantizeLinear", [w, scale], value("y", 4, 5)))
    assert (found.params, found.weight_bytes) == (20, 20)


def test_shared_weights_count_once_in_the_total() -> None:
    x, w = value("x", 4, 4), weight("w", 4, 4)
    first = node("MatMul", [x, w], value("a", 4, 4))
    second = node("MatMul", [first.outputs[0], w], value("y", 4, 4))
    found = total_cost(build([x], [first, second], list(second.outputs)))
    assert (found.macs, found.params, found.weight_bytes) == (128, 16, 64)


def test_unknown_shape_is_an_error() -> None:
    x = ir.val("x", ir.DataType.FLOAT, ["n", 4])
    with pytest.raises(ValueError, match="no static shape"):
        node_cost(node("Relu", [x], value("y", 1, 4)))


def test_peak_counts_the_branch_that_waits() -> None:
    # x(4 bytes) -> a(400) -> b(400), c(40) from a, y = b + c.
    x = value("x", 1)
    a = node("Expand", [x, weight("s", 1, dtype=np.int64)], value("a", 100))
    b = node("Exp", list(a.outputs), value("b", 100))
    c = node("Slice", list(a.outputs), value("c", 10))
    y = node("Concat", [b.outputs[0], c.outputs[0]], value("y", 110), axis=0)
    found = peak_activation_bytes(build([x], [a, b, c, y], list(y.outputs)))
    # While c is made: a, b, c = 840. While y is made: b, c, y = 400 + 40 + 440 = 880.
    assert found == 880


def test_an_unused_output_dies_at_once() -> None:
    x = value("x", 10)
    two = ir.node("Split", [x], num_outputs=2)
    for out, name in zip(two.outputs, "ab", strict=True):
        out.name, out.shape, out.dtype = name, ir.Shape([5]), ir.DataType.FLOAT
    y = node("Relu", [two.outputs[0]], value("y", 5))
    # x + a + b = 80, then a + y = 40.
    assert peak_activation_bytes(build([x], [two, y], list(y.outputs))) == 80


def test_vision_transformer_by_hand() -> None:
    """The fixture: 49 patches of 4x4 and a class token, width 64, 4 blocks, MLP 128."""
    path = Path(__file__).parents[1] / "fixtures" / "models" / "fashion_vit_ts.onnx"
    model = load(path).model
    canonicalize(model)
    tokens, width, hidden, depth, classes = 50, 64, 128, 4, 10
    patches = 49 * 16 * width
    linear = tokens * width * (3 * width + width + 2 * hidden)
    attention = 2 * tokens * tokens * width
    found = total_cost(model)
    assert found.macs == patches + depth * (linear + attention) + width * classes

    norm = 2 * width
    block = width * (4 * width + 2 * hidden) + 4 * width + hidden + width + 2 * norm
    stem = 16 * width + width + width + tokens * width
    assert found.params == stem + depth * block + norm + width * classes + classes


@pytest.mark.parametrize("wide", [False, True])
def test_packed_codes_count_as_the_weights_that_they_mean(wide: bool) -> None:
    packed = encode(np.full((13, 6), 2), 1, wide)
    arrays = [a for a in (packed.codes, packed.signs) if a is not None]
    held = [
        ir.val(f"c{i}", const_value=ir.tensor(a, name=f"c{i}")) for i, a in enumerate(arrays)
    ]
    name = "WideShiftLinear" if wide else "ShiftLinear"
    inputs = [value("x", 4, 13), *held, weight("scale", 6)]
    layer = node(name, inputs, value("y", 4, 6))
    layer.attributes["inputs"] = ir.AttrInt64("inputs", 13)
    found = node_cost(layer)
    assert found.macs == 4 * 13 * 6
    assert found.params == 13 * 6 + 6  # and the scales
    assert found.weight_bytes == 7 * 6 + (2 * 6 if wide else 0) + 4 * 6
