"""Linear layers in the forms that ONNX Runtime runs as one integer kernel.

**Static.** ONNX Runtime makes a float ``Gemm`` of ``MatMul`` and ``Add`` of a vector before it
looks for quantizers, and then dequantizes the weight in every run. A difference keeps the
two apart: the product becomes ``MatMulIntegerToFloat``, the bias stays float, to the bit.

``MatMul(DQ(x), DQ(w)) + b``  ->  ``MatMul(DQ(x), DQ(w)) - (-b)``

**Dynamic.** The ONNX operators for activations that are quantized as the model runs, the whole
tensor with one scale, become ``DynamicQuantizeMatMul`` with its bias:

``MatMul(x, DQ(w)) + b``  ->  ``Cast(MatMulInteger(q, w, z)) * (s s_w) + b``, with
``q, s, z = DynamicQuantizeLinear(x)``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.quantizers import dequantizer
from edgevit.targets.onnx.tiled_conv import per_channel, tile_convolutions

__all__ = ["dynamic_products", "fuses", "integer_products"]

Array = np.ndarray[Any, Any]


def integer_products(model: ir.Model) -> None:
    """Keep products of codes apart from their biases, in place; convolutions that tile too.

    1. Activations and the constant weight are dequantized.
    2. A convolution whose result only a quantizer reads stays: it is ``QLinearConv``.
    """
    tile_convolutions(model, lambda n: _on_codes(n) and not fuses(n.outputs[0]))
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type == "MatMul" and not node.domain and _on_codes(node):
            for use in list(node.outputs[0].uses()):
                _subtract(model.graph, names, use.node, 1 - use.idx)


def _on_codes(node: ir.Node) -> bool:
    """Case 1."""
    return (
        dequantizer(node.inputs[0]) is not None
        and per_channel(node, 0 if node.op_type == "Conv" else 1) is not None
    )


def fuses(value: ir.Value) -> bool:
    """Whether ONNX Runtime takes the only reader into ``QLinearConv``.

    A quantizer, or a ReLU in front of a quantizer whose lowest code is zero.
    """
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value.is_graph_output():
        return False
    (reader,) = readers
    if reader.op_type == "Relu":
        behind = [use.node for use in reader.outputs[0].uses()]
        clamped = reader.outputs[0].is_graph_output() or len(behind) != 1
        return not clamped and behind[0].op_type == "QuantizeLinear" and _clamps(behind[0])
    return reader.op_type == "QuantizeLinear"


def _clamps(quantizer: ir.Node) -> bool:
    """Whether the lowest code stands for zero."""
    zero = constant(quantizer.inputs[2]) if len(quantizer.inputs) > 2 else None
    return zero is not None and bool(np.all(zero == np.iinfo(zero.dtype).min))


def _subtract(graph: ir.Graph, names: Names, add: ir.Node, index: int) -> None:
    """``y + b`` becomes ``y - (-b)``, if ``b`` is constant; input ``index`` of ``add``."""
    if add.op_type != "Add" or add.domain:
        return
    bias = constant(add.inputs[index])
    if bias is None:
        return
    old = add.outputs[0]
    negative = _constant(graph, names.fresh(f"{old.name}.negative"), -bias)
    made = ir.node("Sub", [add.inputs[1 - index], negative], name=add.name)
    out = made.outputs[0]
    out.shape, out.type = old.shape, old.type
    graph.insert_before(add, [made])
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    graph.remove(add, safe=True)
    out.name = old.name


def dynamic_products(model: ir.Model) -> None:
    """Quantize what layers with stored weights read, as the model runs; in place.

    1. The weight is stored in 8 bits, symmetrically, with scales of output channels or one.
    2. The activation is float, and its own: no quantizer has rounded it.
    """
    tile_convolutions(model, lambda n: dequantizer(n.inputs[0]) is None)
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type != "MatMul" or node.domain or dequantizer(node.inputs[0]) is not None:
            continue
        if per_channel(node, 1) is not None:
            _quantize_input(model.graph, names, node)


def _quantize_input(graph: ir.Graph, names: Names, node: ir.Node) -> None:
    """The operators of the second equation, in front of ``node``, which they replace."""
    x, weight = node.inputs
    maker = None if weight is None else weight.producer()
    assert x is not None
    assert maker is not None
    out = node.outputs[0]
    rounded = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    codes, scale, zero = rounded.outputs
    total = ir.node("MatMulInteger", [codes, maker.inputs[0], zero])
    wide = ir.node("Cast", [total.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    scales = ir.node("Mul", [scale, maker.inputs[1]])
    result = ir.node("Mul", [wide.outputs[0], scales.outputs[0]])
    made = [rounded, total, wide, scales, result]
    held = maker.inputs[1].shape if maker.inputs[1] is not None else None
    about = [
        *((codes, "UINT8", x.shape), (scale, "FLOAT", ir.Shape([]))),
        *((zero, "UINT8", ir.Shape([])), (total.outputs[0], "INT32", out.shape)),
        *((wide.outputs[0], "FLOAT", out.shape), (scales.outputs[0], "FLOAT", held)),
        (result.outputs[0], "FLOAT", out.shape),
    ]
    for value, dtype, shape in about:
        maker_type = str(value.producer().op_type).lower()  # type: ignore[union-attr]
        value.name = names.fresh(f"{out.name}.{maker_type}")
        value.type, value.shape = ir.TensorType(ir.DataType[dtype]), shape
    for one in made:
        one.name = one.outputs[0].name
    graph.insert_before(node, made)
    base = out.name
    out.replace_all_uses_with(result.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    result.outputs[0].name = base


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    dtype = ir.DataType.from_numpy(array.dtype)
    value = ir.val(name, dtype, list(array.shape), const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
