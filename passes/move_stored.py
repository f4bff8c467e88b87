"""Rearranged stored weights: the codes are rearranged instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.quantizers import Stored, dequantizer, stored
from edgevit.rewrite import Builder, Refused

__all__ = ["MoveStored"]


@dataclass(frozen=True)
class MoveStored(NodePass):
    """Keep a weight's DequantizeLinear directly in front of the layer that reads it.

    ``Transpose(DequantizeLinear(codes, s, axis=0))``
    ->  ``DequantizeLinear(codes^T, s, axis=1)``

    1. The codes and their parameters are constant, per tensor or per axis.
    2. ``Transpose`` moves the axis along; ``Reshape`` must leave it whole.
    """

    name: ClassVar[str] = "move-stored"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape", "Transpose"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rearrange the codes."""
        maker, weight = dequantizer(node.inputs[0]), stored(node.inputs[0])
        if maker is None or weight is None or weight.quantizer.block:
            return None
        axis = _axis(node, weight)
        if axis is None:
            return Refused("the reshape cuts or merges the axis of the scales")
        codes = constant(maker.inputs[0])
        if codes is None:
            return None
        shape = static(node.outputs[0]) or ()
        turned = codes.transpose(_perm(node, codes.ndim)) if _turns(node) else codes
        moved = op.constant(np.ascontiguousarray(turned).reshape(shape))
        attributes = {} if axis < 0 else {"axis": axis}
        inputs = [moved, operand(maker, 1), given(maker, 2)]
        dtype = node.outputs[0].dtype
        return op.op("DequantizeLinear", inputs, attributes, shape=shape, dtype=dtype)


def _turns(node: ir.Node) -> bool:
    return node.op_type == "Transpose"


def _perm(node: ir.Node, rank: int) -> tuple[int, ...]:
    return tuple(attr(node, "perm") or range(rank - 1, -1, -1))


def _axis(node: ir.Node, weight: Stored) -> int | None:
    """Where the axis of the scales goes; -1 if there is none, ``None`` if it is cut."""
    axis, shape = weight.quantizer.axis, weight.codes.shape
    if axis is None:
        return -1
    if _turns(node):
        return _perm(node, len(shape)).index(axis)
    after = static(node.outputs[0]) or ()
    before = int(np.prod(shape[:axis]))
    found = [i for i in range(len(after)) if int(np.prod(after[:i])) == before]
    same = [i for i in found if after[i] == shape[axis]]
    return same[0] if same else None
