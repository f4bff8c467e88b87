"""A register tile: some rows of A times one packed panel of B, summed over K in registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.kernel import load, local, loop, spread, store
from edgevit.targets.tvm.machine import Machine

__all__ = ["Blocks", "Spot", "Tile", "finish", "parallel_worth", "tile_rows", "tiles"]

# Chains of dependent additions that keep two units of latency four busy.
_CHAINS = 8
# Multiplies below which waking another core costs more than it saves.
_PARALLEL = 400_000
_ROWS = 12


def parallel_worth(multiplies: int) -> bool:
    """Whether a loop of so many multiplies should be shared by the cores."""
    return multiplies >= _PARALLEL


def tile_rows(machine: Machine, vectors: int) -> int:
    """Rows of a tile so wide: accumulators, one row of B and a broadcast fit in registers."""
    return min(_ROWS, (machine.registers - 2 - vectors) // vectors)


class Tile:
    """Accumulators of ``rows`` x ``vectors`` vectors, zero at first.

    Where the tile is small, several sets take turns along K, so that the additions of one
    need not wait for each other.
    """

    def __init__(self, rows: int, vectors: int, lanes: int, dtype: str = "float32") -> None:
        self.rows, self.vectors, self.lanes = rows, vectors, lanes
        self.ways = max(1, min(4, _CHAINS // (rows * vectors)))
        self._zero = spread(tirx.const(0, dtype), lanes)
        self._sets = [
            [[local(lanes, dtype) for _ in range(vectors)] for _ in range(rows)]
            for _ in range(self.ways)
        ]

    def clear(self) -> None:
        """Every sum to zero."""
        for accumulators in self._sets:
            for row in accumulators:
                for one in row:
                    store(one, 0, self._zero, self.lanes)

    def begin(self, values: Sequence[Any]) -> None:
        """The sums of each vector of every row to ``values``; after ``clear``."""
        for row in self._sets[0]:
            for one, value in zip(row, values, strict=True):
                store(one, 0, value, self.lanes)

    def step(self, way: int, left: Sequence[Any], right: Sequence[Any], product: Any) -> None:
        """One step along K: ``product(sum, left[row], right[vector])`` for each pair."""
        for row, a in zip(self._sets[way], left, strict=True):
            for one, b in zip(row, right, strict=True):
                store(one, 0, product(load(one, 0, self.lanes), a, b), self.lanes)

    def accumulate(self, count: int, step: Callable[[Any, int], None]) -> None:
        """Call ``step(k, way)`` for every k below ``count``, the ways in turn."""
        rounds, rest = divmod(count, self.ways)
        if rounds:
            with loop(rounds) as i:
                for way in range(self.ways):
                    step(i * self.ways + way, way)
        for way in range(rest):
            step(tirx.const(rounds * self.ways + way, "int32"), way)

    def total(self, row: int, vector: int) -> Any:
        """The sum of a row's vector."""
        parts = [load(s[row][vector], 0, self.lanes) for s in self._sets]
        return sum(parts[1:], parts[0])

    def multiply(self, a: Any, rows: Sequence[Any], b: Any, panel: Any, count: int) -> None:
        """Add ``count`` neighbors of A's rows times as many rows of a float32 panel.

        Args:
            a: Flat buffer of the left side.
            rows: Index of each row's first element.
            b: Flat buffer of packed panels.
            panel: Index of the first row's first element in it.
            count: Steps along K.
        """
        width = self.vectors * self.lanes
        starts = [panel + v * self.lanes for v in range(self.vectors)]
        self.multiply_rows(a, rows, b, starts, width, count)

    def multiply_rows(
        self,
        a: Any,
        rows: Sequence[Any],
        b: Any,
        starts: Sequence[Any],
        stride: int,
        count: int,
    ) -> None:
        """The same with rows of B that lie anywhere.

        Args:
            a: Flat buffer of the left side.
            rows: Index of each row's first element.
            b: Flat buffer of the right side.
            starts: Index of each vector of its first row.
            stride: From one row of it to the next.
            count: Steps along K.
        """

        def step(k: Any, way: int) -> None:
            right = [load(b, start + k * stride, self.lanes) for start in starts]
            left = [spread(a[row + k], self.lanes) for row in rows]
            self.step(way, left, right, lambda s, x, y: s + x * y)

        self.accumulate(count, step)


