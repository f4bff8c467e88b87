"""Groups of canonical nodes that become one TFLite operator: bias and activation fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of

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
    """

    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None
    activation: str = "NONE"

    @property
    def head(self) -> ir.Node:
        """The node that decides the operator."""
        return self.nodes[0]

    @property
    def output(self) -> ir.Value:
        """The first value that the group computes."""
        return self.nodes[-1].outputs[0]


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a matrix product with a constant 2-D weight on the right."""
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return weight is not None and weight.const_value is not None and len(shape_of(weight)) == 2


def _only_consumer(value: ir.Value) -> ir.Node | None:
    """The single node that uses a value that is not a graph output."""
    if value.is_graph_output():
        return None
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 else None


def _bias_of(node: ir.Node, product: ir.Value) -> ir.Value | None:
    """The constant vector that ``node`` adds to the last axis of ``product``."""
    if node.op_type != "Add":
        return None
    other = node.inputs[1] if node.inputs[0] is product else node.inputs[0]
    if other is None or other.const_value is None:
        return None
    shape = shape_of(product)
    dims = shape_of(other)
    fits = len(dims) <= len(shape) and dims[-1:] == shape[-1:] and set(dims[:-1]) <= {1}
    return other if fits else None


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
    follower = _only_consumer(node.outputs[0])
    if not is_linear(node) or follower is None:
        return group
    bias = _bias_of(follower, node.outputs[0])
    return group if bias is None else Group((node, follower), bias)


def _grown(node: ir.Node) -> Group:
    group = _with_bias(node)
    floats = group.output.dtype == ir.DataType.FLOAT
    fusable = is_linear(node) if node.op_type == "MatMul" else node.op_type in _ACTIVATED
    follower = _only_consumer(group.output)
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
