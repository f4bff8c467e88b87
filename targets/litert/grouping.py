"""Groups of canonical nodes that become one TFLite operator: bias and activation fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.targets.litert.quantized import Tail, tail_of
from edgevit.targets.neighbors import bias_of, is_linear, only_consumer

__all__ = ["Group", "activation_of", "group_nodes", "is_linear"]

_ACTIVATED = frozenset(
    {"Conv", "MatMul", "Add", "Sub", "Mul", "Div", "MaxPool", "AveragePool"}
)
_RANGES: Mapping[tuple[float, float], str] = {
    (0.0, float("inf")): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
}


@dataclass(frozen=True)
class Group:
    """A node with what is fused behind it.

    Attributes:
        nodes: The head, then the fused nodes in order.
        bias: Constant vector added by a fused ``Add``; ``None`` if there is none.
        activation: Name in ``ActivationFunctionType``.
        integer: How an operator on codes ends; ``None`` for one on floats.
    """

    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None
    activation: str = "NONE"
    integer: Tail | None = None

    @property
    def head(self) -> ir.Node:
        """The node that decides the operator."""
        return self.nodes[0]

    @property
    def output(self) -> ir.Value:
        """The first value that the group computes."""
        return self.nodes[-1].outputs[0]


def activation_of(node: ir.Node) -> str | None:
    """The fused activation that a node is, if it is one."""
    if node.op_type == "Relu":
        return "RELU"
    if node.op_type != "Clip" or node.inputs[0] is None:
        return None
    if node.inputs[0].dtype != ir.DataType.FLOAT:
        return None
    low, high = (constant(node.inputs[i]) if i < len(node.inputs) else None for i in (1, 2))
    ends = (
        -np.inf if low is None else float(low),
        np.inf if high is None else float(high),
    )
    return _RANGES.get(ends)


def _with_bias(node: ir.Node) -> Group:
    group = Group((node,))
    follower = only_consumer(node.outputs[0])
    if not is_linear(node) or follower is None:
        return group
    bias = bias_of(follower, node.outputs[0])
    return group if bias is None else Group((node, follower), bias)


def _grown(node: ir.Node) -> Group:
    tail = tail_of(node)
    if tail is not None:
        return Group((node, *tail.nodes), tail.bias, integer=tail)
    group = _with_bias(node)
    floats = group.output.dtype == ir.DataType.FLOAT
    fusable = is_linear(node) if node.op_type == "MatMul" else node.op_type in _ACTIVATED
    follower = only_consumer(group.output)
    if not (floats and fusable) or follower is None:
        return group
    activation = activation_of(follower)
    if activation is None:
        return group
    return Group((*group.nodes, follower), group.bias, activation)


def group_nodes(graph: ir.Graph) -> tuple[Group, ...]:
    """Partition the nodes of a graph into groups, in execution order."""
    groups = []
    taken: set[ir.Node] = set()
    for node in graph:
        if node in taken:
            continue
        group = _grown(node)
        taken.update(group.nodes)
        groups.append(group)
    return tuple(groups)
