"""Bring factors and offsets next to the linear layer that they scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import operand, single_use, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["HoistAffine"]


@dataclass(frozen=True)
class HoistAffine(NodePass):
    """Move ``Mul``, ``Div``, ``Add``, ``Sub`` by a constant in front of a ``Reshape``.

    ``Add(Mul(Reshape(MatMul(x, W), [196, 64]), a), b)``
    ->  ``Reshape(Add(Mul(MatMul(x, W), a), b), [196, 64])``

    Normalizations over tokens are exported between two reshapes; in front of them
    ``fold-affine`` reaches the weights.

    1. The reshape keeps the last axis, and reads a ``MatMul`` with a constant weight or the
       bias behind one; nothing else reads either.
    2. The constant varies along the last axis only.
    """

    name: ClassVar[str] = "hoist-affine"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul", "Div", "Add", "Sub"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Swap the two nodes."""
        moved, array = operand(node, 0), constant(operand(node, 1))
        reshape = moved.producer()
        if array is None or reshape is None or reshape.op_type != "Reshape" or reshape.domain:
            return None
        source = operand(reshape, 0)
        before, after = static(source), static(moved)
        if not before or not after or not _linear(source):
            return None
        if before[-1] != after[-1] or after != static(node.outputs[0]):
            return Refused("the last axis changes, or the constant broadcasts")
        if not single_use(moved) or not single_use(source):  # case 1
            return Refused("the linear layer in front has other readers")
        if array.size not in (1, after[-1]) or array.shape[-1:] not in ((), (array.size,)):
            return Refused("the constant varies along other axes than the last")  # case 2
        vector = op.constant(np.broadcast_to(array.reshape(-1), (after[-1],)))
        inner = op.op(node.op_type, [source, vector], shape=before, dtype=source.dtype)
        target = operand(reshape, 1)
        return op.op(
            "Reshape", [inner, target], {"allowzero": 0}, shape=after, dtype=source.dtype
        )


def _linear(value: ir.Value) -> bool:
    node = value.producer()
    if node is not None and node.op_type == "Add" and constant(operand(node, 1)) is not None:
        node = operand(node, 0).producer()
    if node is None or node.op_type != "MatMul":
        return False
    return constant(operand(node, 1)) is not None
