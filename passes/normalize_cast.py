"""``CastLike`` as ``Cast``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import operand
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeCast"]


@dataclass(frozen=True)
class NormalizeCast(NodePass):
    """Name the dtype instead of a tensor that has it.

    ``CastLike(x, y)``  ->  ``Cast(x, to=float32)``

    1. The dtype of the second input is known; its data is not needed.
    """

    name: ClassVar[str] = "normalize-cast"
    ops: ClassVar[frozenset[str]] = frozenset({"CastLike"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite every ``CastLike``."""
        x, like = operand(node, 0), operand(node, 1)
        if like.dtype is None:
            return Refused("the dtype to cast to is not known")
        out = node.outputs[0]
        to = {"to": int(like.dtype), "saturate": 1}
        return op.op("Cast", [x], to, shape=out.shape, dtype=like.dtype)
