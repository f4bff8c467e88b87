"""Select parts of a tensor before moving its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_slice import Cut, cuts_of, make_slice
from edgevit.passes.normalize_split import make_split
from edgevit.rewrite import Builder, Refused

__all__ = ["HoistSelections", "axis_before"]

_SELECT = frozenset({"Slice", "Split"})


def axis_before(
    before: tuple[int, ...], after: tuple[int, ...], axis: int
) -> tuple[int, int] | None:
    """Where an axis of a reshaped tensor lies in the tensor before.

    Args:
        before: Shape before the reshape.
        after: Shape after it.
        axis: An axis of ``after``, longer than one.

    Returns:
        ``(b, k)``: index ``i`` along ``axis`` is the range ``[i k, (i + 1) k)`` along ``b``;
        ``None`` if it is no contiguous range of one axis.
    """
    outer = math.prod(after[:axis])
    for b, size in enumerate(before):
        if size > 1 and math.prod(before[:b]) == outer:
            return (b, size // after[axis]) if size % after[axis] == 0 else None
    return None


@dataclass(frozen=True)
class HoistSelections(NodePass):
    """Move ``Slice`` and ``Split`` in front of ``Transpose`` and ``Reshape``.

    ``Split(Transpose(Reshape(x, [1,50,3,4,16]), [2,0,3,1,4]), axis=0)``  ->
    ``[Transpose(Reshape(p, ...), ...) for p in Split(x, axis=2)]``

    Query, key and value then have rank four, and all exporters' forms of taking them out of
    one projection become the same.

    1. All readers of the moved value are selections, so that no work is done twice.
    2. Through ``Reshape``: one axis with step one that is a contiguous range of one axis
       before.
    """

    name: ClassVar[str] = "hoist-selections"
    ops: ClassVar[frozenset[str]] = _SELECT

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Swap the selection with what is in front of it."""
        moved = operand(node, 0)
        producer = moved.producer()
        if producer is None or producer.domain or producer.op_type not in _MOVES:
            return None
        selecting = all(u.node.op_type in _SELECT for u in moved.uses())
        if not selecting or moved.is_graph_output():  # case 1
            return Refused(f"the {producer.op_type} in front has other readers")
        if static(operand(producer, 0)) is None or static(moved) is None:
            return Refused("the shapes are not known")
        return _MOVES[producer.op_type](node, producer, op)


def _through_transpose(node: ir.Node, producer: ir.Node, op: Builder) -> Result:
    perm = tuple(attr(producer, "perm", ()))
    source = operand(producer, 0)
    if not perm:
        return Refused("perm is not written out yet")
    if node.op_type == "Split":
        sizes = ints(operand(node, 1)) or ()
        parts = make_split(op, source, perm[attr(node, "axis")], sizes)
    else:
        cuts = cuts_of(node)
        if not cuts:
            return None
        parts = (make_slice(op, source, {perm[a]: c for a, c in cuts.items()}),)
    return tuple(_transpose(op, part, perm) for part in parts)


def _transpose(op: Builder, source: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    shape = static(source) or ()
    target = tuple(shape[p] for p in perm)
    return op.op("Transpose", [source], {"perm": perm}, shape=target, dtype=source.dtype)


def _through_reshape(node: ir.Node, producer: ir.Node, op: Builder) -> Result:
    source = operand(producer, 0)
    before, after = static(source) or (), static(operand(node, 0)) or ()
    cut: Cut | None = None
    sizes: tuple[int, ...] = ()
    if node.op_type == "Split":
        axis, sizes = int(attr(node, "axis")), ints(operand(node, 1)) or ()
    else:
        cuts = cuts_of(node) or {}
        if len(cuts) != 1:
            return Refused("a slice of several axes stays behind the Reshape")
        [(axis, cut)] = cuts.items()
    place = axis_before(before, after, axis)
    if place is None or (cut is not None and cut.step != 1):  # case 2
        return Refused("the selection is no contiguous range before the Reshape")
    b, k = place
    if cut is None:
        parts = make_split(op, source, b, tuple(s * k for s in sizes))
    else:
        parts = (make_slice(op, source, {b: Cut(cut.start * k, 1, cut.count * k)}),)
    targets = [static(o) or () for o in node.outputs]
    return tuple(_reshape(op, p, t) for p, t in zip(parts, targets, strict=True))


def _reshape(op: Builder, source: ir.Value, target: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(target, np.int64))
    return op.op("Reshape", [source, to], {"allowzero": 0}, shape=target, dtype=source.dtype)


_MOVES = {"Transpose": _through_transpose, "Reshape": _through_reshape}
