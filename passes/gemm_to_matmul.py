"""``Gemm`` as ``MatMul`` and ``Add``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["GemmToMatMul"]


@dataclass(frozen=True)
class GemmToMatMul(NodePass):
    """Write a linear layer in its one form.

    ``Gemm(x, W, b, transB=1)``  ->  ``Add(MatMul(x, W^T), b)``

    1. A constant factor is transposed and scaled in place; for another factor a ``Transpose``
       or ``Mul`` is put in front.
    2. ``C`` is scaled by ``beta`` and added; ``beta = 0`` or absent ``C`` leaves it out.
    """

    name: ClassVar[str] = "gemm-to-matmul"
    ops: ClassVar[frozenset[str]] = frozenset({"Gemm"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Always applies once the shapes are known."""
        a, b, c = operand(node, 0), operand(node, 1), given(node, 2)
        out = static(node.outputs[0])
        if out is None or static(a) is None or static(b) is None:
            return Refused("operand shapes are not known")
        alpha, beta = float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0))
        left = _turned(op, a) if attr(node, "transA", 0) else a
        right = _turned(op, b) if attr(node, "transB", 0) else b
        if constant(right) is not None:
            right = _scaled(op, right, alpha)
            result = op.op("MatMul", [left, right], shape=out, dtype=a.dtype)
        else:
            result = op.op("MatMul", [left, right], shape=out, dtype=a.dtype)
            result = _scaled(op, result, alpha)
        if c is None or beta == 0.0:  # case 2
            return result
        return op.op("Add", [result, _scaled(op, c, beta)], shape=out, dtype=a.dtype)


def _turned(op: Builder, value: ir.Value) -> ir.Value:
    array = constant(value)
    if array is not None:
        return op.constant(np.ascontiguousarray(array.T))
    rows, columns = static(value) or (0, 0)
    return op.op(
        "Transpose", [value], {"perm": (1, 0)}, shape=(columns, rows), dtype=value.dtype
    )


def _scaled(op: Builder, value: ir.Value, factor: float) -> ir.Value:
    if factor == 1.0:
        return value
    array = constant(value)
    if array is not None:
        return op.constant(array * array.dtype.type(factor))
    dtype = np.float32 if value.dtype is None else value.dtype.numpy()
    number = op.constant(np.array(factor, dtype))
    return op.op("Mul", [value, number], shape=value.shape, dtype=value.dtype)
