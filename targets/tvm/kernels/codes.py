"""Weights that are sums of signed powers of two: packed codes, decoded in registers.

A term is a code of four bits: bit 3 says that it is negative, bits 0..2 are m: nothing for
m = 0, else 2^(m - 1). The wide form has four bits of m and the sign by itself. Where a kernel
reads them, a byte holds the codes of two neighboring vectors of columns: the first in its low
half. So weights take half a byte a term, and no two taps of a convolution share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.arithmetic import QUAD, Arithmetic, integer, product_of
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.kernel import fetch, kept, load
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine

__all__ = ["Codes", "DotCodes", "dot_codes", "pack_codes", "panels"]

# Panels of two vectors: each byte of codes is read by one tile, and tiles have many rows.
HEIGHT = 2
# Bytes from the codes that are decoded to those that are fetched.
_AHEAD = 4096
_TABLE = (0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64)
# Instruction that looks bytes up in a table of 16, by dtype of the data (of bytes that an
# architecture multiplies) and width in bytes.
_LOOKUPS = {
    ("uint8", 64): "llvm.x86.avx512.pshuf.b.512",
    ("uint8", 32): "llvm.x86.avx2.pshuf.b",
    ("int8", 16): "llvm.aarch64.neon.tbl1.v16i8",
}


def panels(columns: int, machine: Machine) -> Columns:
    """How columns are dealt to the tiles of kernels that read codes."""
    return Columns(columns, machine.lanes, HEIGHT)


@dataclass(frozen=True)
class Codes(Arithmetic):
    """Multiplication by packed codes.

    Attributes:
        terms: Codes of each weight.
        wide: Whether signs lie by themselves: a byte for each eight codes.
    """

    terms: int = 1
    wide: bool = False

    @property
    def suffix(self) -> str:
        """``_codes``."""
        return "_codes"

    @property
    def unit(self) -> int:
        """Bytes of two codes' vectors, a lane and four neighbors along K."""
        return QUAD + self.wide

    def size(self, vectors: int, lanes: int, depth: int) -> int:
        """Bytes of so many vectors of codes side by side."""
        return -(-vectors // 2) * lanes * (depth // QUAD) * self.unit * self.terms

    def complements(self, parts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What sums [N] lack where negative terms [terms, K, N] are complemented only."""
        return np.zeros(parts.shape[-1], np.int64)

    def multiply(
        self, tile: Tile, a: Any, rows: Sequence[Any], b: Any, panel: Any, depth: int
    ) -> None:
        """Decode each vector of four neighbors along K once, multiply all rows with it."""
        if tile.vectors > HEIGHT:
            raise ValueError(f"a tile of codes has {HEIGHT} vectors, found {tile.vectors}")
        stride = self.size(tile.vectors, tile.lanes, QUAD)

        def step(k: Any, way: int) -> None:
            at = panel + k * stride
            if tile.rows == 1:  # codes are read once, and come from afar
                fetch(b, at + _AHEAD)
            self.step(tile, way, a, [row + k * QUAD for row in rows], b, at)

        tile.accumulate(depth // QUAD, step)

    def step(self, tile: Tile, way: int, a: Any, rows: Sequence[Any], b: Any, at: Any) -> None:
        """Four neighbors along K: those of A from ``rows`` on, codes from ``at`` on."""
        raise NotImplementedError


@dataclass(frozen=True)
class DotCodes(Codes):
    """Codes become bytes, which the machine's dot products multiply."""

    def step(self, tile: Tile, way: int, a: Any, rows: Sequence[Any], b: Any, at: Any) -> None:
        """Look codes up, add the terms, multiply."""
        wide, product = QUAD * tile.lanes, product_of(self.name)
        right = [_bytes(self, b, at, v, wide) for v in range(tile.vectors)]
        left = [load(a, row, QUAD) for row in rows]
        tile.step(way, left, right, lambda s, x, y: product(s, x, y, tile.lanes))


def _bytes(codes: Codes, b: Any, at: Any, vector: int, wide: int) -> Any:
    """The weights of a vector, int8, in a register."""
    total = None
    for term in range(codes.terms):
        both = load(b, at + term * wide, wide)
        sixteen = T.Broadcast(tirx.const(15, "uint8"), wide)
        four = T.Broadcast(tirx.const(4, "uint8"), wide)
        index = both >> four if vector else both & sixteen
        value = _looked_up(index, wide, _LOOKUPS.get((codes.left, wide)))
        total = value if total is None else total + value
    return kept(total, wide, "int8")


def _looked_up(index: Any, wide: int, instruction: str | None) -> Any:
    """int8 powers of uint8 codes: by an instruction where there is one so wide."""
    dtype = f"int8x{wide}"
    if instruction is not None:
        words = np.array(_TABLE, np.int8).view(np.int32).tolist() * (wide // 16)
        order = [tirx.const(i, "int32") for i in range(wide // 4)]
        table = tirx.Shuffle([tirx.const(word, "int32") for word in words], order)
        table = T.reinterpret(dtype, table)
        codes = T.reinterpret(dtype, index)
        return tirx.call_llvm_pure_intrin(dtype, instruction, table, codes)

    def many(value: int) -> Any:
        return T.Broadcast(tirx.const(value, "uint8"), wide)

    size = T.reinterpret(dtype, (many(1) << (index & many(7))) >> many(1))
    zero = T.Broadcast(tirx.const(0, "int8"), wide)
    return tirx.Select((index & many(8)) != many(0), zero - size, size)


def dot_codes(machine: Machine, terms: int) -> DotCodes:
    """Codes of a few narrow terms, for the machine's dot products of bytes."""
    kind = integer(machine)
    if kind.group != QUAD:
        raise ValueError(f"{machine.name} has no products of four bytes")
    return DotCodes(kind.name, QUAD, kind.left, "uint8", kind.sums, terms)


def pack_codes(
    parts: np.ndarray[Any, Any], zero: int, columns: Columns, kind: Codes
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int32]]]:
    """Codes as kernels read them, and the offsets of the columns.

    Args:
        parts: Signed terms of the weight, [terms, K, N]: ``edgevit.shift_codes.unpack``.
        zero: Zero point of A.
        columns: How N is dealt to tiles.
        kind: How the kernel multiplies.

    Returns:
        Panels [N/NR][K/4][terms][lane][4 bytes of two codes], the signs behind each term if
        wide, flat, K padded with zeros to a multiple of four; and what the sums of each
        column start at.
    """
    offsets = -zero * parts.astype(np.int64).sum((0, 1)) + kind.complements(parts)
    parts = np.pad(parts, ((0, 0), (0, -parts.shape[1] % QUAD), (0, 0)))
    order = columns.indices()
    if columns.vectors % 2:
        order = np.concatenate([order, order[-1:]])
    split = (len(parts), -1, QUAD, len(order) // 2, 2, columns.lanes)
    # [pairs of vectors, K/4, terms, lanes, 4, 2]
    dealt = parts[:, :, order].reshape(split).transpose(3, 1, 0, 5, 2, 4)
    m = np.where(dealt, np.frexp(np.abs(dealt))[1], 0).astype(np.uint8)
    negative = (dealt < 0).astype(np.uint8)
    code = m if kind.wide else m | (negative << 3)
    packed = code[..., 0] | (code[..., 1] << 4)
    whole: list[np.ndarray[Any, Any]] = [packed.reshape(*packed.shape[:3], -1)]
    if kind.wide:
        bits = negative.swapaxes(-1, -2).reshape(*packed.shape[:4], 2 * QUAD)
        whole.append(np.packbits(bits, axis=-1, bitorder="little")[..., 0])
    return np.concatenate(whole, axis=-1).ravel(), offsets.astype(np.int32)
