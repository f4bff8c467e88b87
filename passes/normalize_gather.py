"""``Gather`` of a contiguous range as ``Slice``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, operand, static
from edgevit.passes.gather_grids import rows_of, transposed_range
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_slice import Cut, make_slice
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeGather"]


@dataclass(frozen=True)
class NormalizeGather(NodePass):
    """Select a range by ``Slice``; keep ``Gather`` for real tables.

    ``Gather(x, 0, axis=1)``  ->  ``Reshape(Slice(x, [0], [1], [1], [1]), ...)``

    1. Indices are constant and the shape of the data is known.
    2. Flattened, the indices are ``start, start + 1, ...``: slice, then reshape to the
       output shape if that differs.
    3. The indices are all of the axis in steps (unfolding without overlap): a transpose.
    4. The rows of a table are ranges of one step (unfolding with overlap): slices, joined.
    5. Otherwise indices become non-negative int64 in one axis: a table of more axes would
       raise the rank.
    """

    name: ClassVar[str] = "normalize-gather"
    ops: ClassVar[frozenset[str]] = frozenset({"Gather"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Cases 2 to 5."""
        data = operand(node, 0)
        indices, shape = constant(operand(node, 1)), static(data)
        target = static(node.outputs[0])
        if indices is None or shape is None or target is None or indices.size == 0:
            return Refused("indices are not constant, or the data's shape is not known")
        axis = int(attr(node, "axis", 0)) % len(shape)
        plain = np.where(indices < 0, indices + shape[axis], indices).astype(np.int64)
        flat = plain.reshape(-1)
        if not np.array_equal(flat, flat[0] + np.arange(flat.size)):
            grid = transposed_range(flat, shape[axis])
            if grid is not None:
                return _transposed(op, data, grid, axis, target)
            return self._table(node, op, plain, axis)
        cuts = {axis: Cut(int(flat[0]), 1, flat.size)}
        part = data if flat.size == shape[axis] else make_slice(op, data, cuts)
        return _reshaped(op, part, target)

    def _table(self, node: ir.Node, op: Builder, plain: Array, axis: int) -> Result:
        indices, data = constant(operand(node, 1)), operand(node, 0)
        shape, target = static(data), static(node.outputs[0])
        if indices is None or shape is None or target is None:
            return None
        rows = rows_of(plain)
        if rows is not None:
            parts = [make_slice(op, data, {axis: cut}) for cut in rows]
            wide = (*shape[:axis], plain.size, *shape[axis + 1 :])
            joined = op.op("Concat", parts, {"axis": axis}, shape=wide, dtype=data.dtype)
            return _reshaped(op, joined, target)
        if indices.dtype == np.int64 and (indices >= 0).all() and indices.ndim == 1:
            return None
        wide = (*shape[:axis], plain.size, *shape[axis + 1 :])
        flat = op.constant(plain.reshape(-1))
        y = op.op("Gather", [data, flat], {"axis": axis}, shape=wide, dtype=data.dtype)
        return _reshaped(op, y, target)


def _transposed(
    op: Builder, data: ir.Value, grid: tuple[int, int], axis: int, target: tuple[int, ...]
) -> ir.Value:
    """The axis as a grid whose two axes change places."""
    shape = static(data) or ()
    split = (*shape[:axis], *grid, *shape[axis + 1 :])
    perm = [*range(axis), axis + 1, axis, *range(axis + 2, len(split))]
    x = _reshaped(op, data, split)
    moved = tuple(split[p] for p in perm)
    x = op.op("Transpose", [x], {"perm": perm}, shape=moved, dtype=data.dtype)
    return _reshaped(op, x, target)


def _reshaped(op: Builder, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    if static(x) == shape:
        return x
    to = op.constant(np.array(shape, np.int64))
    return op.op("Reshape", [x, to], {"allowzero": 0}, shape=shape, dtype=x.dtype)
