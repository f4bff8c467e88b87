"""``Pad`` with pads of full rank and a written-out value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, ints, operand, positive_axes, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizePad"]


@dataclass(frozen=True)
class NormalizePad(NodePass):
    """Spread ``axes`` over all dimensions and fill the value in.

    ``Pad(x, [0, 1], axes=[-1])``  ->  ``Pad(x, [0, 0, 0, 1], 0.0)``

    1. Pads, axes and value are constant; the input's rank is known.
    2. Negative pads are a ``Slice``; here they are refused.
    """

    name: ClassVar[str] = "normalize-pad"
    ops: ClassVar[frozenset[str]] = frozenset({"Pad"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless all is written out."""
        x, out = operand(node, 0), node.outputs[0]
        shape, pads = static(x), ints(given(node, 1))
        if shape is None or pads is None or x.dtype is None:
            return Refused("the pads or the shape are not constant")
        if min(pads, default=0) < 0:  # case 2
            return Refused("negative pads cut the tensor")
        size = len(shape)
        axes = tuple(range(size)) if given(node, 3) is None else ints(given(node, 3))
        value = (
            np.zeros((), x.dtype.numpy())
            if given(node, 2) is None
            else constant(given(node, 2))
        )
        if axes is None or value is None or value.size != 1:
            return Refused("axes or value are not constant")
        full = [0] * (2 * size)
        for i, axis in enumerate(positive_axes(axes, size)):
            full[axis], full[axis + size] = pads[i], pads[i + len(axes)]
        if len(node.inputs) == 3 and value.ndim == 0 and pads == tuple(full):
            return None
        extra = [op.constant(np.array(full, np.int64)), op.constant(value.reshape(()))]
        mode = {"mode": attr(node, "mode", "constant")}
        return op.op("Pad", [x, *extra], mode, shape=out.shape, dtype=x.dtype)
