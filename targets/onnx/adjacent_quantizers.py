"""Quantizer and dequantizer side by side in front of linear layers, for OpenVINO.

Where codes are moved between the two, OpenVINO does not see that a linear layer reads codes:
it dequantizes the weight (``FullyConnectedCompressed``) and multiplies floats. Such a movement
goes in front of the quantizer, which commutes with it, as its parameters are per tensor.

``MatMul(DQ(Transpose(Q(x))), W)``  ->  ``MatMul(DQ(Q(Transpose(x))), W)``
"""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.quantizers import stored

__all__ = ["adjacent_quantizers"]

_MOVES = frozenset({"Reshape", "Transpose"})


def adjacent_quantizers(model: ir.Model) -> None:
    """Move every such movement, in place; a value keeps its name where its numbers stay.

    1. Nothing else reads the codes on their way, and a movement has one computed operand.
    2. The quantizer is per tensor.
    3. What dequantizes the codes is read by linear layers with stored weights alone.
    """
    graph, names = model.graph, Names(model.graph)
    for node in list(graph):
        if node.op_type in _MOVES and not node.domain and _applies(node):
            _swap(graph, node, names)


def _applies(node: ir.Node) -> bool:
    codes = _given(node, 0)
    quantizer = codes.producer()
    if quantizer is None or quantizer.op_type != "QuantizeLinear" or not _single(codes):
        return False
    scale = constant(_given(quantizer, 1))
    fixed = all(v is None or constant(v) is not None for v in node.inputs[1:])
    return scale is not None and scale.ndim == 0 and fixed and _multiplied(node.outputs[0])


def _multiplied(codes: ir.Value) -> bool:
    """Whether linear layers read the numbers of the codes, moved once more or not."""
    if not _single(codes):
        return False
    ((reader, _),) = codes.uses()
    if reader.op_type in _MOVES:
        return _multiplied(reader.outputs[0])
    if reader.op_type != "DequantizeLinear" or reader.outputs[0].is_graph_output():
        return False
    uses = reader.outputs[0].uses()
    return bool(uses) and all(
        u.node.op_type == "MatMul" and u.idx == 0 and stored(u.node.inputs[1]) is not None
        for u in uses
    )


def _swap(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    quantizer = _given(node, 0).producer()
    assert quantizer is not None
    source, moved = _given(quantizer, 0), node.outputs[0]
    base = str(moved.name)
    before = ir.Node("", node.op_type, [source, *node.inputs[1:]], node.attributes.values())
    behind = ir.Node(
        "",
        "QuantizeLinear",
        [before.outputs[0], *quantizer.inputs[1:]],
        quantizer.attributes.values(),
    )
    for made, like in ((before, source), (behind, moved)):
        out = made.outputs[0]
        out.shape, out.type = moved.shape, like.type
    before.name = before.outputs[0].name = names.fresh(f"{base}.moved")
    graph.insert_before(node, [before, behind])
    moved.replace_all_uses_with(behind.outputs[0])
    graph.remove([node, quantizer], safe=True)
    behind.name = behind.outputs[0].name = base


def _single(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
