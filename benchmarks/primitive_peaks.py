"""Ceilings that kernels of shifts and additions are measured against, on this machine.

Each mix is a loop over registers alone, as many as a register tile has: what its instructions
can do where nothing is loaded. ``reading`` reads a block of memory and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels import shifts
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, store
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.single import Single

__all__ = ["MIXES", "rate", "reading"]

_ROUNDS = 20_000
_ROWS, _VECTORS = 12, 2
# Products that one vector instruction mix does, for each of a machine's lanes.
MIXES = {
    "shifts and additions": 1,
    "shifts and additions, decoded": 1,
    "masked additions": 1,
    "bits counted": 32,
}


@dataclass(frozen=True)
class _Mix:
    """A tile's sums, each changed by its neighbor, over and over."""

    name: str

    label = "mix"

    @property
    def dtype(self) -> str:
        """Of the sums."""
        return "float32" if self.name == "masked additions" else "int32"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What registers start at, and a place for the sums."""
        return (Operand("x", self.dtype, 64), Operand("y", self.dtype, 64, written=True))

    def body(self, machine: Machine, *buffers: Any) -> None:
        """The loop."""
        x, y = buffers
        lanes = machine.lanes
        tile = Tile(_ROWS if machine.registers >= 32 else 6, _VECTORS, lanes, self.dtype)
        tile.clear()
        for i in range(_VECTORS * tile.rows):  # sums that start at zero might stay so
            store(tile._sets[0][i // _VECTORS][i % _VECTORS], 0, load(x, 0, lanes), lanes)
        held = [local(lanes, self.dtype) for _ in range(2)]
        for i, one in enumerate(held):
            store(one, 0, load(x, i * lanes, lanes), lanes)
        with loop(_ROUNDS):
            first, second = (load(one, 0, lanes) for one in held)
            mask = None
            if self.name == "masked additions":
                zero = T.Broadcast(tirx.const(0.0, self.dtype), lanes)
                mask = second > zero
            for row in range(tile.rows):
                for vector in range(tile.vectors):
                    sums = tile._sets[0][row][vector]
                    other = tile._sets[0][(row + 1) % tile.rows][vector]
                    given = (load(sums, 0, lanes), load(other, 0, lanes))
                    store(sums, 0, self._mixed(machine, *given, first, second, mask), lanes)
        for row in range(tile.rows):
            for vector in range(tile.vectors):
                store(y, 0, load(y, 0, lanes) + tile.total(row, vector), lanes)

    def _mixed(
        self, machine: Machine, s: Any, other: Any, first: Any, second: Any, mask: Any
    ) -> Any:
        lanes = machine.lanes
        if self.name == "bits counted":
            return s + tirx.popcount(other & first)
        if self.name == "masked additions":
            return tirx.Select(mask, s + first, s)
        name = shifts._SHIFTS[machine.architecture, lanes]
        dtype, count, sign = f"int32x{lanes}", first, second
        if self.name == "shifts and additions, decoded":  # each code is read by one row
            one, top = (T.Broadcast(tirx.const(v, "int32"), lanes) for v in (1, 31))
            seven = T.Broadcast(tirx.const(7, "int32"), lanes)
            count = ((other >> first) & seven) - one
            sign = (other << first) >> top
        value = second if sign is not second else other
        return s + (tirx.call_llvm_pure_intrin(dtype, name, value, count) ^ sign)


def rate(name: str, machine: Machine) -> tuple[Callable[[], Any], int]:
    """A call of a mix, and the products that it stands for."""
    kernel = _Mix(name)
    start = np.where(np.arange(64) % 3 == 0, 1, 2).astype(kernel.dtype)
    rows = _ROWS if machine.registers >= 32 else 6
    products = _ROUNDS * rows * _VECTORS * machine.lanes * MIXES[name]
    return Single(kernel, machine, [start]), products


@dataclass(frozen=True)
class _Read:
    """Bytes, all of them read, eight vectors at a time."""

    size: int

    label = "read"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What is read, and a place for its sums."""
        return (
            Operand("x", "int32", max(128, self.size // 4)),
            Operand("y", "int32", 128, written=True),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """One addition a vector."""
        x, y = buffers
        lanes, count = machine.lanes, 8
        tile = Tile(1, count, lanes, "int32")
        tile.clear()
        with loop(self.size // (4 * lanes * count)) as i:
            start = i * (lanes * count)
            for v in range(count):
                one = tile._sets[0][0][v]
                more = load(x, start + v * lanes, lanes)
                store(one, 0, load(one, 0, lanes) + more, lanes)
        for v in range(count):
            store(y, v * lanes if lanes == 16 else 0, tile.total(0, v), lanes)


def reading(size: int, machine: Machine) -> Callable[[], Any]:
    """A call that reads a block of so many bytes, the same one every time."""
    return Single(_Read(size), machine, [np.ones(max(128, size // 4), np.int32)])
