"""Attention as one kernel: scores, softmax and values of a block of rows stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.kernel import Operand, load, loop, store
from edgevit.targets.tvm.kernels.rows import Row, spread
from edgevit.targets.tvm.kernels.tile import Blocks, Tile, parallel_worth, tile_rows
from edgevit.targets.tvm.machine import Machine

__all__ = ["Attention", "Mask", "Strided"]

# Tasks enough for the cores of a device; each keeps the scores of one block of rows.
_TASKS = 12
# No machine's register tile has more rows.
_ROWS = 12


@dataclass(frozen=True)
class Strided:
    """How [B, H, rows, columns] lies, columns being neighbors.

    Attributes:
        batch, head, row: Elements from one to the next.
    """

    batch: int
    head: int
    row: int

    def at(self, batch: Any, head: Any, row: Any) -> Any:
        """The first element of a row."""
        return batch * self.batch + head * self.head + row * self.row

    def reach(self, batch: int, heads: int, rows: int, columns: int) -> int:
        """Elements from the first to the last."""
        return int(self.at(batch - 1, heads - 1, rows - 1)) + columns


@dataclass(frozen=True)
class Mask:
    """What is added to the scores: strides, 0 where it is broadcast.

    Attributes:
        lies: Strides of batch, head and query.
        column: Stride of the key: 0 or 1.
    """

    lies: Strided
    column: int


@dataclass(frozen=True)
class Attention:
    """``out = softmax(scale q k^T + mask) v``.

    Attributes:
        batch: B.
        heads: H of the queries.
        shared: H of keys and values; query heads ``i * heads / shared`` on share head ``i``.
        queries: S.
        keys: T.
        depth: D, of queries and keys.
        width: E, of values and result.
        scale: Factor of the scores.
        q, k, v, out: How the tensors lie.
        mask: How the mask lies, if there is one.
    """

    batch: int
    heads: int
    shared: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    q: Strided
    k: Strided
    v: Strided
    out: Strided
    mask: Mask | None = None

    label = "attention"

    @property
    def packed(self) -> int:
        """Elements of one head's packed keys, whatever the machine's vectors are."""
        return (self.keys + 16) * self.depth

    @property
    def parts(self) -> int:
        """Tasks that share the rows of one head."""
        return max(1, min(-(-self.queries // _ROWS), -(-_TASKS // (self.batch * self.heads))))

    @property
    def scores(self) -> int:
        """Elements of all tasks' rows of scores."""
        return self.batch * self.heads * self.parts * _ROWS * self.keys

    @property
    def operands(self) -> tuple[Operand, ...]:
        """q, k, v, mask if there is one, scratch for keys and for scores, result."""
        found = [
            Operand("q", "float32", self._reach(self.q, self.heads, self.queries, self.depth)),
            Operand("k", "float32", self._reach(self.k, self.shared, self.keys, self.depth)),
            Operand("v", "float32", self._reach(self.v, self.shared, self.keys, self.width)),
        ]
        if self.mask is not None:
            last = self.keys if self.mask.column else 1
            size = self._reach(self.mask.lies, self.heads, self.queries, last)
            found.append(Operand("mask", "float32", size))
        scratch = self.batch * self.shared * self.packed
        found.append(Operand("packed", "float32", scratch, written=True))
        found.append(Operand("scores", "float32", self.scores, written=True))
        size = self._reach(self.out, self.heads, self.queries, self.width)
        return (*found, Operand("out", "float32", size, written=True))

    def _reach(self, lies: Strided, heads: int, rows: int, columns: int) -> int:
        return lies.reach(self.batch, heads, rows, columns)

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Pack the keys of every head, then walk blocks of rows of all heads."""
        q, k, v, *mask, packed, scores, out = buffers
        columns = Columns(self.keys, machine.lanes, machine.tile_vectors)
        wide = parallel_worth(self.batch * self.heads * self.queries * self.keys * self.depth)
        with loop(self.batch * self.shared, parallel=wide) as head:
            self._pack(columns, k, packed, head)
        rows = Blocks(self.queries, tile_rows(machine, machine.tile_vectors))
        each = -(-rows.number // self.parts)
        with loop(self.batch * self.heads * self.parts, parallel=wide) as task:
            head, part = task // self.parts, task % self.parts
            base = task * (_ROWS * self.keys)
            with loop(each) as turn:
                # The last part may have fewer blocks: it does its last one again.
                block = tirx.min(part * each + turn, tirx.const(rows.number - 1, "int32"))
                first = rows.start(block)
                at = [first + r for r in range(rows.size)]
                self._scores(columns, (q, packed, *mask), (scores, base), head, at)
                inverse = self._softmax(machine, (scores, base), rows.size)
                self._values(machine, (scores, v, out), base, inverse, head, at)

    def _split(self, head: Any) -> tuple[Any, Any, Any]:
        """Batch element, query head, and the head of keys and values that it uses."""
        batch, own = head // self.heads, head % self.heads
        return batch, own, own // (self.heads // self.shared)

    def _pack(self, columns: Columns, k: Any, packed: Any, head: Any) -> None:
        """Keys [T, D] as panels [vectors][D][lanes], as a register tile reads them."""
        batch, own = head // self.shared, head % self.shared
        lanes, base = columns.lanes, head * self.packed
        for panel in range(columns.panels):
            height = columns.height if panel < columns.full else columns.rest
            start = base + panel * columns.height * lanes * self.depth
            with loop(self.depth) as d:
                for vector in range(height):
                    first = columns.start(panel, vector)
                    for lane in range(lanes):
                        value = k[self.k.at(batch, own, first + lane) + d]
                        place = start + (d * height + vector) * lanes + lane
                        T.buffer_store(packed, value, [place])

    def _scores(
        self, columns: Columns, buffers: Any, target: Any, head: Any, rows: list[Any]
    ) -> None:
        q, packed, *mask = buffers
        scores, origin = target
        batch, own, shared = self._split(head)
        base = (batch * self.shared + shared) * self.packed
        lefts = [self.q.at(batch, own, row) for row in rows]

        def panel(index: Any, vectors: int) -> None:
            tile = Tile(len(rows), vectors, columns.lanes)
            tile.clear()
            start = base + index * (columns.height * columns.lanes * self.depth)
            tile.multiply(q, lefts, packed, start, self.depth)
            for r, row in enumerate(rows):
                for vector in range(vectors):
                    first = columns.start(index, vector)
                    value = tile.total(r, vector)
                    value = value * vmath.constant(self.scale, value)
                    if self.mask is not None:
                        where = self.mask.lies.at(batch, own, row)
                        value = value + self._mask(mask[0], where, first, columns.lanes)
                    store(scores, origin + r * self.keys + first, value, columns.lanes)

        if columns.full:
            with loop(columns.full) as index:
                panel(index, columns.height)
        if columns.rest:
            panel(tirx.const(columns.full, "int32"), columns.rest)

    def _mask(self, mask: Any, where: Any, first: Any, lanes: int) -> Any:
        assert self.mask is not None
        if self.mask.column:
            return load(mask, where + first, lanes)
        return spread(mask[where], lanes)

    def _softmax(self, machine: Machine, target: Any, rows: int) -> Any:
        """Exponentials in place; one over their sum, a number a row."""
        scores, origin = target
        inverse = T.alloc_buffer((rows,), "float32", scope="global")
        part = Row(self.keys, machine.lanes)
        with loop(rows) as row:
            base = origin + row * self.keys
            peak = part.reduced("max", float("-inf"), lambda at, n: load(scores, base + at, n))
            # A row that is masked throughout is NaN in the reference; here too: inf - inf.
            part.written(
                scores,
                base,
                lambda at, n: vmath.exp(load(scores, base + at, n) - spread(peak[0], n)),
            )
            total = part.reduced("sum", 0.0, lambda at, n: load(scores, base + at, n))
            T.buffer_store(inverse, tirx.const(1.0, "float32") / total[0], [row])
        return inverse

    def _values(
        self,
        machine: Machine,
        buffers: Any,
        base: Any,
        inverse: Any,
        head: Any,
        rows: list[Any],
    ) -> None:
        scores, v, out = buffers
        batch, own, shared = self._split(head)
        columns = Columns(self.width, machine.lanes, machine.tile_vectors)
        lanes = columns.lanes
        for panel in range(columns.panels):
            height = columns.height if panel < columns.full else columns.rest
            starts = [columns.start(panel, vector) for vector in range(height)]
            tile = Tile(len(rows), height, lanes)
            tile.clear()

            def step(k: Any, way: int, tile: Tile = tile, starts: list[Any] = starts) -> None:
                right = [load(v, self.v.at(batch, shared, k) + s, lanes) for s in starts]
                left = [
                    spread(scores[base + r * self.keys + k], lanes) for r in range(len(rows))
                ]
                tile.step(way, left, right, lambda total, x, y: total + x * y)

            tile.accumulate(self.keys, step)
            for r, row in enumerate(rows):
                for vector, start in enumerate(starts):
                    value = tile.total(r, vector) * spread(inverse[r], lanes)
                    store(out, self.out.at(batch, own, row) + start, value, lanes)
