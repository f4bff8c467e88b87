"""A zero ``Pad`` into the convolution or average behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import attr, attrs, given, ints, operand, scalar
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["FoldPad"]


@dataclass(frozen=True)
class FoldPad(NodePass):
    """Let the operator pad by itself.

    ``Conv(Pad(x, [0,0,1,1,0,0,1,1], 0))``  ->  ``Conv(x, pads=[1,1,1,1])``

    1. Mode ``constant``, value zero, and only spatial axes are padded.
    2. ``MaxPool`` pads with minus infinity, so it is left alone.
    3. ``AveragePool`` must count padding; without pads of its own it may start to.
    """

    name: ClassVar[str] = "fold-pad"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "AveragePool"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Fold if the pads can be added up."""
        pad = operand(node, 0).producer()
        if pad is None or pad.op_type != "Pad" or pad.domain or len(pad.inputs) != 3:
            return None
        amounts, own = ints(given(pad, 1)), tuple(attr(node, "pads", ()))
        if amounts is None or not own or "auto_pad" in node.attributes:
            return Refused("the pads are not written out")
        size = len(amounts) // 2
        if attr(pad, "mode") != "constant" or scalar(given(pad, 2)) != 0.0:  # case 1
            return Refused("the padding is not constant zero")
        if any(amounts[:2]) or any(amounts[size : size + 2]):
            return Refused("batch or channels are padded")
        changes: dict[str, object] = {}
        if node.op_type == "AveragePool":  # case 3
            if any(own) and not attr(node, "count_include_pad", 0):
                return Refused("the average does not count its own padding")
            changes["count_include_pad"] = 1
        spatial = amounts[2:size] + amounts[size + 2 :]
        changes["pads"] = tuple(a + b for a, b in zip(own, spatial, strict=True))
        inputs = [operand(pad, 0), *node.inputs[1:]]
        out = node.outputs[0]
        return op.op(
            node.op_type, inputs, attrs(node, **changes), shape=out.shape, dtype=out.dtype
        )
