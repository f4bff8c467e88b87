"""How a register tile multiplies: in float32, or bytes with sums in int32, machine by machine.

Every integer way is exact: no step saturates, sums are of at most 2^31 / (255 * 128) products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.kernel import Operand, load, spread
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine

__all__ = ["FLOAT32", "QUAD", "Arithmetic", "integer", "pack_integers", "product_of"]

# What rows of bytes are padded to, whatever the machine: its instructions take 4 or 1.
QUAD = 4


@dataclass(frozen=True)
class Arithmetic:
    """One way to multiply and add.

    Attributes:
        name: Of the way: a key of the table of products below.
        group: Neighbors along K that one instruction sums.
        left: dtype of A.
        right: dtype of packed B.
        sums: dtype of the accumulators.
    """

    name: str
    group: int
    left: str
    right: str
    sums: str

    @property
    def starts(self) -> bool:
        """Whether sums start at an int32 operand [columns] instead of zero."""
        return self.sums == "int32"

    @property
    def suffix(self) -> str:
        """What the names of kernels say of it."""
        return "_int8" if self.starts else ""

    @property
    def most(self) -> int:
        """Rows of a register tile at most; 0: as many as registers allow."""
        return 0

    def operands(self, columns: int) -> tuple[Operand, ...]:
        """What the sums start at."""
        return (Operand("offset", "int32", columns),) if self.starts else ()

    def size(self, vectors: int, lanes: int, depth: int) -> int:
        """Elements of B that so many vectors side by side take, over so many steps along K."""
        return vectors * lanes * depth

    def start(self, tile: Tile, buffers: Sequence[Any], columns: Sequence[Any]) -> None:
        """Set the sums: to zero, or to the offsets of their columns."""
        tile.clear()
        if self.starts:
            tile.begin([load(buffers[0], column, tile.lanes) for column in columns])

    def multiply(
        self,
        tile: Tile,
        a: Any,
        rows: Sequence[Any],
        b: Any,
        panel: Any,
        depth: int,
    ) -> None:
        """Add ``depth`` neighbors of A's rows times a packed panel.

        Args:
            tile: The sums.
            a: Flat buffer of the left side.
            rows: Index of each row's first element, a multiple of four if integers.
            b: Flat buffer of packed panels.
            panel: Index of the panel's first element.
            depth: Steps along K, a multiple of ``group``.
        """
        if self.sums == "float32":
            tile.multiply(a, rows, b, panel, depth)
            return
        product = _PRODUCTS[self.name]
        wide = tile.lanes * self.group

        def step(k: Any, way: int) -> None:
            first = panel + k * (tile.vectors * wide)
            right = [load(b, first + v * wide, wide) for v in range(tile.vectors)]
            left = [load(a, row + k * self.group, self.group) for row in rows]
            tile.step(way, left, right, lambda s, x, y: product(s, x, y, tile.lanes))

        tile.accumulate(depth // self.group, step)


FLOAT32 = Arithmetic("float32", 1, "float32", "float32", "float32")


def integer(machine: Machine) -> Arithmetic:
    """The fastest exact way for bytes: uint8 x int8 on x86-64, int8 x int8 on ARM."""
    if machine.architecture == "x86_64":
        name = machine.dot or f"madd{machine.lanes * 32}"
        return Arithmetic(name, 4, "uint8", "int8", "int32")
    name, group = ("sdot", 4) if machine.dot == "sdot" else ("widen", 1)
    return Arithmetic(name, group, "int8", "int8", "int32")


def pack_integers(
    weights: np.ndarray[Any, Any], zero: int, columns: Columns, arithmetic: Arithmetic
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], np.ndarray[Any, np.dtype[np.int32]]]:
    """Weights as integer kernels read them, and the offsets that undo a zero point.

    Args:
        weights: int8 [K, N], zero point 0.
        zero: Zero point of A.
        columns: How N is dealt to tiles.
        arithmetic: Of the machine.

    Returns:
        Panels [N/NR][K/G][NR][G], flat, K padded with zeros to a multiple of four; and
        ``-zero * sum over K`` of each column.
    """
    depth, count = weights.shape
    padded = np.zeros((-(-depth // QUAD) * QUAD, count), np.int8)
    padded[:depth] = weights
    grouped = padded.reshape(-1, arithmetic.group, count).transpose(0, 2, 1)
    offsets = -zero * weights.astype(np.int64).sum(axis=0)
    return columns.pack(grouped), offsets.astype(np.int32)


def _repeated(values: Any, lanes: int, dtype: str) -> Any:
    """A group of neighbors as the same 32 bits in every lane, seen as narrower integers."""
    return T.reinterpret(dtype, spread(T.reinterpret("int32", values), lanes))


def _bytes(intrinsic: str, full: int) -> Callable[..., Any]:
    """The sums of four products of bytes; ``full`` lanes as the instruction has them."""

    def product(sums: Any, x: Any, y: Any, lanes: int) -> Any:
        if lanes != full:
            return _widened(sums, x, y, lanes, 4)
        wide = f"int8x{4 * lanes}"
        left = _repeated(x, lanes, wide)
        return tirx.call_llvm_pure_intrin(f"int32x{lanes}", intrinsic, sums, left, y)

    return product


def _halves(intrinsic: str, full: int) -> Callable[..., Any]:
    """The same from 16-bit integers, which are exact for bytes of either sign.

    Even and odd bytes are taken apart in the registers: bytes 0 and 2, then bytes 1 and 3.
    """

    def product(sums: Any, x: Any, y: Any, lanes: int) -> Any:
        if lanes != full:
            return _widened(sums, x, y, lanes, 4)
        count, eight = 2 * lanes, T.Broadcast(tirx.const(8, "int16"), 2 * lanes)
        low = T.Broadcast(tirx.const(0x00FF, "int16"), count)
        left = _repeated(x, lanes, f"int16x{count}")
        right = T.reinterpret(f"int16x{count}", y)
        pairs = (
            (left & low, (right << eight) >> eight),
            ((left >> eight) & low, right >> eight),
        )
        for a, b in pairs:
            sums = sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", intrinsic, a, b)
        return sums

    return product


def _widened(sums: Any, x: Any, y: Any, lanes: int, group: int) -> Any:
    """The same without an instruction for it: one neighbor after another, in int32."""
    dtype = "int32" if lanes == 1 else f"int32x{lanes}"
    for i in range(group):
        order = [tirx.const(lane * group + i, "int32") for lane in range(lanes)]
        right = tirx.Shuffle([y], order) if group * lanes > 1 else y
        left = tirx.Shuffle([x], [tirx.const(i, "int32")]) if group > 1 else x
        left = spread(left.astype("int32"), lanes)
        sums = sums + left * right.astype(dtype)
    return sums


_PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "vnni512": _bytes("llvm.x86.avx512.vpdpbusd.512", 16),
    "vnni256": _bytes("llvm.x86.avx512.vpdpbusd.256", 8),
    "sdot": _bytes("llvm.aarch64.neon.sdot.v4i32.v16i8", 4),
    "madd512": _halves("llvm.x86.avx512.pmaddw.d.512", 16),
    "madd256": _halves("llvm.x86.avx2.pmadd.wd", 8),
    "widen": lambda sums, x, y, lanes: _widened(sums, x, y, lanes, 1),
}


def product_of(name: str) -> Callable[..., Any]:
    """``product(sums, four of A, four of each lane of B, lanes)`` of a way of multiplying."""
    return _PRODUCTS[name]
