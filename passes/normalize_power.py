"""Powers that are plain operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import is_float, operand, scalar, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder

__all__ = ["NormalizePower"]


@dataclass(frozen=True)
class NormalizePower(NodePass):
    """Write small constant powers as products, roots and reciprocals.

    ``Pow(x, 2)``  ->  ``Mul(x, x)``

    1. The exponent is a constant 2, 0.5 or -1 that does not broadcast.
    2. The base is a float.
    """

    name: ClassVar[str] = "normalize-power"
    ops: ClassVar[frozenset[str]] = frozenset({"Pow"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite the three cases."""
        x, shape = operand(node, 0), static(node.outputs[0])
        exponent = scalar(operand(node, 1))
        if exponent is None or not is_float(x) or shape is None or static(x) != shape:
            return None
        if exponent == 2.0:
            return op.op("Mul", [x, x], shape=shape, dtype=x.dtype)
        kind = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(exponent)
        return None if kind is None else op.op(kind, [x], shape=shape, dtype=x.dtype)
