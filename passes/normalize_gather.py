"""``Gather`` of a contiguous range as ``Slice``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, operand, static
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
    3. Otherwise indices become non-negative int64.
    """

    name: ClassVar[str] = "normalize-gather"
    ops: ClassVar[frozenset[str]] = frozenset({"Gather"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Case 2 or 3."""
        data = operand(node, 0)
        indices, shape = constant(operand(node, 1)), static(data)
        target = static(node.outputs[0])
        if indices is None or shape is None or target is None or indices.size == 0:
            return Refused("indices are not constant, or the data's shape is not known")
        axis = int(attr(node, "axis", 0)) % len(shape)
        plain = np.where(indices < 0, indices + shape[axis], indices).astype(np.int64)
        flat = plain.reshape(-1)
        if not np.array_equal(flat, flat[0] + np.arange(flat.size)):
            return self._table(node, op, plain, axis)
        cuts = {axis: Cut(int(flat[0]), 1, flat.size)}
        part = data if flat.size == shape[axis] else make_slice(op, data, cuts)
        if static(part) == target:
            return part
        to = op.constant(np.array(target, np.int64))
        return op.op("Reshape", [part, to], {"allowzero": 0}, shape=target, dtype=data.dtype)

    def _table(self, node: ir.Node, op: Builder, plain: Array, axis: int) -> Result:
        indices = constant(operand(node, 1))
        if indices is not None and indices.dtype == np.int64 and (indices >= 0).all():
            return None
        out = node.outputs[0]
        data = operand(node, 0)
        return op.op(
            "Gather",
            [data, op.constant(plain)],
            {"axis": axis},
            shape=out.shape,
            dtype=data.dtype,
        )
