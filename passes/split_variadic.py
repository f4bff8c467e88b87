"""Operators of many inputs as chains of operators of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder

__all__ = ["BROADCASTING", "SplitVariadic"]

# Operators that broadcast all of their inputs to one shape.
BROADCASTING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "And", "Or", "Xor", "Equal",
     "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Where"}
)  # fmt: skip


@dataclass(frozen=True)
class SplitVariadic(NodePass):
    """Split ``Sum``, ``Mean``, ``Max`` and ``Min``.

    ``Sum(a, b, c)``  ->  ``Add(Add(a, b), c)``; ``Mean`` is the sum divided by the count

    1. ``Max`` and ``Min`` of two are left as they are; of one, they are no-ops.
    2. The chain runs from the left, as the standard's reference does.
    """

    name: ClassVar[str] = "split-variadic"
    ops: ClassVar[frozenset[str]] = frozenset({"Sum", "Mean", "Max", "Min"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless it is a binary ``Max`` or ``Min``."""
        count = len(node.inputs)
        if count < 2 or (count == 2 and node.op_type in ("Max", "Min")):
            return None
        kind = node.op_type if node.op_type in ("Max", "Min") else "Add"
        total = operand(node, 0)
        for index in range(1, count):
            total = _pair(op, kind, total, operand(node, index))
        if node.op_type != "Mean":
            return total
        dtype = np.float32 if total.dtype is None else total.dtype.numpy()
        number = op.constant(np.array(count, dtype))
        return op.op("Div", [total, number], shape=total.shape, dtype=total.dtype)


def _pair(op: Builder, kind: str, a: ir.Value, b: ir.Value) -> ir.Value:
    left, right = static(a), static(b)
    known = left is not None and right is not None
    shape = np.broadcast_shapes(left or (), right or ()) if known else None
    return op.op(kind, [a, b], shape=shape, dtype=a.dtype)
