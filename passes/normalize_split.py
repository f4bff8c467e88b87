"""``Split`` with written-out sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, given, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_slice import Cut, make_slice
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeSplit", "make_split"]


def make_split(
    op: Builder, source: ir.Value, axis: int, sizes: tuple[int, ...]
) -> tuple[ir.Value, ...]:
    """A ``Split`` in normal form; the source's shape is static."""
    shape = static(source) or ()
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    listed = op.constant(np.array(sizes, np.int64))
    return op.op_n("Split", [source, listed], shapes, {"axis": axis}, dtype=source.dtype)


@dataclass(frozen=True)
class NormalizeSplit(NodePass):
    """Write the sizes of a ``Split`` out; take single parts by ``Slice``.

    ``Split(x, axis=-1, num_outputs=3)``  ->  ``Split(x, [64, 64, 64], axis=2)``

    1. The output shapes are known and no part is empty.
    2. If some part is not read, the others are slices: a ``Split`` yields all of its input.
    """

    name: ClassVar[str] = "normalize-split"
    ops: ClassVar[frozenset[str]] = frozenset({"Split"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the sizes are written out and all parts are read."""
        source = operand(node, 0)
        shape = static(source)
        shapes = [static(o) for o in node.outputs]
        known = [s for s in shapes if s is not None]
        if shape is None or len(known) < len(shapes):
            return Refused("the sizes of the parts are not known")
        axis = int(attr(node, "axis", 0)) % len(shape)
        sizes = tuple(s[axis] for s in known)
        if 0 in sizes:
            return Refused("a part is empty")
        if not all(o.uses() or o.is_graph_output() for o in node.outputs):  # case 2
            return _slices(op, source, axis, sizes)
        if "num_outputs" not in node.attributes and ints(given(node, 1)) == sizes:
            return None
        return make_split(op, source, axis, sizes)


def _slices(op: Builder, source: ir.Value, axis: int, sizes: tuple[int, ...]) -> Result:
    starts = np.cumsum((0, *sizes[:-1])).tolist()
    cuts = [Cut(start, 1, size) for start, size in zip(starts, sizes, strict=True)]
    return tuple(make_slice(op, source, {axis: cut}) for cut in cuts)
