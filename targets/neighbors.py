"""Questions about a node and who reads it."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.quantizers import stored

__all__ = ["bias_of", "fixed", "is_linear", "only_consumer"]


def fixed(value: ir.Value | None) -> bool:
    """Whether a value is a constant, possibly one that is stored as codes."""
    return value is not None and (value.const_value is not None or stored(value) is not None)


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a matrix product with a constant 2-D weight on the right."""
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return weight is not None and fixed(weight) and len(shape_of(weight)) == 2


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The single node that uses a value that is not a graph output."""
    if value.is_graph_output():
        return None
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 else None


def bias_of(node: ir.Node, product: ir.Value) -> ir.Value | None:
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
