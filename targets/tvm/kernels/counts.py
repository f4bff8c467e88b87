"""Products of two matrices of zeros and ones: bits that packed rows have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue
from edgevit.targets.tvm.kernels.kernel import Operand, load, spread
from edgevit.targets.tvm.kernels.tile import Spot, Tile, finish, tiles
from edgevit.targets.tvm.machine import Machine

__all__ = ["BinaryDot", "pack_words"]

WORD = 32


def pack_words(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Codes [..., K] of zeros and ones as words [..., K/32]: bit k % 32 of word k // 32."""
    up = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % WORD)]
    packed = np.packbits(np.pad(codes, up) != 0, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<i4")


@dataclass(frozen=True)
class BinaryDot:
    """C float32 [batch, M, N]: how many bits rows of A and columns of B have in common.

    LLVM writes the count: an instruction where the machine has one, else a table of 16.

    Attributes:
        batch: Pairs of matrices.
        rows: M.
        columns: N, dealt to tiles.
        words: Of 32 bits along K: A is [batch, M, words], B [batch, words, N].
        epilogue: What follows the counts.
    """

    batch: int
    rows: int
    columns: Columns
    words: int
    epilogue: Epilogue = PLAIN

    label = "binary_dot"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """A, B, the epilogue's reads, C."""
        count = self.columns.count
        return (
            Operand("a", "int32", self.batch * self.rows * self.words),
            Operand("b", "int32", self.batch * self.words * count),
            *self.epilogue.operands(count, self.batch * self.rows * count),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Tiles as a matrix product has them; a step is a word of each row."""
        a, b, *rest = buffers
        columns, count = self.columns, self.columns.count

        def write(spot: Spot) -> None:
            rows = spot.rows()
            starts = [columns.start(spot.panel, v) for v in range(spot.vectors)]
            tile = Tile(len(rows), spot.vectors, columns.lanes, "int32")
            tile.clear()
            left = [(spot.outer * self.rows + r) * self.words for r in rows]
            first = spot.outer * (self.words * count)
            right = [first + start for start in starts]

            def step(k: Any, way: int) -> None:
                ups = [load(b, r + k * count, tile.lanes) for r in right]
                words = [spread(a[r + k], tile.lanes) for r in left]
                tile.step(way, words, ups, lambda s, x, y: s + tirx.popcount(x & y))

            tile.accumulate(self.words, step)
            places = [(spot.outer * self.rows + r) * count for r in rows]
            finish(tile, self.epilogue, rest, starts, places)

        work = self.batch * self.rows * count * self.words
        tiles(machine, self.rows, columns, work, write, self.batch)
