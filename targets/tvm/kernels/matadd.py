"""Products with matrices of zeros and ones, given as packed bits: masked additions.

C[m, n] = sum over the k whose bit (k, m) is set of V[k, n]. Vectors hold neighboring m, so
that one word of bits is a mask; each element of V is added to a vector under it. ``MaskedAdd``
adds floats; ``MaskedDot`` sums four bytes at once with the machine's dot products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.arithmetic import QUAD
from edgevit.targets.tvm.kernels.kernel import (
    Operand,
    fetch,
    kept,
    load,
    local,
    loop,
    spread,
    store,
)
from edgevit.targets.tvm.kernels.shuffle import pick, transposed
from edgevit.targets.tvm.kernels.tile import parallel_worth
from edgevit.targets.tvm.machine import Machine

__all__ = ["MaskedAdd", "MaskedDot", "pack_bits"]

# Bits of a row of masks come in groups of so many.
GROUP = 16
# Shares of a batch that cores may take.
_TASKS = 4
# Rows of V from the one that is read to the one that is fetched.
_AHEAD = 64


def pack_bits(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Codes [..., K, M] of zeros and ones as bytes [..., K, M/8], M padded to 16 bits."""
    up = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % GROUP)]
    return np.packbits(np.pad(codes, up) != 0, axis=-1, bitorder="little")


