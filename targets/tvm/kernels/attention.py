"""Attention of all heads: softmax(scale Q K^T + mask) V, scores never leaving the cache.

K is packed once a head. Then each block of queries goes through products with K into a few
rows of scratch, exponentials in place, and products with V, divided by the sums at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, spread, store
from edgevit.targets.tvm.kernels.shuffle import across, joined
from edgevit.targets.tvm.kernels.tile import Blocks, Tile, parallel_worth, tile_rows
from edgevit.targets.tvm.kernels.transpose import Transposed
from edgevit.targets.tvm.machine import Machine

__all__ = ["Attention", "Heads", "Mask"]

_INFINITE = float("inf")
# Tasks to share among cores: enough for eight of them to be even.
_TASKS = 16


@dataclass(frozen=True)
class Heads:
    """Where the rows of Q, K, V or of the output lie; a row's elements are neighbors.

    Attributes:
        batch: Elements from one sample to the next.
        head: Elements from one head to the next.
        row: Elements from one token to the next.
    """

    batch: int
    head: int
    row: int

    def start(self, sample: Any, head: Any) -> Any:
        """Where a head starts."""
        return sample * self.batch + head * self.head

    def extent(self, samples: int, heads: int, rows: int, columns: int) -> int:
        """Elements from the first one to the last."""
        last = self.start(samples - 1, heads - 1) + (rows - 1) * self.row
        return int(last) + columns


@dataclass(frozen=True)
class Mask:
    """A float32 operand that is added to the scores; strides are 0 where it repeats.

    Attributes:
        heads: Strides of samples, heads and queries.
        column: Stride of keys: 1 or 0.
    """

    heads: Heads
    column: int = 1


@dataclass(frozen=True)
class Attention:
    """O[b, h, s, e] = sum_t softmax_t(scale Q[b, h, s] K[b, h', t] + mask) V[b, h', t, e].

    Attributes:
        machine: Whose registers are filled; the scratch depends on it.
        batch: Samples.
        heads: Heads of Q, a multiple of ``key_heads``: neighbors share a head of K and V.
        key_heads: Heads of K and V.
        queries: S.
        keys: T.
        depth: Elements of a row of Q and K.
        width: Elements of a row of V and of the output.
        scale: Of the products.
        q: Where Q lies.
        k: Where K lies.
        v: Where V lies.
        o: Where the output lies; it must not overlap the inputs.
        mask: Added to the scaled products, if any.
    """

    machine: Machine
    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    q: Heads
    k: Heads
    v: Heads
    o: Heads
    mask: Mask | None = None

    label = "attention"

    @property
    def _packed(self) -> Transposed:
        machine = self.machine
        lanes, height = machine.lanes, machine.tile_vectors
        return Transposed(self.keys, self.depth, lanes, height, self.k.row)

    @property
    def _rows(self) -> Blocks:
        return Blocks(self.queries, tile_rows(self.machine, self.machine.tile_vectors))

    @property
    def _shares(self) -> Blocks:
        """Blocks of rows dealt to tasks, overlapping as rows do."""
        shares = -(-_TASKS // (self.batch * self.heads)) if self._worth else 1
        return Blocks(self._rows.number, -(-self._rows.number // shares))

    @property
    def _scores(self) -> int:
        """Elements of a row of scores: whole vectors."""
        return self._packed.vectors * self.machine.lanes

    @property
    def _worth(self) -> bool:
        products = self.queries * self.keys * (self.depth + self.width)
        return parallel_worth(self.batch * self.heads * products)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Q, K, V, mask if any, scratch, output."""
        packs = self.batch * self.key_heads * self._packed.size
        tasks = self.batch * self.heads * self._shares.number
        scratch = packs + tasks * self._rows.size * self._scores
        b, h, g = self.batch, self.heads, self.key_heads
        mask: tuple[Operand, ...] = ()
        if self.mask:
            columns = (self.keys - 1) * self.mask.column + 1
            size = self.mask.heads.extent(b, h, self.queries, columns)
            mask = (Operand("mask", "float32", size),)
        return (
            Operand("q", "float32", self.q.extent(b, h, self.queries, self.depth)),
            Operand("k", "float32", self.k.extent(b, g, self.keys, self.depth)),
            Operand("v", "float32", self.v.extent(b, g, self.keys, self.width)),
            *mask,
            Operand("scratch", "float32", scratch, written=True),
            Operand(
                "output",
                "float32",
                self.o.extent(b, h, self.queries, self.width),
                written=True,
            ),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Pack all heads of K, then blocks of queries."""
        k, scratch, packed = buffers[1], buffers[-2], self._packed
        with loop(self.batch * self.key_heads, parallel=self._worth) as head:
            first = self.k.start(head // self.key_heads, head % self.key_heads)
            packed.write(k, first, scratch, head * packed.size)
        shares = self._shares
        with loop(self.batch * self.heads * shares.number, parallel=self._worth) as task:
            head = task // shares.number
            share = shares.start(task % shares.number)
            with loop(shares.size) as block:
                _Block(self, buffers, task, head, self._rows.start(share + block)).write()


class _Block:
    """The statements for one block of queries of one head."""

    def __init__(
        self, kernel: Attention, buffers: Any, task: Any, head: Any, first: Any
    ) -> None:
        self.kernel, self.lanes = kernel, kernel.machine.lanes
        self.q, self.k, self.v = buffers[:3]
        self.mask = buffers[3] if kernel.mask else None
        self.scratch, self.output = buffers[-2:]
        self.sample, self.head = head // kernel.heads, head % kernel.heads
        self.group = self.head // (kernel.heads // kernel.key_heads)
        self.rows = [first + r for r in range(kernel._rows.size)]
        packs = kernel.batch * kernel.key_heads * kernel._packed.size
        row = kernel._scores
        base = packs + task * (len(self.rows) * row)
        self.scores = [base + r * row for r in range(len(self.rows))]

    def write(self) -> None:
        """Scores, exponentials, weighted sums."""
        packed = self.kernel._packed
        last = -(-packed.vectors // packed.height) - 1
        if last:
            with loop(last) as panel:
                self._products(panel, packed.height, whole=True)
        self._products(last, packed.width(last), whole=False)
        inverses = [self._softmax(start) for start in self.scores]
        self._weighted(inverses)

    def _products(self, panel: Any, vectors: int, whole: bool) -> None:
        """Scores of the block with one panel of keys."""
        kernel, lanes = self.kernel, self.lanes
        tile = Tile(len(self.rows), vectors, lanes)
        tile.clear()
        q = kernel.q.start(self.sample, self.head)
        rows = [q + r * kernel.q.row for r in self.rows]
        pack = (self.sample * kernel.key_heads + self.group) * kernel._packed.size
        start = pack + kernel._packed.panel(panel)
        tile.multiply(self.q, rows, self.scratch, start, kernel.depth)
        for r in range(len(self.rows)):
            for v in range(vectors):
                column = (panel * kernel._packed.height + v) * lanes
                count = lanes if whole else min(lanes, kernel.keys - int(column))
                score = self._masked(tile.total(r, v), self.rows[r], column, count)
                store(self.scratch, self.scores[r] + column, score, lanes)

    def _masked(self, products: Any, row: Any, column: Any, count: int) -> Any:
        """Scaled scores plus the mask; lanes past the last key become -inf."""
        kernel, lanes = self.kernel, self.lanes
        score = products
        if kernel.scale != 1.0:
            score = score * vmath.constant(kernel.scale, score)
        if kernel.mask:
            first = kernel.mask.heads.start(self.sample, self.head)
            first = first + row * kernel.mask.heads.row
            if kernel.mask.column:
                added = load(self.mask, first + column, count)
            else:
                added = spread(self.mask[first], count)  # type: ignore[index]
            return score + joined(added, count, -_INFINITE, lanes)
        if count == lanes:
            return score
        zeros = spread(tirx.const(0.0, "float32"), count)
        return score + joined(zeros, count, -_INFINITE, lanes)

    def _softmax(self, start: Any) -> Any:
        """Replace a row of scores by exponentials; returns the inverse of their sum."""
        lanes, vectors = self.lanes, self.kernel._packed.vectors
        largest, total, inverse = local(lanes), local(lanes), local(1)
        store(largest, 0, load(self.scratch, start, lanes), lanes)
        if vectors > 1:
            with loop(vectors - 1) as i:
                one = load(self.scratch, start + (i + 1) * lanes, lanes)
                store(largest, 0, tirx.max(load(largest, 0, lanes), one), lanes)
        peak = local(1)
        T.buffer_store(peak, across(tirx.max, largest, lanes), [0])
        zero = tirx.const(0.0, "float32")
        store(total, 0, T.Broadcast(zero, lanes), lanes)
        with loop(vectors) as i:
            at = start + i * lanes
            power = local(lanes)
            less = load(self.scratch, at, lanes) - T.Broadcast(peak[0], lanes)
            store(power, 0, vmath.exp_below(less), lanes)
            store(self.scratch, at, load(power, 0, lanes), lanes)
            store(total, 0, load(total, 0, lanes) + load(power, 0, lanes), lanes)
        one = tirx.const(1.0, "float32")
        T.buffer_store(inverse, one / across(lambda x, y: x + y, total, lanes), [0])
        return inverse[0]

    def _weighted(self, inverses: list[Any]) -> None:
        """Rows of V weighted by the exponentials, divided by their sums."""
        kernel = self.kernel
        columns = Columns(kernel.width, self.lanes, kernel.machine.tile_vectors)
        v = kernel.v.start(self.sample, self.group)
        o = kernel.o.start(self.sample, self.head)
        for panel in range(columns.panels):
            vectors = columns.height if panel < columns.full else columns.rest
            starts = [columns.start(panel, i) for i in range(vectors)]
            tile = Tile(len(self.rows), vectors, columns.lanes)
            tile.clear()
            at = [v + s for s in starts]
            tile.multiply_rows(
                self.scratch, self.scores, self.v, at, kernel.v.row, kernel.keys
            )
            for r, inverse in enumerate(inverses):
                factor = spread(inverse, columns.lanes)
                for i, start in enumerate(starts):
                    place = o + self.rows[r] * kernel.o.row + start
                    store(self.output, place, tile.total(r, i) * factor, columns.lanes)