@dataclass(frozen=True)
class Blocks:
    """Rows 0..count-1 in as few even blocks of at most ``most`` rows as there can be.

    The last one overlaps its neighbor instead of ending early.
    """

    count: int
    most: int

    @property
    def size(self) -> int:
        """Rows of each block."""
        return -(-self.count // -(-self.count // self.most))

    @property
    def number(self) -> int:
        """Blocks."""
        return -(-self.count // self.size)

    def start(self, block: Any) -> Any:
        """First row of a block."""
        first = block * self.size
        if self.count % self.size == 0:
            return first
        return tirx.min(first, tirx.const(self.count - self.size, "int32"))


@dataclass(frozen=True)
class Spot:
    """Where a tile is.

    Attributes:
        blocks: How the rows are cut.
        vectors: Width of the tile.
        block: Which block of rows.
        panel: Which panel of columns.
        outer: Which repetition of the whole output.
    """

    blocks: Blocks
    vectors: int
    block: Any
    panel: Any
    outer: Any

    def rows(self) -> list[Any]:
        """Index of each row."""
        first = self.blocks.start(self.block)
        return [first + r for r in range(self.blocks.size)]


def tiles(
    machine: Machine,
    rows: int,
    columns: Columns,
    multiplies: int,
    write: Callable[[Spot], None],
    outer: int = 1,
    most: int = 0,
) -> None:
    """Call ``write`` for all tiles of an output, in one loop, parallel where that is worth it.

    Panels come before blocks of rows in the order: a core goes through the rows while a
    panel stays in its cache.

    Args:
        machine: Whose registers are filled.
        rows: Rows of the output.
        columns: Its columns.
        multiplies: Of the whole kernel.
        write: Writes the statements of one tile.
        outer: How often the whole output is repeated: groups or heads.
        most: Rows of a tile at most; 0: as many as registers allow.
    """
    limit = most or _ROWS
    full = _even(rows, min(limit, tile_rows(machine, columns.height)))
    last = min(limit, tile_rows(machine, columns.rest)) if columns.rest else limit
    rest = _even(rows, last) if columns.rest else full
    many = columns.full * full.number
    few = rest.number if columns.rest else 0
    with loop(outer * (many + few), parallel=parallel_worth(multiplies)) as task:
        turn, task = (0, task) if outer == 1 else _divide(task, many + few)
        if many:
            with _only_if(task < many, bool(few)):
                panel, block = _divide(task, full.number)
                write(Spot(full, columns.height, block, panel, turn))
        if few:
            with _only_if(task >= many, bool(many)):
                write(Spot(rest, columns.rest, task - many, columns.full, turn))


def _even(rows: int, most: int) -> Blocks:
    """Blocks of ``most`` rows or one less: 50 rows are 10 of 5 and no 9 of 6 that overlap."""
    wide, narrow = Blocks(rows, most), Blocks(rows, max(1, most - 1))
    spare = wide.number * wide.size > narrow.number * narrow.size
    return narrow if spare and most > 2 else wide


def _divide(index: Any, by: int) -> tuple[Any, Any]:
    return (index // by, index % by) if by > 1 else (index, 0)


@contextmanager
def _only_if(condition: Any, needed: bool) -> Iterator[None]:
    if not needed:
        yield
        return
    with T.If(condition), T.Then():
        yield


def finish(
    tile: Tile,
    epilogue: Epilogue,
    buffers: Sequence[Any],
    columns: Sequence[Any],
    places: Sequence[Any],
    rows: Sequence[Any] = (),
) -> None:
    """Apply an epilogue to a tile and store it.

    Args:
        tile: The sums.
        epilogue: What follows them.
        buffers: Its operands; the last one is the output.
        columns: First column of each vector.
        places: Index in the output of each row's column 0.
        rows: Index of each row, where rows have scales.
    """
    for row, place in enumerate(places):
        for vector, column in enumerate(columns):
            value = epilogue.apply(
                tile.total(row, vector),
                buffers,
                column,
                place + column,
                tile.lanes,
                rows[row] if rows else None,
            )
            store(buffers[-1], place + column, value, tile.lanes)
