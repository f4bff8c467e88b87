"""Matrix products of two tensors that are both computed at run time."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.kernel import Operand, load, loop, store
from edgevit.targets.tvm.kernels.rows import spread
from edgevit.targets.tvm.kernels.tile import Spot, Tile, parallel_worth, tiles
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.strides import Loop

__all__ = ["Products"]


@dataclass(frozen=True)
class Products:
    """``out[..., m, n] = sum_k a[..., m, k] b[..., k, n]``.

    Attributes:
        batch: Loops over the leading axes: strides of a, b and the result.
        rows: M.
        depth: K.
        columns: N; neighbors in b.
        left: Strides of a: from row to row, and along K.
        right: Stride of b along K.
    """

    batch: tuple[Loop, ...]
    rows: int
    depth: int
    columns: int
    left: tuple[int, int]
    right: int

    label = "products"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """a, b, the result."""
        reach = [sum((n.size - 1) * n.strides[i] for n in self.batch) for i in range(3)]
        a = (self.rows - 1) * self.left[0] + (self.depth - 1) * self.left[1] + 1
        b = (self.depth - 1) * self.right + self.columns
        return (
            Operand("a", "float32", reach[0] + a),
            Operand("b", "float32", reach[1] + b),
            Operand("out", "float32", reach[2] + self.rows * self.columns, written=True),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Register tiles that read b where it lies."""
        a, b, out = buffers
        columns = Columns(self.columns, machine.lanes, machine.tile_vectors)
        each = self.rows * self.columns * self.depth
        count = math.prod(n.size for n in self.batch)
        with ExitStack() as stack:
            at: list[Any] = [0, 0, 0]
            for depth, one in enumerate(self.batch):
                wide = depth == 0 and parallel_worth(each * count)
                index = stack.enter_context(loop(one.size, parallel=wide))
                at = [x + index * s for x, s in zip(at, one.strides, strict=True)]

            def write(spot: Spot) -> None:
                self._tile(columns, spot, (a, b, out), at)

            tiles(machine, self.rows, columns, 0 if self.batch else each, write)

    def _tile(self, columns: Columns, spot: Spot, buffers: Any, at: list[Any]) -> None:
        a, b, out = buffers
        rows, lanes = spot.rows(), columns.lanes
        starts = [columns.start(spot.panel, v) for v in range(spot.vectors)]
        tile = Tile(len(rows), spot.vectors, lanes)
        tile.clear()

        def step(k: Any, way: int) -> None:
            right = [load(b, at[1] + k * self.right + s, lanes) for s in starts]
            left = [
                spread(a[at[0] + r * self.left[0] + k * self.left[1]], lanes) for r in rows
            ]
            tile.step(way, left, right, lambda total, x, y: total + x * y)

        tile.accumulate(self.depth, step)
        for r, row in enumerate(rows):
            for vector, start in enumerate(starts):
                place = at[2] + row * self.columns + start
                store(out, place, tile.total(r, vector), lanes)
