"""``Expand`` where it is needed, to the written-out shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attrs, given, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.split_variadic import BROADCASTING
from edgevit.rewrite import Builder, Refused

__all__ = ["ExpandTarget", "RemoveExpand"]


@dataclass(frozen=True)
class ExpandTarget(NodePass):
    """Write the output shape of ``Expand`` as its target.

    ``Expand(x, [1, -, 64])``  ->  ``Expand(x, [8, 49, 64])``

    1. The output shape is known.
    """

    name: ClassVar[str] = "expand-target"
    ops: ClassVar[frozenset[str]] = frozenset({"Expand"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the target is the output shape."""
        target = static(node.outputs[0])
        if target is None or 0 in target:
            return Refused("the target shape is not known or is empty")
        if ints(given(node, 1)) == target:
            return None
        x = operand(node, 0)
        to = op.constant(np.array(target, np.int64))
        return op.op("Expand", [x, to], shape=target, dtype=x.dtype)


@dataclass(frozen=True)
class RemoveExpand(NodePass):
    """Leave broadcasting to the operator that reads the value.

    ``Mul(Expand(x, [1, 64, 56, 56]), y)``  ->  ``Mul(x, y)``

    1. The reader broadcasts its inputs.
    2. Its output shape stays the same without the expansion.
    """

    name: ClassVar[str] = "remove-expand"
    ops: ClassVar[frozenset[str]] = BROADCASTING

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Read in front of each ``Expand`` that is not needed."""
        inputs = [operand(node, i) for i in range(len(node.inputs))]
        target = static(node.outputs[0])
        changed = False
        for i, value in enumerate(inputs):
            producer = value.producer()
            if producer is None or producer.op_type != "Expand" or producer.domain:
                continue
            shapes = [static(v) for v in (*inputs[:i], operand(producer, 0), *inputs[i + 1 :])]
            known = [s for s in shapes if s is not None]
            if len(known) < len(shapes) or np.broadcast_shapes(*known) != target:  # case 2
                continue
            inputs[i] = operand(producer, 0)
            changed = True
        if not changed:
            return None
        out = node.outputs[0]
        return op.op(node.op_type, inputs, attrs(node), shape=target, dtype=out.dtype)
