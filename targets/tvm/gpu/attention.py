"""Attention of one head for a few queries: scores in shared memory, softmax, weighted sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.errors import UnsupportedModelError
from edgevit.targets.tvm.gpu.body import (
    BLOCK,
    barrier,
    kept,
    number,
    only_if,
    registers,
    set_register,
    shared,
)
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.kernels.attention import Attention, Heads

__all__ = ["AttentionRows"]

_WIDE = 1024  # elements of a row of V at most
_ZERO = 0.0


@dataclass(frozen=True)
class AttentionRows:
    """A block has ``rows`` queries of a head and all of its keys; scratch is not used."""

    kernel: Attention
    gpu: Gpu

    @property
    def chunk(self) -> int:
        """Keys in shared memory at a time."""
        return 64 if self.kernel.depth <= 64 else 32 if self.kernel.depth <= 128 else 16

    @property
    def rows(self) -> int:
        """Queries of a block: many for fewer reads, few for more blocks.

        Raises:
            UnsupportedModelError: Not even one row of scores fits into shared memory.
        """
        one = self.kernel
        fitting = [r for r in (16, 8, 4, 2, 1) if self._bytes(r) <= self.gpu.memory]
        if not fitting:
            raise UnsupportedModelError(
                f"attention over {one.keys} keys of {one.depth} elements has no schedule for "
                f"{self.gpu.memory} bytes of shared memory"
            )
        heads = one.batch * one.heads
        busy = [r for r in fitting if heads * -(-one.queries // r) >= self.gpu.units]
        return busy[0] if busy else fitting[min(len(fitting) - 1, 2)]

    def _bytes(self, rows: int) -> int:
        one = self.kernel
        keys = self.chunk * (one.depth | 1)
        return 4 * (rows * (one.keys + one.depth) + keys + BLOCK * 6 + 64)

    @property
    def _shares(self) -> int:
        return -(-self.kernel.queries // self.rows)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.kernel.batch * self.kernel.heads * self._shares

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return BLOCK

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Scores, softmax, weighted sums, a barrier after each."""
        body = _Block(self, buffers, block, thread)
        body.scores()
        body.softmax()
        body.weighted()


