"""Reductions with written-out axes and kept dimensions; global pooling becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, given, ints, operand, positive_axes, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeReduce"]

_GLOBAL = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
_REDUCE = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
     "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
)  # fmt: skip
# Over axes of length one these return their input.
_IDEMPOTENT = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"})


@dataclass(frozen=True)
class NormalizeReduce(NodePass):
    """One form for reductions.

    ``GlobalAveragePool(x)``  ->  ``ReduceMean(x, [2, 3], keepdims=1)``

    1. Axes are a constant input, sorted and non-negative; none means all, unless
       ``noop_with_empty_axes``.
    2. ``keepdims`` is 1; what drops dimensions gets a ``Reshape`` behind it.
    3. Axes of length one are left out of mean, sum, max, min and product; if no axis is left
       the node is a ``Reshape`` or nothing.
    """

    name: ClassVar[str] = "normalize-reduce"
    ops: ClassVar[frozenset[str]] = _REDUCE | frozenset(_GLOBAL)

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless axes and ``keepdims`` are in order."""
        source = operand(node, 0)
        shape, target = static(source), static(node.outputs[0])
        if shape is None or target is None:
            return Refused("the input shape is not known")
        axes = _axes(node, len(shape))
        if axes is None:
            return Refused("the axes are not constant")
        kind = _GLOBAL.get(node.op_type, node.op_type)
        if not axes and kind not in _IDEMPOTENT:
            return Refused(f"{kind} over no axes works on single elements")
        wanted = tuple(a for a in axes if shape[a] != 1 or kind not in _IDEMPOTENT)
        kept = node.op_type not in _GLOBAL and attr(node, "keepdims", 1) == 1
        if kept and wanted and ints(given(node, 1)) == wanted and _plain(node):
            return None
        result = _reduce(op, kind, source, wanted) if wanted else source
        if static(result) == target:
            return result
        to = op.constant(np.array(target, np.int64))
        return op.op(
            "Reshape", [result, to], {"allowzero": 0}, shape=target, dtype=source.dtype
        )


def _plain(node: ir.Node) -> bool:
    return attr(node, "noop_with_empty_axes", 0) == 0 and "axes" not in node.attributes


def _axes(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    if node.op_type in _GLOBAL:
        return tuple(range(2, rank))
    if given(node, 1) is None:
        found = tuple(attr(node, "axes", ()))
    else:
        constant_axes = ints(given(node, 1))
        if constant_axes is None:
            return None
        found = constant_axes
    if not found and attr(node, "noop_with_empty_axes", 0) == 0:
        return tuple(range(rank))
    return tuple(sorted(positive_axes(found, rank)))


def _reduce(op: Builder, kind: str, source: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    shape = tuple(1 if i in axes else d for i, d in enumerate(static(source) or ()))
    listed = op.constant(np.array(axes, np.int64))
    fixed = {"keepdims": 1, "noop_with_empty_axes": 0}
    return op.op(kind, [source, listed], fixed, shape=shape, dtype=source.dtype)
