"""float32 products of matrices that are both computed at run time, for many pairs at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue
from edgevit.targets.tvm.kernels.kernel import Operand, loop
from edgevit.targets.tvm.kernels.tile import Spot, Tile, finish, parallel_worth, tiles
from edgevit.targets.tvm.kernels.transpose import Transposed
from edgevit.targets.tvm.machine import Machine

__all__ = ["Batched", "Matrices", "offset"]


@dataclass(frozen=True)
class Matrices:
    """Where matrices lie.

    Attributes:
        batch: Elements between neighbors along each batch axis; 0 where one repeats.
        row: Elements from one row to the next.
        column: Elements from one column to the next.
    """

    batch: tuple[int, ...]
    row: int
    column: int = 1

    def extent(self, batch: Sequence[int], rows: int, columns: int) -> int:
        """Elements from the first one to the last."""
        sizes, steps = (*batch, rows, columns), (*self.batch, self.row, self.column)
        return 1 + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))


def offset(index: Any, sizes: Sequence[int], strides: Sequence[int]) -> Any:
    """Where the ``index``-th matrix starts, axes counted row-major."""
    total: Any = tirx.const(0, "int32")
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size > 1:
            total = total + index % size * stride
            index = index // size
    return total


@dataclass(frozen=True)
class Batched:
    """C[i] = epilogue(A[i] B[i]) for every index i of the batch axes.

    Attributes:
        machine: Whose registers are filled; the scratch depends on it.
        batch: Sizes of the batch axes.
        rows: M.
        columns: N.
        depth: K.
        a: Where A [M, K] lies; its columns are neighbors.
        b: Where B [K, N] lies; its columns or its rows are neighbors.
        c: Where C (and a residual) [M, N] lies; its columns are neighbors.
        epilogue: What follows the sums.
    """

    machine: Machine
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    a: Matrices
    b: Matrices
    c: Matrices
    epilogue: Epilogue = PLAIN

    label = "batched"

    @property
    def _layout(self) -> Columns:
        return Columns(self.columns, self.machine.lanes, self.machine.tile_vectors)

    @property
    def _pack(self) -> Transposed | None:
        """How B is packed: where its rows are the neighbors."""
        if self.b.column == 1:
            return None
        lanes, height = self.machine.lanes, self.machine.tile_vectors
        return Transposed(self.columns, self.depth, lanes, height, self.b.column, overlap=True)

    @property
    def _different(self) -> tuple[int, ...]:
        """Sizes of the batch axes as B has them."""
        return tuple(n if s else 1 for n, s in zip(self.batch, self.b.batch, strict=True))

    @property
    def operands(self) -> tuple[Operand, ...]:
        """A, B, scratch if B is packed, the epilogue's reads, C."""
        places = self.c.extent(self.batch, self.rows, self.columns)
        pack = self._pack
        size = pack.size * math.prod(self._different) if pack else 0
        scratch = (Operand("scratch", "float32", size, written=True),) if pack else ()
        return (
            Operand("a", "float32", self.a.extent(self.batch, self.rows, self.depth)),
            Operand("b", "float32", self.b.extent(self.batch, self.depth, self.columns)),
            *scratch,
            *self.epilogue.operands(self.columns, places),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Pack B if needed, then tiles of all products."""
        pack, columns = self._pack, self._layout
        after = buffers[3 if pack else 2 :]
        multiplies = math.prod(self.batch) * self.rows * self.columns * self.depth
        if pack:
            parallel = parallel_worth(multiplies)
            with loop(math.prod(self._different), parallel=parallel) as i:
                first = offset(i, self._different, self.b.batch)
                pack.write(buffers[1], first, buffers[2], i * pack.size)

        def write(spot: Spot) -> None:
            rows = spot.rows()
            tile = Tile(len(rows), spot.vectors, columns.lanes)
            tile.clear()
            a = offset(spot.outer, self.batch, self.a.batch)
            starts = [columns.start(spot.panel, v) for v in range(spot.vectors)]
            self._sum(tile, buffers, [a + r * self.a.row for r in rows], starts, spot)
            c = offset(spot.outer, self.batch, self.c.batch)
            finish(tile, self.epilogue, after, starts, [c + r * self.c.row for r in rows])

        outer = math.prod(self.batch)
        tiles(machine, self.rows, columns, multiplies, write, outer)

    def _sum(
        self, tile: Tile, buffers: Any, rows: list[Any], starts: list[Any], spot: Spot
    ) -> None:
        pack = self._pack
        if pack is None:
            b = offset(spot.outer, self.batch, self.b.batch)
            at = [b + s for s in starts]
            tile.multiply_rows(buffers[0], rows, buffers[1], at, self.b.row, self.depth)
            return
        strides, step = [], 1
        for size in reversed(self._different):
            strides.append(step if size > 1 else 0)
            step *= size
        index = offset(spot.outer, self.batch, strides[::-1])
        panel = index * pack.size + pack.panel(spot.panel)
        at = [panel + v * pack.lanes for v in range(spot.vectors)]
        width = spot.vectors * pack.lanes
        tile.multiply_rows(buffers[0], rows, buffers[2], at, width, self.depth)
