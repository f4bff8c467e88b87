"""Operators along the last axis of tensors of six axes and more, on three axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, attrs, operand, static
from edgevit.passes.narrow_transpose import MAX_RANK
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder

__all__ = ["NarrowPointwise"]

_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "MatMul"})
_UNARY = frozenset({"Gelu", "Relu", "Sigmoid", "Tanh", "HardSwish", "Clip", "Softmax"})


@dataclass(frozen=True)
class NarrowPointwise(NodePass):
    """Merge the axes that an operator only walks over (Twins, arXiv 2104.13840).

    ``MatMul(x, W)``, x ``[1,8,8,7,7,64]``
    ->  ``Reshape(MatMul(Reshape(x, [1,3136,64]), W), [1,8,8,7,7,192])``

    1. The rank is above five; the operator works element by element or along the last axis.
    2. The other operand is a matrix (of ``MatMul``), one number per element of the last
       axis, or has the same shape.
    """

    name: ClassVar[str] = "narrow-pointwise"
    ops: ClassVar[frozenset[str]] = _BINARY | _UNARY | {"LayerNormalization"}

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Reshape the operands, repeat the operator, reshape its result back."""
        shape = static(operand(node, 0))
        out = node.outputs[0]
        target = static(out)
        if shape is None or target is None or len(shape) <= MAX_RANK:
            return None
        end = len(shape) - 1
        if attr(node, "axis", end) not in (end, -1):
            return None
        inputs = [operand(node, 0), *node.inputs[1:]]
        if node.op_type in _BINARY and not _fits(node, shape):
            return None
        flat = [
            _reshape(op, v, _flat(shape)) if v is not None and static(v) == shape else v
            for v in inputs
        ]
        attributes = attrs(node, axis=2) if "axis" in node.attributes else attrs(node)
        y = op.op(node.op_type, flat, attributes, shape=_flat(target), dtype=out.dtype)
        return _reshape(op, y, target)


def _fits(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Case 2."""
    other = operand(node, 1)
    if node.op_type == "MatMul":
        weight = constant(other)
        return weight is not None and weight.ndim == 2
    small = static(other)
    return small is not None and (
        small == shape or (constant(other) is not None and len(small) < 2)
    )


def _flat(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def _reshape(op: Builder, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(shape, np.int64))
    return op.op("Reshape", [x, to], {"allowzero": 0}, shape=shape, dtype=x.dtype)
