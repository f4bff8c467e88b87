"""Leave broadcasting to the operator that does it anyway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attrs, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.split_variadic import BROADCASTING
from edgevit.rewrite import Builder, Refused

__all__ = ["RemoveExpand"]


@dataclass(frozen=True)
class RemoveExpand(NodePass):
    """Read in front of an ``Expand`` where the reader broadcasts.

    ``Mul(Expand(x, [1, 64, 56, 56]), y)``  ->  ``Mul(x, y)``

    1. The reader broadcasts its inputs.
    2. Its output shape stays the same without the expansion.
    """

    name: ClassVar[str] = "remove-expand"
    ops: ClassVar[frozenset[str]] = BROADCASTING

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Leave out every ``Expand`` that is not needed."""
        inputs = [operand(node, i) for i in range(len(node.inputs))]
        target = static(node.outputs[0])
        expanded = [i for i, value in enumerate(inputs) if _expand(value) is not None]
        if not expanded or target is None:
            return None
        for i in expanded:
            producer = _expand(inputs[i])
            shorter = inputs[i] if producer is None else operand(producer, 0)
            if _broadcast([*inputs[:i], shorter, *inputs[i + 1 :]]) == target:
                inputs[i] = shorter
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return Refused("no other input has the expanded shape")
        out = node.outputs[0]
        return op.op(node.op_type, inputs, attrs(node), shape=target, dtype=out.dtype)


def _expand(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    return node if node is not None and node.op_type == "Expand" and not node.domain else None


def _broadcast(values: list[ir.Value]) -> tuple[int, ...] | None:
    shapes = [static(v) for v in values]
    known = [s for s in shapes if s is not None]
    return np.broadcast_shapes(*known) if len(known) == len(shapes) else None
