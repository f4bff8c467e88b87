"""Products of bytes and sums of powers of two by shifts and additions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.arithmetic import QUAD, integer
from edgevit.targets.tvm.kernels.codes import Codes
from edgevit.targets.tvm.kernels.kernel import kept, load, local, loop, spread, store
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine

__all__ = ["ShiftCodes", "shift_codes"]

# Instructions that shift each lane by its own count, and leave nothing where it is too large.
_SHIFTS = {
    ("x86_64", 16): "llvm.x86.avx512.psllv.d.512",
    ("x86_64", 8): "llvm.x86.avx2.psllv.d.256",
    ("aarch64", 4): "llvm.aarch64.neon.ushl.v4i32",
}
# Lanes from which a tile widens its rows of A ahead, neighbors along K that it widens at once,
# and elements of a buffer: one of 1 KB is no longer put on the stack.
_AHEAD_FROM, _CHUNK, _HELD = 16, 64, 128
# A count that leaves nothing: more than 31, and no negative byte for ARM.
_ALL = 64


@dataclass(frozen=True)
class ShiftCodes(Codes):
    """Each row is shifted, complemented where the term is negative, and added.

    -v = ~v + 1: the ones are counted at compile time, in the offsets of the columns.
    """

    @property
    def suffix(self) -> str:
        """``_shift``."""
        return "_shift"

    def complements(self, parts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A one for each negative term."""
        return np.asarray((parts < 0).sum((0, 1)))

    @property
    def most(self) -> int:
        """Rows of a tile: with twelve, sums are spilled to the stack."""
        return 8 if self.left == "uint8" else 0

    def multiply(
        self, tile: Tile, a: Any, rows: Sequence[Any], b: Any, panel: Any, depth: int
    ) -> None:
        """Widen rows of A once for all vectors, so that loads spread numbers to lanes."""
        whole = depth - depth % _CHUNK
        if tile.rows == 1 or tile.lanes < _AHEAD_FROM or not whole:
            super().multiply(tile, a, rows, b, panel, depth)
            return
        stride = self.size(tile.vectors, tile.lanes, QUAD)
        held = _Held(len(rows))

        with loop(whole // _CHUNK) as chunk:
            held.widen(a, [row + chunk * _CHUNK for row in rows], tile.lanes)

            def step(k: Any, way: int) -> None:
                at = panel + (chunk * (_CHUNK // QUAD) + k) * stride
                self.values(tile, way, lambda row, j: held.at(row, k * QUAD + j), b, at)

            tile.accumulate(_CHUNK // QUAD, step)
        if depth > whole:
            left = [row + whole for row in rows]
            end = panel + whole // QUAD * stride
            super().multiply(tile, a, left, b, end, depth - whole)

    def step(self, tile: Tile, way: int, a: Any, rows: Sequence[Any], b: Any, at: Any) -> None:
        """Each neighbor along K by itself."""
        self.values(tile, way, lambda row, j: a[rows[row] + j].astype("int32"), b, at)

    def values(
        self, tile: Tile, way: int, value: Callable[[int, int], Any], b: Any, at: Any
    ) -> None:
        """``step`` with the numbers ``value(row, neighbor)``, int32."""
        lanes = tile.lanes

        def add(sums: Any, x: Any, code: tuple[Any, Any]) -> Any:
            return sums + (self._shifted(x, code[0], lanes) ^ code[1])

        for term in range(self.terms):
            start = at + term * self.unit * lanes
            words, signs = self._words(b, start, lanes)
            for j in range(QUAD):
                right = [self._code(words, signs, j, v, lanes) for v in range(tile.vectors)]
                values = (value(row, j) for row in range(tile.rows))
                left = [kept(spread(x, lanes), lanes, "int32") for x in values]
                tile.step(way, left, right, add)

    def _words(self, b: Any, at: Any, lanes: int) -> tuple[Any, Any]:
        """Codes and signs of four neighbors and two vectors, int32, a lane each."""
        dtype = _int32(lanes)
        words = kept(T.reinterpret(dtype, load(b, at, QUAD * lanes)), lanes, "int32")
        if not self.wide:
            return words, words
        signs = load(b, at + QUAD * lanes, lanes).astype(dtype)
        return words, kept(signs, lanes, "int32")

    def _code(
        self, words: Any, signs: Any, j: int, vector: int, lanes: int
    ) -> tuple[Any, Any]:
        """How far to shift, and -1 in the lanes of negative terms, else 0."""
        at = 8 * j + 4 * vector
        m = (words >> _number(at, lanes)) & _number(15 if self.wide else 7, lanes)
        m = kept(m, lanes, "int32")
        up = 31 - (4 * vector + j) if self.wide else 28 - at
        sign = (signs << _number(up, lanes)) >> _number(31, lanes)
        count = kept(self._count(m, lanes), lanes, "int32")
        return count, kept(sign, lanes, "int32")

    def _count(self, m: Any, lanes: int) -> Any:
        less = m - _number(1, lanes)
        if self.name == "x86_64":  # -1 is a large count there
            return less
        return tirx.Select(m == _number(0, lanes), _number(_ALL, lanes), less)

    def _shifted(self, x: Any, count: Any, lanes: int) -> Any:
        found = _SHIFTS.get((self.name, lanes))
        if found is not None:
            return tirx.call_llvm_pure_intrin(_int32(lanes), found, x, count)
        nothing = count == _number(-1 if self.name == "x86_64" else _ALL, lanes)
        zero = _number(0, lanes)
        return tirx.Select(nothing, zero, x << tirx.Select(nothing, zero, count))


class _Held:
    """A chunk of rows of A as int32, on the stack."""

    def __init__(self, rows: int) -> None:
        self._each = _HELD // _CHUNK
        count = -(-rows // self._each)
        self._buffers = [local(_HELD, "int32") for _ in range(count)]

    def widen(self, a: Any, rows: Sequence[Any], lanes: int) -> None:
        """Fill it with the elements of ``a`` from each row's index on."""
        for row, first in enumerate(rows):
            for i in range(0, _CHUNK, lanes):
                wide = load(a, first + i, lanes).astype(_int32(lanes))
                store(self._buffers[row // self._each], self._place(row, i), wide, lanes)

    def at(self, row: int, k: Any) -> Any:
        """One number."""
        return self._buffers[row // self._each][self._place(row, k)]

    def _place(self, row: int, k: Any) -> Any:
        return row % self._each * _CHUNK + k


def shift_codes(machine: Machine, terms: int, wide: bool) -> ShiftCodes:
    """Codes of any width, by shifts and additions alone."""
    left = integer(machine).left
    return ShiftCodes(machine.architecture, QUAD, left, "uint8", "int32", terms, wide)


def _int32(lanes: int) -> str:
    return f"int32x{lanes}" if lanes > 1 else "int32"


def _number(value: int, lanes: int) -> Any:
    return spread(tirx.const(value, "int32"), lanes)
