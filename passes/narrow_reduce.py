"""Reductions of tensors of six axes and more, on three axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attrs, ints, operand, static
from edgevit.passes.narrow_transpose import MAX_RANK
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NarrowReduce"]


@dataclass(frozen=True)
class NarrowReduce(NodePass):
    """Merge the axes in front of and behind the reduced ones (Hiera, arXiv 2306.00989).

    ``ReduceMax(x, [3])``, x ``[1,2,64,4,49,96]``
    ->  ``Reshape(ReduceMax(Reshape(x, [128,4,4704]), [1]), [1,2,64,1,49,96])``

    1. The rank is above five; the reduced axes are neighbors.
    """

    name: ClassVar[str] = "narrow-reduce"
    ops: ClassVar[frozenset[str]] = frozenset(
        {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"}
    )

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Reshape, reduce the middle one of three axes, reshape back."""
        x, out = operand(node, 0), node.outputs[0]
        shape, target, axes = static(x), static(out), ints(operand(node, 1))
        if shape is None or target is None or not axes or len(shape) <= MAX_RANK:
            return None
        first, last = axes[0], axes[-1]
        if axes != tuple(range(first, last + 1)):
            return Refused(f"the axes {axes} are no neighbors")
        lead, end = math.prod(shape[:first]), math.prod(shape[last + 1 :])
        flat = (lead, math.prod(shape[first : last + 1]), end)
        y = _reshape(op, x, flat)
        inputs = [y, op.constant(np.array([1], np.int64))]
        attributes = attrs(node, keepdims=1)
        y = op.op(node.op_type, inputs, attributes, shape=(lead, 1, end), dtype=x.dtype)
        return _reshape(op, y, target)


def _reshape(op: Builder, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(shape, np.int64))
    return op.op("Reshape", [x, to], {"allowzero": 0}, shape=shape, dtype=x.dtype)
