"""Convolutions of codes with a float result, for ONNX Runtime.

ONNX Runtime turns a quantized convolution into an integer kernel only if its result is
quantized too; where it is not, it multiplies floats. ``ConvInteger`` sums products of codes in
int32 and leaves the scale to us, so nothing in front of an activation has to be rounded.

``Conv(DQ(x), DQ(w), b)`` -> ``Add(Mul(Cast(ConvInteger(x, w, x_zero)), x_scale w_scale), b)``

Its weights are uint8 around 128: the kernel multiplies with the weight on the left, and has
fast, exact code for unsigned ones only (int8 was 7.5 times slower on a machine with VNNI).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.targets.onnx.integer_linear import fuses
from edgevit.targets.onnx.unsigned import MIDDLE, shifted

__all__ = ["integer_convolutions"]

Array = np.ndarray[Any, Any]


def integer_convolutions(model: ir.Model) -> None:
    """Rewrite every quantized convolution of one group whose result stays float, in place.

    1. Both operands are dequantized, the weight symmetrically, in 8 bits.
    2. One group: ``ConvInteger`` of ONNX Runtime runs groups one by one.
    3. The result is read by something else than a quantizer (else ``QLinearConv`` fuses); a
       ReLU in front of a quantizer whose lowest code is zero is the quantizer's own clamp.
    """
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and _applies(node):
            _rewrite(model.graph, node, names)


def _applies(node: ir.Node) -> bool:
    makers = [v.producer() if v is not None else None for v in node.inputs[:2]]
    if any(m is None or m.op_type != "DequantizeLinear" for m in makers):
        return False
    group = node.attributes.get_int("group", 1)
    return group == 1 and not fuses(node.outputs[0]) and _eight_bits(makers[1])


def _eight_bits(maker: ir.Node | None) -> bool:
    codes = None if maker is None else maker.inputs[0]
    return codes is not None and codes.dtype is ir.DataType.INT8


def _rewrite(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    x, w = (_required(v).producer() for v in node.inputs[:2])
    assert x is not None
    assert w is not None
    out = node.outputs[0]
    base, shape = str(out.name), out.shape
    kept = {k: v for k, v in node.attributes.items() if k != "group"}
    middle = _constant(graph, names.fresh(f"{base}.middle"), np.asarray(MIDDLE, np.uint8))
    weight = shifted(graph, _required(w.inputs[0]), names)
    codes = [_required(x.inputs[0]), weight, _required(x.inputs[2]), middle]
    total = ir.Node("", "ConvInteger", codes, list(kept.values()))
    as_float = ir.node("Cast", [total.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    scale = _scale(constant(x.inputs[1]), constant(w.inputs[1]))
    factor = _constant(graph, names.fresh(f"{base}.scale"), scale)
    nodes = [total, as_float, ir.node("Mul", [as_float.outputs[0], factor])]
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        spread = _constant(graph, names.fresh(f"{base}.bias"), bias.reshape(1, -1, 1, 1))
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], spread]))
    for made, kind in zip(nodes, ("INT32", *["FLOAT"] * 3), strict=False):
        value = made.outputs[0]
        value.shape, value.type = shape, ir.TensorType(ir.DataType[kind])
        value.name = made.name = names.fresh(f"{base}.{made.op_type.lower()}")
    graph.insert_before(node, nodes)
    out.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    nodes[-1].outputs[0].name = base


def _scale(x: Array | None, w: Array | None) -> Array:
    assert x is not None
    assert w is not None
    product = np.float64(x.reshape(-1)[0]) * w.astype(np.float64)
    return product.astype(np.float32).reshape(1, -1, 1, 1)


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    kind = ir.DataType.from_numpy(array.dtype)
    tensor = ir.tensor(array, name=name)
    value = ir.val(name, kind, list(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _required(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
