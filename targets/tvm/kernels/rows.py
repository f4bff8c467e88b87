"""Kernels that walk rows of neighbors: layer normalization, RMS normalization, softmax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.epilogue import Quantize, typed
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, spread, store
from edgevit.targets.tvm.kernels.reduce import combine
from edgevit.targets.tvm.kernels.shuffle import across
from edgevit.targets.tvm.machine import Machine

__all__ = ["LayerNorm", "QuantizeRows", "Row", "RowSoftmax"]

PARALLEL_FROM = 32768
# Sums that take turns, so that an addition need not wait for the one before.
_CHAINS = 4


@contextmanager
def _rows(rows: int, columns: int) -> Iterator[Any]:
    with loop(rows, parallel=rows * columns >= PARALLEL_FROM) as row:
        yield row


@contextmanager
def _parts(columns: int, lanes: int) -> Iterator[Any]:
    """The loop over whole vectors of a row."""
    with loop(columns // lanes) as index:
        yield index * lanes


def _tail(columns: int, lanes: int) -> range:
    return range(columns - columns % lanes, columns)


class Row:
    """Sums over one row, in vectors with a scalar tail."""

    def __init__(self, columns: int, lanes: int) -> None:
        while lanes > columns:
            lanes //= 2
        self.columns, self.lanes = columns, lanes

    def reduced(self, kind: str, start: float, value: Any) -> Any:
        """A scalar register with the reduction of ``value(at, lanes)`` over the row."""
        lanes, count = self.lanes, self.columns // self.lanes
        ways = min(_CHAINS, count)
        totals = [local(lanes) for _ in range(ways)]
        for total in totals:
            store(total, 0, vmath.constant(start, load(total, 0, lanes)), lanes)

        def add(way: int, at: Any) -> None:
            more = combine(kind, load(totals[way], 0, lanes), value(at, lanes))
            store(totals[way], 0, more, lanes)

        rounds, rest = divmod(count, ways)
        with loop(rounds) as i:
            for way in range(ways):
                add(way, (i * ways + way) * lanes)
        for way in range(rest):
            add(way, (rounds * ways + way) * lanes)
        plain, result = "sum" if kind == "squares" else kind, local(1)
        for other in totals[1:]:
            both = combine(plain, load(totals[0], 0, lanes), load(other, 0, lanes))
            store(totals[0], 0, both, lanes)
        whole = across(lambda a, b: combine(plain, a, b), totals[0], lanes)
        T.buffer_store(result, whole, [0])
        for at in _tail(self.columns, self.lanes):
            T.buffer_store(result, combine(kind, result[0], value(at, 1)), [0])
        return result

    def written(self, out: Any, base: Any, value: Any) -> None:
        """Store ``value(at, lanes)`` for the whole row."""
        with _parts(self.columns, self.lanes) as at:
            store(out, base + at, value(at, self.lanes), self.lanes)
        for at in _tail(self.columns, self.lanes):
            store(out, base + at, value(at, 1), 1)


@dataclass(frozen=True)
class LayerNorm:
    """Normalize each row: (x - mean) / sqrt(variance + epsilon) * scale + bias.

    Attributes:
        rows: Number of rows.
        columns: Elements of a row, neighbors in memory.
        stride: From row to row of the input; the result is dense.
        epsilon: Added to the variance.
        centered: Whether the mean is taken off (no: RMS normalization, no bias).
        quantize: Integers as the result, if any.
    """

    rows: int
    columns: int
    stride: int
    epsilon: float
    centered: bool = True
    quantize: Quantize | None = None

    @property
    def label(self) -> str:
        """``layernorm`` or ``rmsnorm``."""
        return "layernorm" if self.centered else "rmsnorm"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, input, scale, bias."""
        size = self.rows * self.columns
        read = (self.rows - 1) * self.stride + self.columns
        return (
            Operand("out", self.quantize.dtype if self.quantize else "float32", size, True),
            Operand("x", "float32", read),
            Operand("scale", "float32", self.columns),
            Operand("bias", "float32", self.columns),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Two passes over the row for the statistics, one to write."""
        out, x, scale, bias = buffers
        part = Row(self.columns, machine.lanes)
        per = tirx.const(1.0 / self.columns, "float32")
        with _rows(self.rows, self.columns) as row:
            base = row * self.stride
            mean = local(1)
            T.buffer_store(mean, tirx.const(0.0, "float32"), [0])
            if self.centered:
                total = part.reduced("sum", 0.0, lambda at, n: load(x, base + at, n))
                T.buffer_store(mean, total[0] * per, [0])

            def off(at: Any, n: int) -> Any:
                return load(x, base + at, n) - spread(mean[0], n)

            squares = part.reduced("squares", 0.0, off)
            root = local(1)
            variance = squares[0] * per + tirx.const(self.epsilon, "float32")
            T.buffer_store(root, tirx.const(1.0, "float32") / tirx.sqrt(variance), [0])

            def normal(at: Any, n: int) -> Any:
                scaled = off(at, n) * spread(root[0], n) * load(scale, at, n)
                made = scaled + load(bias, at, n) if self.centered else scaled
                return self.quantize.apply(made) if self.quantize else made

            part.written(out, row * self.columns, normal)


@dataclass(frozen=True)
class RowSoftmax:
    """Softmax (or its logarithm) of each row.

    Attributes:
        rows: Number of rows.
        columns: Elements of a row, neighbors in memory.
        stride: From row to row of the input; the result is dense.
    """

    rows: int
    columns: int
    stride: int

    label = "softmax"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result and input."""
        read = (self.rows - 1) * self.stride + self.columns
        return (
            Operand("out", "float32", self.rows * self.columns, written=True),
            Operand("x", "float32", read),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Largest element, exponentials with their sum, division."""
        out, x = buffers
        part = Row(self.columns, machine.lanes)
        with _rows(self.rows, self.columns) as row:
            base, to = row * self.stride, row * self.columns
            peak = part.reduced("max", float("-inf"), lambda at, n: load(x, base + at, n))

            def power(at: Any, n: int) -> Any:
                return vmath.exp_below(load(x, base + at, n) - spread(peak[0], n))

            part.written(out, to, power)
            total = part.reduced("sum", 0.0, lambda at, n: load(out, to + at, n))
            inverse = local(1)
            T.buffer_store(inverse, tirx.const(1.0, "float32") / total[0], [0])
            part.written(out, to, lambda at, n: load(out, to + at, n) * spread(inverse[0], n))


@dataclass(frozen=True)
class QuantizeRows:
    """Codes of each row, -127 to 127 of its own largest magnitude, and what a step is worth.

    Attributes:
        rows: Number of rows.
        columns: Elements of a row, neighbors in memory.
        stride: From row to row of the input.
        width: From row to row of the codes; those past the columns are not written.
        zero: Code of 0.
        dtype: ``uint8`` or ``int8``.
    """

    rows: int
    columns: int
    stride: int
    width: int
    zero: int
    dtype: str

    label = "quantize_rows"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Codes, steps, input."""
        return (
            Operand("codes", self.dtype, self.rows * self.width, written=True),
            Operand("steps", "float32", self.rows, written=True),
            Operand("x", "float32", (self.rows - 1) * self.stride + self.columns),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """The largest magnitude, then the codes."""
        codes, steps, x = buffers
        part = Row(self.columns, machine.lanes)
        zero, most = (tirx.const(n, "float32") for n in (0.0, 127.0))
        with _rows(self.rows, self.columns) as row:
            base = row * self.stride
            peak = part.reduced("max", 0.0, lambda at, n: tirx.abs(load(x, base + at, n)))
            T.buffer_store(steps, peak[0] / most, [row])
            inverse = local(1)
            T.buffer_store(inverse, tirx.Select(peak[0] > zero, most / peak[0], zero), [0])

            def code(at: Any, n: int) -> Any:
                whole = tirx.nearbyint(load(x, base + at, n) * spread(inverse[0], n))
                whole = vmath.minimum(127.0, vmath.maximum(-127.0, whole))
                shifted = typed(whole, "int32") + spread(tirx.const(self.zero, "int32"), n)
                return typed(shifted, self.dtype)

            part.written(codes, row * self.width, code)