@dataclass(frozen=True)
class _Masked:
    """What both masked products share.

    Attributes:
        machine: Whose registers are filled.
        batch: Pairs of matrices.
        rows: M, columns of the bits.
        columns: N.
        depth: K.
    """

    machine: Machine
    batch: int
    rows: int
    columns: int
    depth: int

    @property
    def operands(self) -> tuple[Operand, ...]:
        """C is the last one."""
        raise NotImplementedError

    @property
    def row_bytes(self) -> int:
        """Of the masks of one k."""
        return -(-self.rows // GROUP) * (GROUP // 8)

    @property
    def lanes(self) -> int:
        """Neighboring m of a vector."""
        return self.machine.lanes

    @property
    def width(self) -> int:
        """Columns of a block: as many vectors of sums."""
        most = 16 if self.machine.registers >= 32 else 8
        return min(most, self.columns)

    def _blocks(self, write: Callable[[Any, int, Any], None]) -> None:
        """``write(first row of masks, vector of m, first column)`` of every block of sums."""
        groups = -(-self.rows // GROUP)
        halves = GROUP // self.lanes
        blocks = -(-self.columns // self.width)
        with loop(groups) as group, loop(blocks) as block:
            first = block * self.width
            if self.columns % self.width:
                first = tirx.min(first, tirx.const(self.columns - self.width, "int32"))
            for half in range(halves):
                write(group, half, first)

    def _sums(self, dtype: str) -> list[Any]:
        """Vectors of sums, zero, one a column of a block."""
        sums = [local(self.lanes, dtype) for _ in range(self.width)]
        zero = T.Broadcast(tirx.const(0, dtype), self.lanes)
        for one in sums:
            store(one, 0, zero, self.lanes)
        return sums

    def _put(self, sums: Sequence[Any], out: Any, at: Any, group: Any, half: int) -> None:
        """Vectors of neighboring m, a column each, to rows of the output."""
        lanes, width = self.lanes, self.width
        dtype = self.operands[-1].dtype
        step, parts = min(lanes, width), []
        for i in range(0, width - width % step, step):
            square = [load(s, 0, lanes) for s in sums[i : i + step]]
            if step == lanes:
                parts.append(transposed(square, lambda v: kept(v, lanes, dtype)))
            else:
                parts.append(
                    [pick(square, range(r, lanes * step, lanes)) for r in range(lanes)]
                )
        for r in range(lanes):
            row = group * GROUP + half * lanes + r

            def write(row: Any = row, r: int = r) -> None:
                for i, part in enumerate(parts):
                    store(out, at + row * self.columns + i * step, part[r], step)
                for i in range(width - width % step, width):
                    store(
                        out,
                        at + row * self.columns + i,
                        pick([load(sums[i], 0, lanes)], [r]),
                        1,
                    )

            if self.rows % GROUP == 0:
                write()
            else:
                with T.If(row < self.rows), T.Then():
                    write()


@dataclass(frozen=True)
class MaskedAdd(_Masked):
    """C float32 [batch, M, N] from bits [batch, K, M/8] and V float32 [batch, K, N]."""

    label = "masked_add"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Bits, V, C."""
        return (
            Operand("bits", "uint8", self.batch * self.depth * self.row_bytes),
            Operand("v", "float32", self.batch * self.depth * self.columns),
            Operand("out", "float32", self.batch * self.rows * self.columns, written=True),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Blocks of sums; each k adds its row of V under one mask."""
        bits, v, out = buffers
        work = self.batch * self.rows * self.columns * self.depth
        with loop(self.batch, parallel=parallel_worth(work)) as one:
            masks = one * (self.depth * self.row_bytes)
            values = one * (self.depth * self.columns)

            def write(group: Any, half: int, first: Any) -> None:
                sums = self._sums("float32")
                with loop(self.depth) as k:
                    fetch(v, values + (k + _AHEAD) * self.columns + first)
                    at = masks + k * self.row_bytes + group * (GROUP // 8)
                    mask = self._mask(bits, at, half)
                    for i, s in enumerate(sums):
                        x = v[values + k * self.columns + first + i]
                        self._add(s, mask, T.Broadcast(x, self.lanes))
                self._put(sums, out, one * (self.rows * self.columns) + first, group, half)

            self._blocks(write)

    def _mask(self, bits: Any, at: Any, half: int) -> Any:
        """Which lanes are added to: their bits of 16, alone."""
        word = T.reinterpret("uint16", load(bits, at, 2)).astype("int32")
        own = [tirx.const(1 << (half * self.lanes + i), "int32") for i in range(self.lanes)]
        picked = T.Broadcast(word, self.lanes) & pick(own, range(self.lanes))
        own_bits = kept(picked, self.lanes, "int32")
        return own_bits != T.Broadcast(tirx.const(0, "int32"), self.lanes)

    def _add(self, sums: Any, mask: Any, x: Any) -> None:
        now = load(sums, 0, self.lanes)
        if self.lanes == 16:  # an addition under a mask is one instruction there
            store(sums, 0, tirx.Select(mask, now + x, now), self.lanes)
        else:
            zero = T.Broadcast(tirx.const(0.0, "float32"), self.lanes)
            store(sums, 0, now + tirx.Select(mask, x, zero), self.lanes)


@dataclass(frozen=True)
class MaskedDot(_Masked):
    """C int32 [batch, M, N] from bits [batch, K, M/8] and V int8 [batch, K, N].

    V is rearranged first, four neighbors along K to a word, into memory of the kernel's own.
    """

    label = "masked_dot"

    @property
    def tasks(self) -> int:
        """Shares of the batch, each with words of its own, which stay in the cache."""
        return min(self.batch, _TASKS)

    @property
    def quads(self) -> int:
        """Groups of four neighbors along K."""
        return -(-self.depth // QUAD)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Bits, V, words, C."""
        return (
            Operand("bits", "uint8", self.batch * self.depth * self.row_bytes),
            Operand("v", "int8", self.batch * self.depth * self.columns),
            Operand("words", "int8", self.tasks * self.quads * QUAD * self.columns, True),
            Operand("out", "int32", self.batch * self.rows * self.columns, written=True),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Words first; then blocks of sums, four k at a time."""
        work = self.batch * self.rows * self.columns * self.depth
        each = -(-self.batch // self.tasks)
        parallel = parallel_worth(work)
        with loop(self.tasks, parallel=parallel) as task, loop(each) as turn:
            one = task * each + turn
            if self.tasks * each == self.batch:
                self._one(one, task, *buffers)
            else:
                with T.If(one < self.batch), T.Then():
                    self._one(one, task, *buffers)

    def _one(self, one: Any, task: Any, bits: Any, v: Any, words: Any, out: Any) -> None:
        """One pair of matrices, by way of a task's own words."""
        masks = one * (self.depth * self.row_bytes)
        quads = task * (self.quads * QUAD * self.columns)
        self._interleave(v, one * (self.depth * self.columns), words, quads)
        coming = (one + 1) * (self.depth * self.columns)

        def write(group: Any, half: int, first: Any) -> None:
            sums = self._sums("int32")

            def step(quad: Any, count: int) -> None:
                at = masks + quad * (QUAD * self.row_bytes) + group * (GROUP // 8)
                if self.batch > 1:  # the next V comes while this one is multiplied
                    fetch(v, coming + (quad * self.columns + first) * QUAD)
                ones = self._ones(bits, at, half, count)
                for i, s in enumerate(sums):
                    four = quads + (quad * self.columns + first + i) * QUAD
                    x = load(words, four, QUAD)
                    now = load(s, 0, self.lanes)
                    store(s, 0, _product(self.machine, now, ones, x), self.lanes)

            if self.depth // QUAD:
                with loop(self.depth // QUAD) as quad:
                    step(quad, QUAD)
            if self.depth % QUAD:
                step(tirx.const(self.depth // QUAD, "int32"), self.depth % QUAD)
            self._put(sums, out, one * (self.rows * self.columns) + first, group, half)

        self._blocks(write)

    def _ones(self, bits: Any, at: Any, half: int, count: int) -> Any:
        """Bytes 0 or 1 [lane][four k], unsigned: each lane's bits of up to four masks."""
        lanes, wide = self.lanes, QUAD * self.lanes
        total = self._four(bits, at, count)
        every = T.reinterpret(f"uint8x{wide}", T.Broadcast(total, wide // 8))
        places = [half * lanes + i for i in range(lanes)]
        order = [(2 * j + m // 8) % wide for m in places for j in range(QUAD)]
        own = np.array([1 << m % 8 for m in places for _ in range(QUAD)], np.uint8)
        constant = _bytes(own, wide)
        found = tirx.min(
            pick([every], order) & constant, T.Broadcast(tirx.const(1, "uint8"), wide)
        )
        return kept(found, wide, "uint8")

    def _four(self, bits: Any, at: Any, count: int) -> Any:
        """Up to four words of 16 bits, uint64; neighbors in memory are one read."""
        if count == QUAD and self.row_bytes == 2:
            return T.reinterpret("uint64", load(bits, at, 8))
        total = tirx.const(0, "uint64")
        for j in range(count):
            word = T.reinterpret("uint16", load(bits, at + j * self.row_bytes, 2))
            total = total | (word.astype("uint64") << tirx.const(16 * j, "uint64"))
        return total

    def _interleave(self, v: Any, at: Any, words: Any, to: Any) -> None:
        """Four neighbors along K of every column to a word; zeros past the last."""
        wide = 32
        while wide > self.columns:
            wide //= 2
        blocks = -(-self.columns // wide)

        def write(quad: Any, count: int) -> None:
            with loop(blocks) as block:
                first = block * wide
                if self.columns % wide:
                    first = tirx.min(first, tirx.const(self.columns - wide, "int32"))
                start = at + quad * (QUAD * self.columns) + first
                rows = [load(v, start + j * self.columns, wide) for j in range(count)]
                rows += [spread(tirx.const(0, "int8"), wide)] * (QUAD - count)
                order = [j * wide + i for i in range(wide) for j in range(QUAD)]
                store(
                    words,
                    to + (quad * self.columns + first) * QUAD,
                    pick(rows, order),
                    QUAD * wide,
                )

        if self.depth // QUAD:
            with loop(self.depth // QUAD) as quad:
                write(quad, QUAD)
        if self.depth % QUAD:
            write(tirx.const(self.depth // QUAD, "int32"), self.depth % QUAD)


def _bytes(values: np.ndarray[Any, Any], wide: int) -> Any:
    """A constant vector of bytes."""
    words = np.asarray(values, np.uint8).view(np.int32).tolist()
    whole = pick([tirx.const(w, "int32") for w in words], range(len(words)))
    return T.reinterpret(f"uint8x{wide}", whole)


def _product(machine: Machine, sums: Any, ones: Any, four: Any) -> Any:
    """``sums`` plus the dot products of each lane's four zeros or ones with four bytes."""
    lanes, wide = machine.lanes, QUAD * machine.lanes
    signed = T.reinterpret(f"int8x{wide}", T.Broadcast(T.reinterpret("int32", four), lanes))
    dtype = f"int32x{lanes}"
    unsigned = T.reinterpret(f"int8x{wide}", ones)
    if machine.dot.startswith("vnni"):
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return tirx.call_llvm_pure_intrin(dtype, name, sums, unsigned, signed)
    if machine.dot == "sdot":
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return tirx.call_llvm_pure_intrin(dtype, name, sums, unsigned, signed)
    if machine.architecture == "x86_64":  # sums of two bytes: nothing saturates
        pairs, whole = _PAIRS[lanes]
        half = tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", pairs, unsigned, signed)
        units = T.Broadcast(tirx.const(1, "int16"), 2 * lanes)
        return sums + tirx.call_llvm_pure_intrin(dtype, whole, half, units)
    for j in range(QUAD):
        every = pick([ones], range(j, wide, QUAD)).astype(dtype)
        sums = sums + every * T.Broadcast(pick([four], [j]).astype("int32"), lanes)
    return sums


_PAIRS = {
    16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
}
