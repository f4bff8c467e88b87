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
    ``Pow(x, n)``, n integers  ->  ``Pow(x, Cast(n))``

    1. The exponent is a constant 2, 0.5 or -1 that does not broadcast.
    2. The base is a float.
    3. Other exponents get the dtype of a float base: engines want one dtype. An integer
       beyond the float's digits is one for which only 0, 1 and infinity come out.
    """

    name: ClassVar[str] = "normalize-power"
    ops: ClassVar[frozenset[str]] = frozenset({"Pow"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite the three cases."""
        x, shape = operand(node, 0), static(node.outputs[0])
        exponent = scalar(operand(node, 1))
        if not is_float(x) or shape is None:
            return None
        if exponent == 2.0 and static(x) == shape:
            return op.op("Mul", [x, x], shape=shape, dtype=x.dtype)
        kind = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(exponent) if exponent else None
        if kind is not None and static(x) == shape:
            return op.op(kind, [x], shape=shape, dtype=x.dtype)
        return _one_dtype(op, node, x, shape)


def _one_dtype(op: Builder, node: ir.Node, x: ir.Value, shape: tuple[int, ...]) -> Result:
    """Case 3; ``None`` if the dtypes agree."""
    n = operand(node, 1)
    if n.dtype is None or x.dtype is None or n.dtype == x.dtype:
        return None
    same = op.op("Cast", [n], {"to": int(x.dtype)}, shape=n.shape, dtype=x.dtype)
    return op.op("Pow", [x, same], shape=shape, dtype=x.dtype)
