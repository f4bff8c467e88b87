"""What the canonical graph needs before it is grouped: dequantizers of one kind of reader."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import Names
from edgevit.targets.litert.quantized import takes_codes

__all__ = ["separated"]


def separated(model: ir.Model) -> ir.Model:
    """A model in which each DequantizeLinear has readers of codes only, or of numbers only.

    Integer operators take the codes as they are; for the others the numbers are computed.
    The model itself if it has none that serve both.
    """
    if not any(_mixed(node) for node in model.graph):
        return model
    made = model.clone()
    names = Names(made.graph)
    for node in list(made.graph):
        if _mixed(node):
            _separate(made.graph, node, names)
    return made


def _mixed(node: ir.Node) -> bool:
    if node.domain or node.op_type != "DequantizeLinear":
        return False
    out = node.outputs[0]
    kinds = {takes_codes(use.node, use.idx) for use in out.uses()}
    return len(kinds) > 1 or (kinds == {True} and out.is_graph_output())


def _separate(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    """Give the readers of codes a dequantizer of their own."""
    out = node.outputs[0]
    twin = ir.node("DequantizeLinear", list(node.inputs), dict(node.attributes))
    copy = twin.outputs[0]
    copy.name, copy.shape = names.fresh(f"{out.name}.codes"), out.shape
    copy.type = out.type
    graph.insert_after(node, twin)
    for use in tuple(out.uses()):
        if takes_codes(use.node, use.idx):
            use.node.replace_input_with(use.idx, copy)
