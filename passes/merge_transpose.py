"""A transpose between reshapes that only add and remove axes of length one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import attr, operand, single_use, static
from edgevit.passes.narrow_transpose import MAX_RANK
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_transpose import moves_nothing
from edgevit.rewrite import Builder

__all__ = ["MergeTranspose", "long_axes"]


def long_axes(shape: tuple[int, ...]) -> list[int]:
    """The axes longer than one."""
    return [axis for axis, size in enumerate(shape) if size != 1]


@dataclass(frozen=True)
class MergeTranspose(NodePass):
    """Transpose at the rank at hand instead of squeezing around it.

    ``Reshape(Transpose(Reshape(x, [3,197,64]), [0,2,1]), [1,3,64,197])``, x ``[1,3,197,64]``
    ->  ``Transpose(x, [0,1,3,2])``

    1. Both reshapes only add or remove axes of length one.
    2. The last shape has the rank of the first, five at most (``narrow-transpose`` makes
       such sandwiches of wider ones); the transpose has no other reader.
    """

    name: ClassVar[str] = "merge-transpose"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Match the three nodes from the last one up."""
        middle = operand(node, 0).producer()
        if middle is None or middle.op_type != "Transpose" or middle.domain:
            return None
        first = operand(middle, 0).producer()
        if first is None or first.op_type != "Reshape" or first.domain:
            return None
        source = operand(first, 0)
        perm = _perm(static(source), middle, static(node.outputs[0]))
        if perm is None or not single_use(middle.outputs[0]):
            return None
        return op.op(
            "Transpose", [source], {"perm": perm},
            shape=node.outputs[0].shape, dtype=source.dtype,
        )  # fmt: skip


def _perm(
    start: tuple[int, ...] | None, middle: ir.Node, end: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    inner, inner_perm = static(operand(middle, 0)), tuple(attr(middle, "perm", ()))
    if start is None or end is None or inner is None or len(start) != len(end):
        return None
    if len(start) > MAX_RANK:
        return None
    if [d for d in start if d != 1] != [d for d in inner if d != 1]:  # case 1
        return None
    moved = [inner[p] for p in inner_perm]
    if [d for d in moved if d != 1] != [d for d in end if d != 1]:
        return None
    back = dict(zip(long_axes(inner), long_axes(start), strict=True))
    order = iter([back[p] for p in inner_perm if inner[p] != 1])
    units = iter([axis for axis, size in enumerate(start) if size == 1])
    perm = tuple(next(order) if size != 1 else next(units) for size in end)
    return None if moves_nothing(start, perm) else perm
