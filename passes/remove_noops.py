"""Remove operators that return their input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, ints, operand, scalar, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["RemoveNoops"]

# Operator -> the constant second operand that changes nothing.
_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0, "Pow": 1.0}


@dataclass(frozen=True)
class RemoveNoops(NodePass):
    """Remove nodes that compute the identity.

    ``Dropout(Identity(x)) * 1``  ->  ``x``

    1. ``Identity``, except from a constant or an input to a graph output, which needs a node.
    2. ``Dropout`` outside training or of the ratio 0, when its mask is not read.
    3. ``Cast`` to the dtype at hand; ``Expand``, ``Tile``, ``Pad``, ``Slice`` (by positive
       steps) to the same shape; ``Concat``, ``Sum``, ``Max``, ``Min``, ``Mean`` and ``Split``
       of one.
    4. ``Mul`` and ``Div`` by 1, ``Add`` and ``Sub`` of 0, ``Pow`` by 1 that do not broadcast.
    5. Pooling with a kernel of one; ``Where`` with a constant condition.
    """

    name: ClassVar[str] = "remove-noops"
    ops: ClassVar[frozenset[str]] = frozenset(
        {"Identity", "Dropout", "Cast", "Expand", "Tile", "Pad", "Slice", "Concat", "Sum",
         "Max", "Min", "Mean", "Split", "MaxPool", "AveragePool", "Where", *_NEUTRAL}
    )  # fmt: skip

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Return the input if the node is one of the cases."""
        if node.op_type == "Dropout":
            return _dropout(node)
        if node.op_type == "Identity":
            return _identity(node)
        kept = _RULES.get(node.op_type, _neutral)(node)
        if kept is None or static(kept) != static(node.outputs[0]) or static(kept) is None:
            return None
        return kept


def _identity(node: ir.Node) -> Result:
    source, out = operand(node, 0), node.outputs[0]
    fixed = source.producer() is None or source.is_graph_output()
    return None if fixed and out.is_graph_output() else source  # case 1


def _dropout(node: ir.Node) -> Result:
    mode = given(node, 2)
    training = None if mode is None else constant(mode)
    if mode is not None and (training is None or bool(training)) and _ratio(node) != 0:
        return Refused("training mode is not constantly false")
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return Refused("the mask is read")
    source = operand(node, 0)
    return (source, *node.outputs[1:]) if len(node.outputs) > 1 else source


def _ratio(node: ir.Node) -> float | None:
    """The share that is dropped; 0.5 is ONNX's default; ``None`` if it is not constant."""
    ratio = given(node, 1)
    return 0.5 if ratio is None else scalar(ratio)


def _neutral(node: ir.Node) -> ir.Value | None:
    kept, other = operand(node, 0), operand(node, 1)
    if node.op_type in ("Add", "Mul") and constant(kept) is not None:
        kept, other = other, kept
    return kept if scalar(other) == _NEUTRAL[node.op_type] else None


def _cast(node: ir.Node) -> ir.Value | None:
    source = operand(node, 0)
    return source if source.dtype == ir.DataType(attr(node, "to")) else None


def _only(node: ir.Node) -> ir.Value | None:
    return operand(node, 0) if len(node.inputs) == 1 else None


def _split(node: ir.Node) -> ir.Value | None:
    return operand(node, 0) if len(node.outputs) == 1 else None


def _same(node: ir.Node) -> ir.Value | None:
    """The caller compares shapes, and equal shapes are enough."""
    return operand(node, 0)


def _pad(node: ir.Node) -> ir.Value | None:
    pads = ints(given(node, 1))
    return operand(node, 0) if pads is not None and not any(pads) else None


def _slice(node: ir.Node) -> ir.Value | None:
    steps = (1,) if given(node, 4) is None else ints(given(node, 4))
    return operand(node, 0) if steps is not None and min(steps, default=1) > 0 else None


def _pool(node: ir.Node) -> ir.Value | None:
    ones = all(k == 1 for k in attr(node, "kernel_shape"))
    plain = all(s == 1 for s in attr(node, "strides", ())) and not any(attr(node, "pads", ()))
    return operand(node, 0) if ones and plain and len(node.outputs) == 1 else None


def _where(node: ir.Node) -> ir.Value | None:
    condition = constant(given(node, 0))
    if condition is None or condition.size == 0:
        return None
    if condition.all():
        return operand(node, 1)
    return None if condition.any() else operand(node, 2)


_RULES: dict[str, Callable[[ir.Node], ir.Value | None]] = {
    "Cast": _cast,
    "Concat": _only,
    "Sum": _only,
    "Max": _only,
    "Min": _only,
    "Mean": _only,
    "Split": _split,
    "Expand": _same,
    "Tile": _same,
    "Pad": _pad,
    "Slice": _slice,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Where": _where,
}
