"""Lower a graph in the neural engine's layout (docs/adr/0008-ane-layout.md).

One walk along the graph. Reshape and Transpose become views; each other node works in the
layout that ``choose`` gives it and is written by the same table as in the plain layout,
except linear layers, products and attention.
"""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml import op_ane
from edgevit.targets.coreml.arranged import Arranged
from edgevit.targets.coreml.choose import VIEWS, flexible, is_linear, viewed, working_layout
from edgevit.targets.coreml.op_linear import FusedLinear, fused_linear
from edgevit.targets.coreml.table import RULES, key
from edgevit.targets.views import identity

__all__ = ["Walk"]


class Walk:
    """Lowers the nodes of one graph, in order."""

    def __init__(self, graph: ir.Graph) -> None:
        self._fused: dict[ir.Node, FusedLinear] = {}
        self._skipped: set[ir.Node] = set()
        for node in graph:
            linear = fused_linear(node, is_linear)
            if linear is not None:
                self._fused[linear.add] = linear
                self._skipped.add(linear.product)
            if _stored_weight(node):
                self._skipped.add(node)

    def lower(self, ctx: Arranged, node: ir.Node) -> None:
        """Add what computes the node's outputs."""
        if node in self._skipped:
            return
        linear = self._fused.get(node)
        if linear is not None:
            op_ane.linear(ctx, linear.product, node.outputs[0], node.inputs[1])
        elif node.op_type in VIEWS and constant(node.inputs[0]) is None:
            _view(ctx, node)
        elif is_linear(node):
            op_ane.linear(ctx, node, node.outputs[0], None)
        elif node.op_type == "Attention":
            op_ane.attention(ctx, node)
        elif node.op_type == "MatMul" and _matrices(node):
            op_ane.product(ctx, node)
        else:
            _tabled(ctx, node)


def _tabled(ctx: Arranged, node: ir.Node) -> None:
    alone = flexible(node)
    if alone is None:
        RULES[key(node)].lower(ctx, node)
        return
    layout = working_layout(ctx, node, alone)
    with ctx.working_in(layout, shape_of(node.outputs[0])):
        RULES[key(node)].lower(ctx, node)


def _view(ctx: Arranged, node: ir.Node) -> None:
    """Write down where the result lies; where it cannot be said, move the operand first."""
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    source = ctx.held(x)
    view = viewed(node, source.view)
    if view is None:
        shape = shape_of(out) or (1,)
        ctx.alias(out, source.with_var(ctx.whole(x)), identity(shape))
        return
    ctx.alias(out, source, view)


def _matrices(node: ir.Node) -> bool:
    return all(v is not None and len(shape_of(v)) >= 2 for v in node.inputs)


def _stored_weight(node: ir.Node) -> bool:
    """A dequantized constant that only linear layers read: they store it themselves."""
    if node.op_type != "DequantizeLinear" or constant(node.inputs[0]) is None:
        return False
    uses = list(node.outputs[0].uses())
    return bool(uses) and all(u.idx == 1 and is_linear(u.node) for u in uses)
