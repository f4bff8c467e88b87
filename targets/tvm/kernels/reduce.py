"""Reductions over some loops of a strided operand."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, store
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.strides import Loop

__all__ = ["START", "Reduce", "combine", "horizontal"]

START = {"sum": 0.0, "squares": 0.0, "max": -math.inf, "min": math.inf, "prod": 1.0}
PARALLEL_FROM = 32768


def combine(kind: str, a: Any, b: Any) -> Any:
    """``a`` with one more element ``b``; NaN stays NaN."""
    if kind == "sum":
        return a + b
    if kind == "squares":
        return a + b * b
    if kind == "prod":
        return a * b
    stays = a < b if kind == "max" else a > b
    return tirx.Select(stays, b, tirx.Select(tirx.NE(b, b), b, a))


def horizontal(kind: str, register: Any, lanes: int) -> Any:
    """One number of a register's lanes, by halves."""
    kind = "sum" if kind == "squares" else kind
    values = [register[i] for i in range(lanes)]
    while len(values) > 1:
        half = len(values) // 2
        values = [
            combine(kind, a, b) for a, b in zip(values[:half], values[half:], strict=True)
        ]
    return values[0]


@dataclass(frozen=True)
class Reduce:
    """``out[kept] = finish(reduction of in[kept, reduced])``.

    Attributes:
        kind: ``sum``, ``squares``, ``max``, ``min`` or ``prod``.
        kept: Loops of the result, outermost first; strides of result and input.
        reduced: Loops that are summed over; the input's stride alone.
        factor: Multiplied to the reduction (1/n makes a mean).
        root: Whether the square root is taken at the end.
    """

    kind: str
    kept: tuple[Loop, ...]
    reduced: tuple[Loop, ...]
    factor: float = 1.0
    root: bool = False

    @property
    def label(self) -> str:
        """Its kind."""
        return f"reduce_{self.kind}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The result, the input."""
        out = 1 + sum((n.size - 1) * n.strides[0] for n in self.kept)
        read = 1 + sum((n.size - 1) * n.strides[1] for n in self.kept)
        read += sum((n.size - 1) * n.strides[0] for n in self.reduced)
        return (Operand("out", "float32", out, written=True), Operand("x", "float32", read))

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Vectors along a kept axis of unit stride, else along a reduced one, else scalars."""
        last = self.kept[-1] if self.kept else None
        across = last is not None and last.strides == (1, 1)
        outer = self.kept[:-1] if across else self.kept
        work = math.prod(n.size for n in (*self.kept, *self.reduced))
        with ExitStack() as stack:
            o: Any = 0
            x: Any = 0
            for depth, one in enumerate(outer):
                wide = depth == 0 and work >= PARALLEL_FROM
                index = stack.enter_context(loop(one.size, parallel=wide))
                o, x = o + index * one.strides[0], x + index * one.strides[1]
            if last is not None and across:
                self._across(machine, buffers, o, x, last.size)
            else:
                self._along(machine, buffers, o, x)

    def _across(self, machine: Machine, buffers: Any, o: Any, x: Any, size: int) -> None:
        lanes, done = machine.lanes, 0
        while done < size:
            count = (size - done) // lanes
            if count:
                with loop(count) as index:
                    at = done + index * lanes
                    self._sum(buffers, o + at, x + at, lanes)
                done += count * lanes
            lanes //= 2

    def _sum(self, buffers: Any, o: Any, x: Any, lanes: int) -> None:
        out, data = buffers
        total = local(lanes)
        start = vmath.constant(START[self.kind], load(total, 0, lanes))
        store(total, 0, start, lanes)
        with ExitStack() as stack:
            for one in self.reduced:
                x = x + stack.enter_context(loop(one.size)) * one.strides[0]
            store(
                total,
                0,
                combine(self.kind, load(total, 0, lanes), load(data, x, lanes)),
                lanes,
            )
        store(out, o, self._finished(load(total, 0, lanes)), lanes)

    def _along(self, machine: Machine, buffers: Any, o: Any, x: Any) -> None:
        last = self.reduced[-1] if self.reduced else None
        lanes = machine.lanes
        if last is None or last.strides != (1,) or last.size < lanes:
            self._sum(buffers, o, x, 1)
            return
        out, data = buffers
        total = local(lanes)
        start = vmath.constant(START[self.kind], load(total, 0, lanes))
        store(total, 0, start, lanes)
        tail = local(1)
        T.buffer_store(tail, tirx.const(START[self.kind], "float32"), [0])
        count = last.size // lanes
        with ExitStack() as stack:
            for one in self.reduced[:-1]:
                x = x + stack.enter_context(loop(one.size)) * one.strides[0]
            with loop(count) as index:
                part = load(data, x + index * lanes, lanes)
                store(total, 0, combine(self.kind, load(total, 0, lanes), part), lanes)
            for i in range(count * lanes, last.size):
                T.buffer_store(tail, combine(self.kind, tail[0], data[x + i]), [0])
        kind = "sum" if self.kind == "squares" else self.kind
        whole = combine(kind, horizontal(self.kind, total, lanes), tail[0])
        T.buffer_store(out, self._finished(whole), [o])

    def _finished(self, total: Any) -> Any:
        scaled = total if self.factor == 1.0 else total * vmath.constant(self.factor, total)
        return tirx.sqrt(scaled) if self.root else scaled
