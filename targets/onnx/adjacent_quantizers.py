"""Quantizer and dequantizer side by side in front of linear layers, for OpenVINO.

Where codes are moved between the two, OpenVINO does not see that a linear layer reads codes:
it dequantizes the weight (``FullyConnectedCompressed``) and multiplies floats. Such a movement
goes in front of the quantizer, which commutes with it, as its parameters are per tensor.

``MatMul(DQ(Transpose(Q(x))), W)``  ->  ``MatMul(DQ(Q(Transpose(x))), W)``
"""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.quantizers import quantizer_of, stored
from edgevit.targets.attributes import data_of
from edgevit.targets.neighbors import only_consumer

__all__ = ["adjacent_quantizers"]

_MOVES = frozenset({"Reshape", "Transpose"})


def adjacent_quantizers(model: ir.Model) -> None:
    """Move every such movement, in place; a value keeps its name where its numbers stay.

    1. Nothing else reads the codes on their way, and a movement has one computed operand.
    2. The quantizer is per tensor.
    3. What dequantizes the codes is read by linear layers with stored weights alone.
    """
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type in _MOVES and not node.domain:
            quantizer = _quantizer(node)
            if quantizer is not None and _multiplied(node.outputs[0]):
                _swap(model.graph, quantizer, node, names)


def _quantizer(move: ir.Node) -> ir.Node | None:
    """What makes the codes that are moved, in cases 1 and 2."""
    codes = data_of(move)
    made = codes.producer()
    if made is None or made.op_type != "QuantizeLinear" or only_consumer(codes) is None:
        return None
    found = quantizer_of(made)
    fixed = all(v is None or constant(v) is not None for v in move.inputs[1:])
    return made if found is not None and found.axis is None and fixed else None


def _multiplied(codes: ir.Value) -> bool:
    """Whether linear layers alone read the numbers of codes, moved once more or not."""
    reader = only_consumer(codes)
    if reader is None:
        return False
    out = reader.outputs[0]
    if reader.op_type in _MOVES:
        return _multiplied(out)
    if reader.op_type != "DequantizeLinear" or out.is_graph_output() or not out.uses():
        return False
    return all(
        u.node.op_type == "MatMul" and u.idx == 0 and stored(u.node.inputs[1]) is not None
        for u in out.uses()
    )


def _swap(graph: ir.Graph, quantizer: ir.Node, move: ir.Node, names: Names) -> None:
    source, moved = data_of(quantizer), move.outputs[0]
    base = str(moved.name)
    before = ir.Node("", move.op_type, [source, *move.inputs[1:]], move.attributes.values())
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
    graph.insert_before(move, [before, behind])
    moved.replace_all_uses_with(behind.outputs[0])
    graph.remove([move, quantizer], safe=True)
    behind.name = behind.outputs[0].name = base
