"""Kernels over sliding windows and tables: pooling, resampling, gathering."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, spread, store
from edgevit.targets.tvm.kernels.reduce import combine
from edgevit.targets.tvm.machine import Machine

__all__ = ["GatherRows", "Pool", "Resample"]

PARALLEL_FROM = 16384


def _channels(size: int, lanes: int) -> list[tuple[int, int, int]]:
    """Parts of a contiguous axis: (first, vectors, lanes of each)."""
    parts, done = [], 0
    while done < size:
        count = (size - done) // lanes
        if count:
            parts.append((done, count, lanes))
            done += count * lanes
        lanes = max(1, lanes // 2)
    return parts


@dataclass(frozen=True)
class Pool:
    """Largest element or sum of each window of a padded channels-last image.

    Attributes:
        kind: ``max`` or ``sum``.
        images, height, width, channels: Of the padded input, dense.
        kernel, strides, dilations: Of the window, (height, width).
        counted: Whether each result is multiplied by a number of its own (``factors``).
        factor: Multiplied to every result otherwise.
    """

    kind: str
    images: int
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    counted: bool = False
    factor: float = 1.0

    @property
    def label(self) -> str:
        """``pool_max`` or ``pool_sum``."""
        return f"pool_{self.kind}"

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        sizes = ((self.height, 0), (self.width, 1))
        reach = [(self.kernel[i] - 1) * self.dilations[i] + 1 for _, i in sizes]
        found = [(s - reach[i]) // self.strides[i] + 1 for s, i in sizes]
        return found[0], found[1]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, image, and the factors of places if they differ."""
        h, w = self.out
        size = self.images * self.height * self.width * self.channels
        found = [
            Operand("out", "float32", self.images * h * w * self.channels, written=True),
            Operand("x", "float32", size),
        ]
        return (*found, Operand("factors", "float32", h * w)) if self.counted else tuple(found)

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Vectors along the channels, all taps of a window in one register."""
        h, w = self.out
        work = self.images * h * w * self.channels * math.prod(self.kernel)
        with loop(self.images * h, parallel=work >= PARALLEL_FROM) as line, loop(w) as column:
            image, row = T.floordiv(line, h), T.floormod(line, h)
            top = image * self.height + row * self.strides[0]
            for first, count, lanes in _channels(self.channels, machine.lanes):
                with loop(count) as index:
                    at = first + index * lanes
                    base = (top * self.width + column * self.strides[1]) * self.channels + at
                    place = (line * w + column) * self.channels + at
                    self._window(buffers, base, place, row * w + column, lanes)

    def _window(self, buffers: Any, base: Any, place: Any, where: Any, lanes: int) -> None:
        out, x = buffers[:2]
        total = local(lanes)
        start = -math.inf if self.kind == "max" else 0.0
        store(total, 0, vmath.constant(start, load(total, 0, lanes)), lanes)
        with ExitStack() as stack:
            y = stack.enter_context(loop(self.kernel[0])) * self.dilations[0]
            z = stack.enter_context(loop(self.kernel[1])) * self.dilations[1]
            part = load(x, base + (y * self.width + z) * self.channels, lanes)
            store(total, 0, combine(self.kind, load(total, 0, lanes), part), lanes)
        result = load(total, 0, lanes)
        if self.counted:
            result = result * spread(buffers[2][where], lanes)
        elif self.factor != 1.0:
            result = result * vmath.constant(self.factor, result)
        store(out, place, result, lanes)


@dataclass(frozen=True)
class Resample:
    """``out[o, i, n] = sum_t weight[i, t] x[o, index[i, t], n]`` along one axis.

    Attributes:
        outer: Elements in front of the axis.
        source: Length of the axis before.
        target: Length after.
        inner: Elements behind it, neighbors in memory.
        taps: Source elements that a result element is made of.
    """

    outer: int
    source: int
    target: int
    inner: int
    taps: int

    label = "resample"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, input, weights, indices."""
        return (
            Operand("out", "float32", self.outer * self.target * self.inner, written=True),
            Operand("x", "float32", self.outer * self.source * self.inner),
            Operand("weights", "float32", self.target * self.taps),
            Operand("indices", "int32", self.target * self.taps),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Vectors along the inner axis."""
        out, x, weights, indices = buffers
        work = self.outer * self.target * self.inner
        with (
            loop(self.outer, parallel=work >= PARALLEL_FROM) as o,
            loop(self.target) as i,
        ):
            for first, count, lanes in _channels(self.inner, machine.lanes):
                with loop(count) as index:
                    at = first + index * lanes
                    total = None
                    for tap in range(self.taps):
                        source = o * self.source + indices[i * self.taps + tap]
                        weight = weights[i * self.taps + tap]
                        part = load(x, source * self.inner + at, lanes)
                        part = part * spread(weight, lanes)
                        total = part if total is None else total + part
                    store(out, (o * self.target + i) * self.inner + at, total, lanes)


@dataclass(frozen=True)
class GatherRows:
    """``out[o, j, n] = x[o, index[j], n]``; negative indices count from the end.

    Attributes:
        outer: Elements in front of the axis.
        source: Length of the axis.
        picks: Number of indices.
        inner: Elements behind it, neighbors in memory.
        dtype: Of the data.
        index: Of the indices, ``int32`` or ``int64``.
    """

    outer: int
    source: int
    picks: int
    inner: int
    dtype: str
    index: str

    label = "gather"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Result, data, indices."""
        return (
            Operand("out", self.dtype, self.outer * self.picks * self.inner, written=True),
            Operand("x", self.dtype, self.outer * self.source * self.inner),
            Operand("indices", self.index, self.picks),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Copies rows; an index outside of the axis reads its nearest end."""
        out, x, indices = buffers
        with loop(self.outer) as o, loop(self.picks) as j:
            found = indices[j].astype("int32")
            front = T.Select(found < 0, found + self.source, found)
            where = T.max(0, T.min(self.source - 1, front))
            for first, count, lanes in _channels(self.inner, machine.lanes):
                with loop(count) as index:
                    at = first + index * lanes
                    value = load(x, (o * self.source + where) * self.inner + at, lanes)
                    store(out, (o * self.picks + j) * self.inner + at, value, lanes)
