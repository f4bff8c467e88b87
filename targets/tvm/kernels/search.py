"""Kernels that look elements up or put them in order: scalar loops, rarely on a hot path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.kernel import Operand, loop
from edgevit.targets.tvm.machine import Machine

__all__ = ["ArgMax", "CumSum", "Pick", "Put", "TopK", "address"]


def _index(buffer: Any, at: Any, limit: int) -> Any:
    """A stored index counted from the front and kept inside its axis."""
    found = buffer[at].astype("int32")
    front = tirx.Select(found < 0, found + limit, found)
    return tirx.max(0, tirx.min(limit - 1, front))


def address(buffer: Any, row: Any, dims: Sequence[int]) -> Any:
    """The element that a row of coordinates names in a dense tensor."""
    at: Any = 0
    for i, size in enumerate(dims):
        at = at * size + _index(buffer, row * len(dims) + i, size)
    return at


@dataclass(frozen=True)
class Pick:
    """``out[b, j, :] = x[b, indices[b, j], :]``, an index being a row of coordinates.

    Attributes:
        batch: Leading elements that data and indices share.
        rows: Rows of indices, of one batch element.
        dims: Axes that a row names.
        inner: Elements behind them.
        dtype: Of the data.
        index: Of the indices.
    """

    batch: int
    rows: int
    dims: tuple[int, ...]
    inner: int
    dtype: str
    index: str

    label = "pick"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, data, indices."""
        data = self.batch * math.prod(self.dims) * self.inner
        return (
            Operand("out", self.dtype, self.batch * self.rows * self.inner, written=True),
            Operand("x", self.dtype, data),
            Operand("indices", self.index, self.batch * self.rows * len(self.dims)),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Copies."""
        out, x, indices = buffers
        with loop(self.batch) as b, loop(self.rows) as j:
            row = b * self.rows + j
            source = b * math.prod(self.dims) + address(indices, row, self.dims)
            with loop(self.inner) as n:
                value = x[source * self.inner + n]
                T.buffer_store(out, value, [row * self.inner + n])


@dataclass(frozen=True)
class Put:
    """Write ``updates[j, :]`` to ``out[indices[j], :]``, in order.

    Attributes:
        rows: Rows of indices.
        dims: Axes that a row names.
        inner: Elements behind them.
        dtype: Of the data.
        index: Of the indices.
    """

    rows: int
    dims: tuple[int, ...]
    inner: int
    dtype: str
    index: str

    label = "put"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, updates, indices."""
        return (
            Operand("out", self.dtype, math.prod(self.dims) * self.inner, written=True),
            Operand("updates", self.dtype, self.rows * self.inner),
            Operand("indices", self.index, self.rows * len(self.dims)),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Copies, one after the other: of equal indices the last one stays."""
        out, updates, indices = buffers
        with loop(self.rows) as j:
            target = address(indices, j, self.dims)
            with loop(self.inner) as n:
                value = updates[j * self.inner + n]
                T.buffer_store(out, value, [target * self.inner + n])


@dataclass(frozen=True)
class CumSum:
    """Running sums along the middle axis of [outer, length, inner].

    Attributes:
        outer, length, inner: The tensor's shape.
        exclusive: Whether an element itself is left out of its sum.
        reverse: Whether sums run from the end.
    """

    outer: int
    length: int
    inner: int
    exclusive: bool
    reverse: bool

    label = "cumsum"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, data."""
        size = self.outer * self.length * self.inner
        return (Operand("out", "float32", size, written=True), Operand("x", "float32", size))

    def body(self, machine: Machine, *buffers: Any) -> None:
        """One running sum a line."""
        out, x = buffers
        with loop(self.outer) as o, loop(self.inner) as n:
            total = T.alloc_buffer((1,), "float32", scope="global")
            T.buffer_store(total, tirx.const(0.0, "float32"), [0])
            with loop(self.length) as i:
                where = (self.length - 1 - i) if self.reverse else i
                at = (o * self.length + where) * self.inner + n
                if self.exclusive:
                    T.buffer_store(out, total[0], [at])
                    T.buffer_store(total, total[0] + x[at], [0])
                else:
                    T.buffer_store(total, total[0] + x[at], [0])
                    T.buffer_store(out, total[0], [at])


@dataclass(frozen=True)
class ArgMax:
    """The index of the largest element along the middle axis of [outer, length, inner].

    Attributes:
        outer, length, inner: The tensor's shape.
        last: Of equal elements the last one, not the first.
    """

    outer: int
    length: int
    inner: int
    last: bool

    label = "argmax"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, data."""
        return (
            Operand("out", "int64", self.outer * self.inner, written=True),
            Operand("x", "float32", self.outer * self.length * self.inner),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """One search a line."""
        out, x = buffers
        with loop(self.outer) as o, loop(self.inner) as n:
            best = T.alloc_buffer((1,), "float32", scope="global")
            where = T.alloc_buffer((1,), "int32", scope="global")
            start = o * self.length * self.inner + n
            T.buffer_store(best, x[start], [0])
            T.buffer_store(where, tirx.const(0, "int32"), [0])
            with loop(self.length) as i:
                value = x[start + i * self.inner]
                better = value >= best[0] if self.last else value > best[0]
                with T.If(better), T.Then():
                    T.buffer_store(best, value, [0])
                    T.buffer_store(where, i, [0])
            T.buffer_store(out, where[0].astype("int64"), [o * self.inner + n])


@dataclass(frozen=True)
class TopK:
    """The ``count`` largest elements along the last axis, in order; ties by lower index.

    Attributes:
        outer: Lines.
        length: Elements of a line.
        count: How many are taken.
        largest: The largest, not the smallest.
    """

    outer: int
    length: int
    count: int
    largest: bool

    label = "topk"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Values, indices, data, and marks of what was taken."""
        return (
            Operand("values", "float32", self.outer * self.count, written=True),
            Operand("indices", "int64", self.outer * self.count, written=True),
            Operand("x", "float32", self.outer * self.length),
            Operand("taken", "int32", self.length, written=True),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """One search for each element that is taken."""
        values, indices, x, taken = buffers
        with loop(self.outer) as o:
            with loop(self.length) as i:
                T.buffer_store(taken, tirx.const(0, "int32"), [i])
            with loop(self.count) as k:
                where = T.alloc_buffer((1,), "int32", scope="global")
                T.buffer_store(where, tirx.const(-1, "int32"), [0])
                with loop(self.length) as i:
                    now = x[o * self.length + i]
                    best = x[o * self.length + tirx.max(0, where[0])]
                    better = now > best if self.largest else now < best
                    free = tirx.EQ(taken[i], 0)
                    with T.If(tirx.all(free, tirx.any(where[0] < 0, better))), T.Then():
                        T.buffer_store(where, i, [0])
                T.buffer_store(taken, tirx.const(1, "int32"), [where[0]])
                T.buffer_store(values, x[o * self.length + where[0]], [o * self.count + k])
                T.buffer_store(indices, where[0].astype("int64"), [o * self.count + k])
