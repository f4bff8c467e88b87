"""``Expand`` to the written-out shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import given, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeExpand"]


@dataclass(frozen=True)
class NormalizeExpand(NodePass):
    """Write the output shape of ``Expand`` as its target.

    ``Expand(x, [8, 1, 1])``  ->  ``Expand(x, [8, 49, 64])``

    1. The output shape is known and not empty.
    """

    name: ClassVar[str] = "normalize-expand"
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
