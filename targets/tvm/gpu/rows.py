"""Rows, each of a warp: normalization and softmax; reductions, each of a thread or a block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.gpu.body import (
    BLOCK,
    WARP,
    across,
    barrier,
    kept,
    only_if,
    registers,
    set_register,
    shared,
    unravel,
)
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.kernels.kernel import store
from edgevit.targets.tvm.kernels.reduce import START, Reduce, combine
from edgevit.targets.tvm.kernels.rows import LayerNorm, RowSoftmax

__all__ = ["NormRows", "ReduceElements", "SoftmaxRows"]

# Rows of a block; reductions of so many elements are a block's, not a thread's.
_ROWS, _LONG = 4, 128


class _Row:
    """The columns of a row, dealt to the threads of a warp."""

    def __init__(self, lane: Any, columns: int) -> None:
        self.lane, self.columns = lane, columns

    def each(self, visit: Callable[[Any], None]) -> None:
        """Visit a thread's columns."""
        whole, rest = divmod(self.columns, WARP)
        if whole:
            with T.serial(0, whole) as i:
                visit(i * WARP + self.lane)
        if rest:
            with only_if(self.lane < rest):
                visit(whole * WARP + self.lane)

    def reduced(self, start: float, value: Callable[[Any], Any], kind: str) -> Any:
        """The reduction of ``value(column)`` over the row, in every thread."""
        total = registers(1)
        set_register(total, tirx.const(start, "float32"))
        self.each(lambda at: set_register(total, combine(kind, total[0], kept(value(at)))))
        plain = "sum" if kind == "squares" else kind
        across(lambda a, b: combine(plain, a, b), total)
        return total[0]


def _begin(rows: int, block: Any, thread: Any) -> tuple[Any, Any, Any, bool]:
    """Row, lane, whether the row is there, and whether that must be asked."""
    row = block * _ROWS + thread // WARP
    return row, thread % WARP, row < rows, rows % _ROWS != 0


class _WarpRows:
    """A kernel of rows, each of a warp."""

    kernel: LayerNorm | RowSoftmax
    threads = _ROWS * WARP

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.kernel.rows // _ROWS)


@dataclass(frozen=True)
class NormRows(_WarpRows):
    """Layer and RMS normalization."""

    kernel: LayerNorm
    gpu: Gpu

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Mean, variance about it, result."""
        one = self.kernel
        out, x, scale, bias = buffers
        row, lane, inside, ask = _begin(one.rows, block, thread)
        part, base = _Row(lane, one.columns), row * one.stride
        per = tirx.const(1.0 / one.columns, "float32")
        with only_if(inside, ask):
            mean: Any = tirx.const(0.0, "float32")
            if one.centered:
                mean = kept(part.reduced(0.0, lambda at: x[base + at], "sum") * per)
            squares = part.reduced(0.0, lambda at: x[base + at] - mean, "squares")
            variance = squares * per + tirx.const(one.epsilon, "float32")
            root = kept(tirx.const(1.0, "float32") / tirx.sqrt(variance))

            def normal(at: Any) -> None:
                made = (x[base + at] - mean) * root * scale[at]
                made = kept(made + bias[at] if one.centered else made)
                done = one.quantize.apply(made) if one.quantize else made
                store(out, row * one.columns + at, done, 1)

            part.each(normal)


@dataclass(frozen=True)
class SoftmaxRows(_WarpRows):
    """Softmax of rows."""

    kernel: RowSoftmax
    gpu: Gpu

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Largest element, sum of exponentials, result."""
        one = self.kernel
        out, x = buffers
        row, lane, inside, ask = _begin(one.rows, block, thread)
        part, base, to = _Row(lane, one.columns), row * one.stride, row * one.columns
        with only_if(inside, ask):
            peak = kept(part.reduced(float("-inf"), lambda at: x[base + at], "max"))
            total = part.reduced(0.0, lambda at: tirx.exp(x[base + at] - peak), "sum")
            inverse = kept(tirx.const(1.0, "float32") / total)
            part.each(
                lambda at: store(out, to + at, tirx.exp(x[base + at] - peak) * inverse, 1)
            )


@dataclass(frozen=True)
class ReduceElements:
    """A thread has a short reduction, a block a long one."""

    kernel: Reduce
    gpu: Gpu

    threads = BLOCK

    @property
    def _counts(self) -> tuple[int, int]:
        kept_, reduced = self.kernel.kept, self.kernel.reduced
        return math.prod(n.size for n in kept_), math.prod(n.size for n in reduced)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        count, size = self._counts
        return count if size >= _LONG else -(-count // BLOCK)

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Sums in a fixed order: those of threads first, then by halves."""
        count, size = self._counts
        if size >= _LONG:
            self._together(buffers, block, thread)
            return
        index = block * BLOCK + thread
        with only_if(index < count, count % BLOCK != 0):
            total = self._begun()
            with T.serial(0, size) as i:
                self._add(total, buffers[1], index, i)
            self._put(buffers[0], index, total[0])

    def _begun(self) -> Any:
        total = registers(1)
        set_register(total, tirx.const(START[self.kernel.kind], "float32"))
        return total

    def _add(self, total: Any, x: Any, index: Any, i: Any) -> None:
        one = self.kernel
        at: Any = 0
        for where, loops, which in ((index, one.kept, 1), (i, one.reduced, 0)):
            for digit, loop in zip(
                unravel(where, [n.size for n in loops]), loops, strict=True
            ):
                at = at + digit * loop.strides[which]
        set_register(total, combine(one.kind, total[0], kept(x[at])))

    def _put(self, out: Any, index: Any, total: Any) -> None:
        one = self.kernel
        sizes = [n.size for n in one.kept]
        at: Any = 0
        for digit, loop in zip(unravel(index, sizes), one.kept, strict=True):
            at = at + digit * loop.strides[0]
        scaled = total * tirx.const(one.factor, "float32")
        store(out, at, tirx.sqrt(scaled) if one.root else scaled, 1)

    def _together(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        _, size = self._counts
        kind = "sum" if self.kernel.kind == "squares" else self.kernel.kind
        total, every = self._begun(), shared(BLOCK)
        with T.serial(0, -(-size // BLOCK)) as i:
            at = i * BLOCK + thread
            with only_if(at < size, size % BLOCK != 0):
                self._add(total, buffers[1], block, at)
        set_register(every, total[0], thread)
        barrier()
        half = BLOCK // 2
        while half:
            with only_if(thread < half):
                both = combine(kind, every[thread], every[thread + half])
                set_register(every, kept(both), thread)
            barrier()
            half //= 2
        with only_if(thread < 1):
            self._put(buffers[0], block, every[0])