class _Block:
    """The statements of a thread."""

    def __init__(
        self, plan: AttentionRows, buffers: Sequence[Any], block: Any, thread: Any
    ) -> None:
        one = plan.kernel
        self.plan, self.one, self.thread, self.rows = plan, one, thread, plan.rows
        self.q, self.k, self.v = buffers[:3]
        self.mask = buffers[3] if one.mask else None
        self.output = buffers[-1]
        shares = plan._shares
        self.first = block % shares * self.rows
        head = block // shares
        self.sample, self.head = head // one.heads, head % one.heads
        self.group = self.head // (one.heads // one.key_heads)
        self.score = shared(one.keys * self.rows)  # [key][row]
        self.inverse = shared(self.rows)

    def _query(self, row: Any) -> Any:
        """A row's query, the last one again past the end."""
        row = self.first + row
        one = self.one
        if one.queries % self.rows == 0:
            return row
        return tirx.min(row, number(one.queries - 1))

    def _copied(self, count: int, put: Any) -> None:
        """Call ``put(index)`` for every index below ``count``, shared among the threads."""
        whole, rest = divmod(count, BLOCK)
        if whole:
            with T.serial(0, whole) as i:
                put(i * BLOCK + self.thread)
        if rest:
            with only_if(self.thread < rest):
                put(whole * BLOCK + self.thread)

    def scores(self) -> None:
        """Scaled and masked products of the block's queries with all keys."""
        one, rows, chunk = self.one, self.rows, self.plan.chunk
        depth = one.depth
        queries = shared(rows * depth)  # [element][row]
        start = one.q.start(self.sample, self.head)

        def query(i: Any) -> None:
            row, d = i // depth, i % depth
            value = self.q[start + self._query(row) * one.q.row + d]
            set_register(queries, value, d * rows + row)

        self._copied(rows * depth, query)
        pitch = depth | 1  # odd: neighbors are in different banks
        keys = shared(chunk * pitch)
        origin = one.k.start(self.sample, self.group)
        with T.serial(0, -(-one.keys // chunk)) as step:

            def key(i: Any) -> None:
                place, d = i // depth, i % depth
                at = tirx.min(step * chunk + place, number(one.keys - 1))
                value = self.k[origin + at * one.k.row + d]
                set_register(keys, value, place * pitch + d)

            self._copied(chunk * depth, key)
            barrier()
            self._products(queries, keys, pitch, step * chunk)
            barrier()

    def _products(self, queries: Any, keys: Any, pitch: int, first: Any) -> None:
        """A thread has one key and a share of the rows."""
        one, rows, chunk = self.one, self.rows, self.plan.chunk
        parts = min(BLOCK // chunk, rows)
        each = rows // parts
        key, part = self.thread % chunk, self.thread // chunk
        some = parts * chunk < BLOCK
        ragged = one.keys % chunk != 0
        inside = tirx.all(part < parts, first + key < one.keys)
        with only_if(inside, some or ragged):
            sums = registers(each)
            for r in range(each):
                set_register(sums, tirx.const(_ZERO, "float32"), r)
            with T.serial(0, one.depth) as d:
                value = kept(keys[key * pitch + d])
                for r in range(each):
                    q = queries[d * rows + part * each + r]
                    set_register(sums, sums[r] + q * value, r)
            for r in range(each):
                row = part * each + r
                score = self._masked(sums[r], row, first + key)
                set_register(self.score, score, (first + key) * rows + row)

    def _masked(self, score: Any, row: Any, key: Any) -> Any:
        one = self.one
        if one.scale != 1.0:
            score = score * tirx.const(one.scale, "float32")
        if one.mask is None:
            return score
        lies: Heads = one.mask.heads
        at = lies.start(self.sample, self.head) + self._query(row) * lies.row
        return score + self.mask[at + key * one.mask.column]  # type: ignore[index]

    def softmax(self) -> None:
        """Scores become exponentials; the inverse of each row's sum is kept."""
        one, rows = self.one, self.rows
        parts = BLOCK // rows
        row, part = self.thread % rows, self.thread // rows
        best = registers(1)
        set_register(best, tirx.const(float("-inf"), "float32"))

        def larger(at: Any) -> None:
            set_register(best, tirx.max(best[0], self.score[at]))

        self._walk(part, parts, row, larger)
        self._combined(best, row, part, parts, tirx.max)
        total = registers(1)
        set_register(total, tirx.const(_ZERO, "float32"))

        def power(at: Any) -> None:
            value = kept(tirx.exp(self.score[at] - best[0]))
            set_register(self.score, value, at)
            set_register(total, total[0] + value)

        self._walk(part, parts, row, power)
        self._combined(total, row, part, parts, lambda x, y: x + y)
        with only_if(part < 1):
            set_register(self.inverse, tirx.const(1.0, "float32") / total[0], row)
        barrier()
        del one

    def _walk(self, part: Any, parts: int, row: Any, visit: Any) -> None:
        """Visit a thread's share of a row of scores."""
        keys = self.one.keys
        with T.serial(0, -(-keys // parts)) as i:
            key = i * parts + part
            with only_if(key < keys, keys % parts != 0):
                visit(key * self.rows + row)

    def _combined(self, register: Any, row: Any, part: Any, parts: int, combine: Any) -> None:
        """All parts of a row in every thread of it, in the same order."""
        every = shared(BLOCK)
        set_register(every, register[0], part * self.rows + row)
        barrier()
        set_register(register, every[row])
        with T.serial(1, parts) as i:
            set_register(register, combine(register[0], every[i * self.rows + row]))

    def weighted(self) -> None:
        """Rows of V weighted by the exponentials: a thread has one column of some rows."""
        one, rows = self.one, self.rows
        each = min(4, rows)
        items = rows // each * one.width
        parts = max(1, BLOCK // items)
        part, own = self.thread // items, self.thread % items
        if parts == 1:
            self._copied(items, lambda item: self._whole(item, each))
            return
        sums = registers(each)
        with only_if(part < parts, parts * items < BLOCK):
            self._sum(sums, own, each, part, parts)
        every = shared(BLOCK * each)
        with only_if(part < parts, parts * items < BLOCK):
            for r in range(each):
                set_register(every, sums[r], (r * parts + part) * items + own)
        barrier()

        def together(at: Any) -> None:
            r, item = at // items, at % items
            total = every[r * parts * items + item]
            for p in range(1, parts):
                total = total + every[(r * parts + p) * items + item]
            self._put(total, item, r, each)

        self._copied(each * items, together)

    def _whole(self, item: Any, each: int) -> None:
        sums = registers(each)
        self._sum(sums, item, each, 0, 1)
        for r in range(each):
            self._put(sums[r], item, r, each)

    def _sum(self, sums: Any, item: Any, each: int, part: Any, parts: int) -> None:
        one = self.one
        column, rows = item % one.width, item // one.width * each
        for r in range(each):
            set_register(sums, tirx.const(_ZERO, "float32"), r)
        start = one.v.start(self.sample, self.group) + column
        share = -(-one.keys // parts)
        with T.serial(0, share) as i:
            key = part * share + i
            with only_if(key < one.keys, one.keys % parts != 0):
                value = kept(self.v[start + key * one.v.row])
                for r in range(each):
                    weight = self.score[key * self.rows + rows + r]
                    set_register(sums, sums[r] + weight * value, r)

    def _put(self, total: Any, item: Any, r: Any, each: int) -> None:
        one = self.one
        column, row = item % one.width, item // one.width * each + r
        query = self.first + row
        with only_if(query < one.queries, one.queries % self.rows != 0):
            at = one.o.start(self.sample, self.head) + query * one.o.row + column
            set_register(self.output, total * self.inverse[row], at)
