"""``LogSoftmax`` and ``LpNormalization`` by reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["DecomposeNorms"]


@dataclass(frozen=True)
class DecomposeNorms(NodePass):
    """Write two rare normalizations with common operators.

    ``LogSoftmax(x)``  ->  ``d - Log(ReduceSum(Exp(d)))``, d = x - ReduceMax(x)
    ``LpNormalization(x, p=2)``  ->  ``x / ReduceL2(x)``; p = 1: ``x / ReduceSum(Abs(x))``

    1. The shape is known.
    2. ``LpNormalization`` gives 0 where the norm is 0; a quotient gives NaN. The divisor is
       therefore kept above the smallest normal number of the dtype, which changes nothing
       else: any other norm is larger, or so small that both results have lost all digits.
    """

    name: ClassVar[str] = "decompose-norms"
    ops: ClassVar[frozenset[str]] = frozenset({"LogSoftmax", "LpNormalization"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Both always apply once the shape is known."""
        x = operand(node, 0)
        shape = static(x)
        if shape is None or x.dtype is None:
            return Refused("the shape is not known")
        axis = int(attr(node, "axis", -1)) % len(shape)
        reduced = (*shape[:axis], 1, *shape[axis + 1 :])
        axes = op.constant(np.array([axis], np.int64))

        def reduce(kind: str, value: ir.Value) -> ir.Value:
            fixed = {"keepdims": 1, "noop_with_empty_axes": 0}
            return op.op(kind, [value, axes], fixed, shape=reduced, dtype=x.dtype)

        if node.op_type == "LogSoftmax":
            return _log_softmax(op, x, shape, reduce)
        return _quotient(op, x, shape, reduce, int(attr(node, "p", 2)))


Reduce = Callable[[str, ir.Value], ir.Value]


def _log_softmax(op: Builder, x: ir.Value, shape: tuple[int, ...], reduce: Reduce) -> Result:
    shifted = op.op("Sub", [x, reduce("ReduceMax", x)], shape=shape, dtype=x.dtype)
    total = reduce("ReduceSum", op.op("Exp", [shifted], shape=shape, dtype=x.dtype))
    log = op.op("Log", [total], shape=total.shape, dtype=x.dtype)
    return op.op("Sub", [shifted, log], shape=shape, dtype=x.dtype)


def _quotient(
    op: Builder, x: ir.Value, shape: tuple[int, ...], reduce: Reduce, p: int
) -> Result:
    if p == 2:
        norm = reduce("ReduceL2", x)
    else:
        norm = reduce("ReduceSum", op.op("Abs", [x], shape=shape, dtype=x.dtype))
    dtype = np.float32 if x.dtype is None else x.dtype.numpy()
    least = op.constant(np.array(np.finfo(dtype).tiny, dtype))
    most = op.constant(np.array(np.inf, dtype))
    safe = op.op("Clip", [norm, least, most], shape=norm.shape, dtype=x.dtype)
    return op.op("Div", [x, safe], shape=shape, dtype=x.dtype)
