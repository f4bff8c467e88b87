"""``Slice`` with written-out, clipped bounds; chains merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import given, ints, operand, positive_axes, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["Cut", "NormalizeSlice", "cuts_of", "make_slice"]


@dataclass(frozen=True)
class Cut:
    """Elements ``start``, ``start + step``, ... (``count`` of them) of one axis."""

    start: int
    step: int
    count: int

    @classmethod
    def of(cls, start: int, step: int, count: int) -> Cut:
        """The cut with the step that is kept: a single element has step one."""
        return cls(start, 1 if count == 1 else step, count)

    def after(self, first: Cut) -> Cut:
        """The single cut equal to ``first`` and then this one."""
        return Cut.of(
            first.start + self.start * first.step, self.step * first.step, self.count
        )

    def end(self, size: int) -> int:
        """The tight exclusive end; past the front for a negative step it is ``-size - 1``."""
        end = self.start + (self.count - 1) * self.step + (1 if self.step > 0 else -1)
        return end if end >= 0 else -size - 1


def cuts_of(node: ir.Node) -> dict[int, Cut] | None:
    """Axis -> cut of a ``Slice`` with constant bounds, without axes taken whole."""
    shape = static(operand(node, 0))
    starts, ends = ints(given(node, 1)), ints(given(node, 2))
    if shape is None or starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if given(node, 3) is None else ints(given(node, 3))
    steps = (1,) * len(starts) if given(node, 4) is None else ints(given(node, 4))
    if axes is None or steps is None:
        return None
    cuts = {}
    for axis, bounds in zip(
        positive_axes(axes, len(shape)), zip(starts, ends, steps, strict=True), strict=True
    ):
        chosen = range(*slice(*bounds).indices(shape[axis]))
        whole = len(chosen) == shape[axis]
        if not whole or (bounds[2] < 0 and shape[axis] > 1):
            cuts[axis] = Cut.of(chosen.start, chosen.step, len(chosen))
    return cuts


def make_slice(op: Builder, source: ir.Value, cuts: dict[int, Cut]) -> ir.Value:
    """A ``Slice`` in normal form; the source's shape is static."""
    shape = list(static(source) or ())
    axes = sorted(cuts)
    lists = (
        [cuts[a].start for a in axes],
        [cuts[a].end(shape[a]) for a in axes],
        axes,
        [cuts[a].step for a in axes],
    )
    for axis in axes:
        shape[axis] = cuts[axis].count
    bounds = [op.constant(np.array(numbers, np.int64)) for numbers in lists]
    return op.op("Slice", [source, *bounds], shape=shape, dtype=source.dtype)


@dataclass(frozen=True)
class NormalizeSlice(NodePass):
    """Clip bounds, count from the front, sort axes, merge a slice of a slice.

    ``Slice(x, [-3], [INT_MAX], [-1])``  ->  ``Slice(x, [61], [64], [1], [1])``

    1. Bounds and the input shape are constant, and the result is not empty.
    2. Axes taken whole are left out; if none is left the node goes.
    3. A slice of a slice is one slice of the source.
    """

    name: ClassVar[str] = "normalize-slice"
    ops: ClassVar[frozenset[str]] = frozenset({"Slice"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the written bounds are the normal ones."""
        cuts = cuts_of(node)
        if cuts is None or any(c.count == 0 for c in cuts.values()):  # case 1
            return Refused("bounds or shape are not constant, or the result is empty")
        source = operand(node, 0)
        if not cuts:  # case 2
            return source
        producer = source.producer()
        inner = None
        if producer is not None and producer.op_type == "Slice":
            inner = cuts_of(producer)
        if inner is not None and producer is not None:  # case 3
            merged = {a: c.after(inner[a]) if a in inner else c for a, c in cuts.items()}
            return make_slice(op, operand(producer, 0), {**inner, **merged})
        return None if _is_normal(node, cuts) else make_slice(op, source, cuts)


def _is_normal(node: ir.Node, cuts: dict[int, Cut]) -> bool:
    shape = static(operand(node, 0)) or ()
    axes = tuple(sorted(cuts))
    wanted = (
        tuple(cuts[a].start for a in axes),
        tuple(cuts[a].end(shape[a]) for a in axes),
        axes,
        tuple(cuts[a].step for a in axes),
    )
    return tuple(ints(given(node, i)) for i in range(1, 5)) == wanted
