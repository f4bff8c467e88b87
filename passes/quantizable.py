"""What can be quantized: layers with constant weights, and where their result ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.passes.facts import attr, operand, single_use

__all__ = [
    "MOVES",
    "NARROWED",
    "Quantizable",
    "dequantized",
    "drop_unread",
    "narrows",
    "quantizable",
    "stored",
]

# What moves elements: quantizers of equal parameters may stand on either side.
MOVES = frozenset({"Expand", "Reshape", "Slice", "Split", "Tile", "Transpose"})

# Ends the name of what a quantizer of fewer bits than its dtype has clipped.
NARROWED = ".clipped"

# Activations that integer kernels apply while they clamp their result.
_CLAMPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Quantizable:
    """A ``Conv``, ``ConvTranspose`` or ``MatMul`` whose second operand is constant.

    Attributes:
        node: The operator.
        weight: The constant: an initializer, or the ``DequantizeLinear`` result of one.
        ready: Whether the weight is codes already.
        result: What an integer kernel would write: bias and clamping activation included.
    """

    node: ir.Node
    weight: ir.Value
    ready: bool
    result: ir.Value

    @property
    def x(self) -> ir.Value:
        """What the layer reads."""
        return operand(self.node, 0)

    @property
    def key(self) -> str:
        """Name of the node's first output: identifies the layer in edits."""
        return str(self.node.outputs[0].name)

    @property
    def channel_axis(self) -> int:
        """Axis of the weight's output channels."""
        return {"Conv": 0, "ConvTranspose": 1}.get(self.node.op_type, self.rank - 1)

    @property
    def contracted_axis(self) -> int:
        """Axis of the weight's input channels."""
        return {"Conv": 1, "ConvTranspose": 0}.get(self.node.op_type, self.rank - 2)

    @property
    def rank(self) -> int:
        """Of the weight."""
        return len(shape_of(self.weight))

    @property
    def grouped(self) -> bool:
        """Whether it is a convolution of several groups."""
        return int(attr(self.node, "group", 1)) > 1


def stored(value: ir.Value) -> bool:
    """Whether a value is the ``DequantizeLinear`` of constant codes."""
    node = value.producer()
    return (
        node is not None
        and node.op_type == "DequantizeLinear"
        and constant(node.inputs[0]) is not None
    )


def narrows(node: ir.Node) -> bool:
    """Whether it is the ``Clip`` of a quantizer of fewer bits than its dtype."""
    return node.op_type == "Clip" and str(node.outputs[0].name).endswith(NARROWED)


def dequantized(value: ir.Value) -> bool:
    """Whether a value's elements are numbers of codes, wherever they were moved to."""
    at, node = value, value.producer()
    while node is not None and node.op_type in MOVES and node.inputs[0] is not None:
        at = node.inputs[0]
        node = at.producer()
    return node is not None and node.op_type == "DequantizeLinear" and not stored(at)


def drop_unread(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a weight that nothing reads: its constants, and what dequantized them."""
    if value.uses() or value.is_graph_output():
        return
    graph.initializers.pop(str(value.name), None)
    maker = value.producer()
    if maker is not None and stored(value):
        read = [v for v in maker.inputs if v is not None]
        graph.remove(maker, safe=True)
        for one in read:
            drop_unread(graph, one)


def quantizable(model: ir.Model) -> Iterator[Quantizable]:
    """Every layer with a constant weight of two axes and more, in topological order."""
    for node in model.graph:
        if node.domain != "" or node.op_type not in ("Conv", "ConvTranspose", "MatMul"):
            continue
        weight = operand(node, 1)
        ready = stored(weight)
        if (constant(weight) is None and not ready) or len(shape_of(weight)) < 2:
            continue
        yield Quantizable(node, weight, ready, _result(node))


def _result(node: ir.Node) -> ir.Value:
    """Behind the bias of a linear layer and one clamp, if nothing else reads in between."""
    out = node.outputs[0]
    if node.op_type == "MatMul" and single_use(out):
        (use,) = out.uses()
        adds_bias = use.node.op_type == "Add" and constant(operand(use.node, 1)) is not None
        out = use.node.outputs[0] if adds_bias else out
    if single_use(out):
        (use,) = out.uses()
        out = use.node.outputs[0] if use.node.op_type in _CLAMPS and use.idx == 0 else out
    return out
