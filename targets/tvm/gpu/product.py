"""Products of matrices: a tile a block, summed in registers from tiles in shared memory.

A thread has 4 x 4 sums. Where an output is so small that few tiles cover it, tiles are smaller
and several groups of threads share the steps along K; their sums are added at the end, in the
same order each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.gpu.body import (
    barrier,
    kept,
    number,
    only_if,
    registers,
    set_register,
    shared,
)
from edgevit.targets.tvm.kernels.kernel import load, store

__all__ = ["Product", "Tiling", "tiling"]

# Sums of a thread are a square of this side; so many floats are read at once.
_SIDE = 4
# Elements between rows in shared memory beyond the tile: neighbors along K in other banks.
_PAD = 4

Read = Callable[[Any, Any], Any]
Write = Callable[[Any, Any, Any], None]


@dataclass(frozen=True)
class Tiling:
    """How a block computes its tile.

    Attributes:
        rows: Of the tile.
        columns: Of the tile.
        groups: Of threads, each with its share of the steps along K.
        depth: Steps along K between two barriers.
    """

    rows: int
    columns: int
    groups: int
    depth: int

    @property
    def threads(self) -> int:
        """Of the block."""
        return self.rows * self.columns // _SIDE**2 * self.groups


# From the largest tile, which reads least, to the one with most blocks.
TILINGS = (
    Tiling(64, 64, 1, 16),
    Tiling(32, 64, 2, 16),
    Tiling(32, 32, 4, 32),
    Tiling(16, 32, 8, 32),
    Tiling(16, 16, 16, 64),
)


def tiling(rows: int, columns: int, outer: int, units: int) -> Tiling:
    """The largest tile of which enough cover the output; else the one with most blocks."""

    def blocks(t: Tiling) -> int:
        return outer * -(-rows // t.rows) * -(-columns // t.columns)

    enough = [t for t in TILINGS if blocks(t) >= units]
    return enough[0] if enough else max(TILINGS, key=blocks)


@dataclass(frozen=True)
class Product:
    """C[o, m, n] = sum over k of A[o, m, k] B[o, k, n].

    Attributes:
        outer: Products of the same shape.
        rows: M.
        columns: N.
        depth: K.
        tile: How a block computes its tile.
        along: Whether neighbors of B in memory are neighbors along K.
    """

    outer: int
    rows: int
    columns: int
    depth: int
    tile: Tiling
    along: bool = False

    @property
    def _across(self) -> int:
        return -(-self.columns // self.tile.columns)

    @property
    def _down(self) -> int:
        return -(-self.rows // self.tile.rows)

    @property
    def blocks(self) -> int:
        """Tiles of all products."""
        return self.outer * self._down * self._across

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.tile.threads

    def place(self, block: Any) -> tuple[Any, Any, Any]:
        """Which product, and the first row and column of a block's tile."""
        left = block % self._across
        down = block // self._across
        tile = self.tile
        outer = down // self._down if self.outer > 1 else number(0)
        return outer, down % self._down * tile.rows, left * tile.columns

    def write(self, block: Any, thread: Any, a: Read, b: Read, put: Write) -> None:
        """Write the statements.

        Args:
            block: Index of the block.
            thread: Index of the thread.
            a: Element of A at (row, k), both inside; float32.
            b: Element of B at (k, column), both inside.
            put: Called with a sum, its row and its column.
        """
        _Block(self, block, thread, a, b).write(put)


