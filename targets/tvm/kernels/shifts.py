"""Products of bytes and sums of powers of two by shifts and additions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.arithmetic import QUAD, integer
from edgevit.targets.tvm.kernels.codes import Codes
from edgevit.targets.tvm.kernels.kernel import kept, load, spread
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine

__all__ = ["ShiftCodes", "shift_codes"]

# Instructions that shift each lane by its own count, and leave nothing where it is too large.
_SHIFTS = {
    ("x86_64", 16): "llvm.x86.avx512.psllv.d.512",
    ("x86_64", 8): "llvm.x86.avx2.psllv.d.256",
    ("aarch64", 4): "llvm.aarch64.neon.ushl.v4i32",
}
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

    def step(self, tile: Tile, way: int, a: Any, rows: Sequence[Any], b: Any, at: Any) -> None:
        """Each neighbor along K by itself."""
        lanes = tile.lanes

        def add(sums: Any, x: Any, code: tuple[Any, Any]) -> Any:
            return sums + (self._shifted(x, code[0], lanes) ^ code[1])

        for term in range(self.terms):
            start = at + term * self.unit * lanes
            words, signs = self._words(b, start, lanes)
            for j in range(QUAD):
                right = [self._code(words, signs, j, v, lanes) for v in range(tile.vectors)]
                values = (a[row + j].astype("int32") for row in rows)
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


def shift_codes(machine: Machine, terms: int, wide: bool) -> ShiftCodes:
    """Codes of any width, by shifts and additions alone."""
    left = integer(machine).left
    return ShiftCodes(machine.architecture, QUAD, left, "uint8", "int32", terms, wide)


def _int32(lanes: int) -> str:
    return f"int32x{lanes}" if lanes > 1 else "int32"


def _number(value: int, lanes: int) -> Any:
    return spread(tirx.const(value, "int32"), lanes)
