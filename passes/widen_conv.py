"""One-dimensional convolution as two-dimensional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, attrs, given, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["WidenConv"]


@dataclass(frozen=True)
class WidenConv(NodePass):
    """Give a convolution over ``[B, C, L]`` a height of one.

    ``Conv(x, W)``  ->  ``Reshape(Conv(Reshape(x, [B,C,1,L]), W[:, :, None]), [B,C',L'])``

    1. The input has rank 3 and the weight is constant.
    2. Attributes are written out (``normalize-conv``). Rank 5 is refused.
    """

    name: ClassVar[str] = "widen-conv"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite rank 3."""
        x, out = operand(node, 0), node.outputs[0]
        shape, target, weight = static(x), static(out), constant(operand(node, 1))
        if shape is None or target is None or len(shape) == 4:
            return None
        if len(shape) != 3 or weight is None:
            return Refused(f"convolution of rank {len(shape)}, or its weight is not constant")
        if "auto_pad" in node.attributes or "pads" not in node.attributes:
            return Refused("the pads are not written out yet")
        wide = _reshape(op, x, (shape[0], shape[1], 1, shape[2]))
        inputs = [wide, op.constant(weight[:, :, None]), given(node, 2)]
        inputs = inputs if inputs[2] is not None else inputs[:2]
        tall = (target[0], target[1], 1, target[2])
        result = op.op(node.op_type, inputs, _spread(node), shape=tall, dtype=x.dtype)
        return _reshape(op, result, target)


def _spread(node: ir.Node) -> dict[str, Any]:
    begin, end = attr(node, "pads")
    changes: dict[str, Any] = {"pads": (0, begin, 0, end)}
    for name, unit in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        changes[name] = (unit, *attr(node, name))
    if "output_padding" in node.attributes:
        changes["output_padding"] = (0, *attr(node, "output_padding"))
    return attrs(node, **changes)


def _reshape(op: Builder, source: ir.Value, target: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(target, np.int64))
    return op.op("Reshape", [source, to], {"allowzero": 0}, shape=target, dtype=source.dtype)