class _Block:
    """The statements of a thread."""

    def __init__(self, product: Product, block: Any, thread: Any, a: Read, b: Read) -> None:
        tile = product.tile
        self.product, self.tile, self.thread = product, tile, thread
        _, self.top, self.left = product.place(block)
        self.a, self.b = a, b
        wide = tile.columns // _SIDE
        per_group = tile.threads // tile.groups
        inside = thread % per_group
        self.group = thread // per_group
        self.row, self.column = inside // wide * _SIDE, inside % wide * _SIDE
        self.pitches = (tile.rows + _PAD, tile.columns + _PAD)
        self.tiles = [shared(2 * tile.depth * pitch) for pitch in self.pitches]
        self.slots = [tile.depth * s // tile.threads for s in (tile.rows, tile.columns)]
        self.fetched = [registers(n) for n in self.slots]
        self.sums = registers(_SIDE**2)

    def write(self, put: Write) -> None:
        """Fetch ahead, multiply, put away; then what follows the sums."""
        steps = -(-self.product.depth // self.tile.depth)
        for i in range(_SIDE**2):
            set_register(self.sums, tirx.const(0.0, "float32"), i)
        self._fetch(number(0))
        self._commit(number(0))
        barrier()
        if steps > 1:
            with T.serial(0, steps) as step:
                with only_if(step + 1 < steps):
                    self._fetch(step + 1)
                self._multiply(step % 2)
                with only_if(step + 1 < steps):
                    self._commit((step + 1) % 2)
                barrier()
        else:
            self._multiply(number(0))
        if self.tile.groups == 1:
            for i in range(_SIDE):
                for j in range(_SIDE):
                    self._put(put, self.sums[i * _SIDE + j], self.row + i, self.column + j)
        else:
            self._together(put)

    def _put(self, put: Write, value: Any, row: Any, column: Any) -> None:
        product, tile = self.product, self.tile
        row, column = self.top + row, self.left + column
        conditions = []
        if product.rows % tile.rows:
            conditions.append(row < product.rows)
        if product.columns % tile.columns:
            conditions.append(column < product.columns)
        inside = tirx.all(*conditions) if conditions else None
        with only_if(inside, inside is not None):
            put(value, row, column)

    def _slot(self, side: int, slot: int) -> tuple[Any, Any]:
        """(step along K, row or column) in the tile of an element that a thread fetches."""
        tile, product = self.tile, self.product
        index = self.thread + slot * tile.threads
        if side == 0 or product.along:
            return index % tile.depth, index // tile.depth
        return index // tile.columns, index % tile.columns

    def _fetch(self, step: Any) -> None:
        product, tile = self.product, self.tile
        limits = (product.rows, product.columns)
        firsts = (self.top, self.left)
        sizes = (tile.rows, tile.columns)
        for side in (0, 1):
            for slot in range(self.slots[side]):
                depth, place = self._slot(side, slot)
                k, place = step * tile.depth + depth, firsts[side] + place
                if limits[side] % sizes[side]:
                    place = tirx.min(place, number(limits[side] - 1))
                value = self.a(place, k) if side == 0 else self.b(k, place)
                if product.depth % tile.depth:
                    zero = tirx.const(0.0, "float32")
                    value = tirx.if_then_else(k < product.depth, value, zero)
                set_register(self.fetched[side], value, slot)

    def _commit(self, half: Any) -> None:
        for side in (0, 1):
            for slot in range(self.slots[side]):
                depth, place = self._slot(side, slot)
                at = (half * self.tile.depth + depth) * self.pitches[side] + place
                set_register(self.tiles[side], self.fetched[side][slot], at)

    def _multiply(self, half: Any) -> None:
        tile = self.tile
        share = tile.depth // tile.groups
        with T.unroll(0, share) as i:
            k = half * tile.depth + self.group * share + i
            left, right = registers(_SIDE), registers(_SIDE)
            for register, side, place in ((left, 0, self.row), (right, 1, self.column)):
                at = k * self.pitches[side] + place
                store(register, 0, load(self.tiles[side], at, _SIDE), _SIDE)
            for r in range(_SIDE):
                for c in range(_SIDE):
                    at = r * _SIDE + c
                    set_register(self.sums, self.sums[at] + left[r] * right[c], at)

    def _together(self, put: Write) -> None:
        """Add the sums of the groups; a thread has few elements of the tile then."""
        tile = self.tile
        size = tile.rows * tile.columns
        every = shared(tile.groups * size)
        for r in range(_SIDE):
            for c in range(_SIDE):
                at = self.group * size + (self.row + r) * tile.columns + self.column + c
                set_register(every, self.sums[r * _SIDE + c], at)
        barrier()
        for part in range(size // tile.threads):
            at = self.thread + part * tile.threads
            total = every[at]
            for group in range(1, tile.groups):
                total = total + every[group * size + at]
            self._put(put, kept(total), at // tile.columns, at % tile.columns)
