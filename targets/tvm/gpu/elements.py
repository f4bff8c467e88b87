"""Kernels whose every element is a thread's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.gpu.body import (
    BLOCK,
    kept,
    number,
    only_if,
    registers,
    set_register,
    unravel,
)
from edgevit.targets.tvm.kernels.depthwise import Depthwise
from edgevit.targets.tvm.kernels.kernel import store
from edgevit.targets.tvm.kernels.pointwise import Pointwise, evaluate
from edgevit.targets.tvm.kernels.reduce import START, combine
from edgevit.targets.tvm.kernels.windows import GatherRows, Pool, Resample

__all__ = ["ELEMENTS", "Elements"]

Write = Callable[[Any, Sequence[Any], Any], None]
# Taps of a window that are written out one after the other.
_UNROLLED = 49


@dataclass(frozen=True)
class Elements:
    """``size`` threads, one an element.

    Attributes:
        kernel: What is computed.
        size: Elements.
        element: Writes what the thread of an index does.
    """

    kernel: Any
    size: int
    element: Write

    threads = BLOCK

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.size // BLOCK)

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """One element."""
        index = block * BLOCK + thread
        with only_if(index < self.size, self.size % BLOCK != 0):
            self.element(self.kernel, buffers, index)


def _pointwise(one: Pointwise, buffers: Sequence[Any], index: Any) -> None:
    digits = unravel(index, [n.size for n in one.nest])
    places: list[Any] = [number(0)] * len(buffers)
    for digit, loop in zip(digits, one.nest, strict=True):
        places = [at + digit * s for at, s in zip(places, loop.strides, strict=True)]
    values = [
        kept(b[at], dtype)
        for b, at, dtype in zip(buffers[1:], places[1:], one.dtypes[1:], strict=True)
    ]
    store(buffers[0], places[0], evaluate(one.expression, values, 1), 1)


def _depthwise(one: Depthwise, buffers: Sequence[Any], index: Any) -> None:
    window = one.window
    pixel, channel = index // one.channels, index % one.channels
    source = window.corner(pixel) + channel // one.multiplier
    total = registers(1)
    set_register(total, tirx.const(0.0, "float32"))
    wide = window.kernel[1]
    loop = T.unroll if window.taps <= _UNROLLED else T.serial
    with loop(0, window.taps) as tap:
        value = buffers[0][source + window.tap(tap // wide, tap % wide)]
        weight = buffers[1][tap * one.channels + channel]
        set_register(total, total[0] + value * weight)
    place = pixel * one.output_stride + channel
    made = one.epilogue.apply(total[0], buffers[2:], channel, place, 1)
    store(buffers[-1], place, made, 1)


def _pool(one: Pool, buffers: Sequence[Any], index: Any) -> None:
    high, wide = one.out
    image, row, column, channel = unravel(index, (one.images, high, wide, one.channels))
    top = image * one.height + row * one.strides[0]
    left = column * one.strides[1]
    total = registers(1)
    set_register(total, tirx.const(START[one.kind], "float32"))
    with T.serial(0, math.prod(one.kernel)) as tap:
        y = top + tap // one.kernel[1] * one.dilations[0]
        x = left + tap % one.kernel[1] * one.dilations[1]
        value = kept(buffers[1][(y * one.width + x) * one.channels + channel])
        set_register(total, combine(one.kind, total[0], value))
    made = total[0]
    if one.counted:
        made = made * buffers[2][row * wide + column]
    elif one.factor != 1.0:
        made = made * tirx.const(one.factor, "float32")
    store(buffers[0], index, made, 1)


def _resample(one: Resample, buffers: Sequence[Any], index: Any) -> None:
    out, x, weights, indices = buffers
    o, i, n = unravel(index, (one.outer, one.target, one.inner))
    total: Any = None
    for tap in range(one.taps):
        source = o * one.source + indices[i * one.taps + tap]
        part = x[source * one.inner + n] * weights[i * one.taps + tap]
        total = part if total is None else total + part
    store(out, index, total, 1)


def _gather(one: GatherRows, buffers: Sequence[Any], index: Any) -> None:
    out, x, indices = buffers
    o, j, n = unravel(index, (one.outer, one.picks, one.inner))
    found = kept(indices[j].astype("int32"), "int32")
    front = tirx.Select(found < 0, found + one.source, found)
    where = tirx.max(number(0), tirx.min(number(one.source - 1), front))
    store(out, index, x[(o * one.source + where) * one.inner + n], 1)


def _size_pointwise(one: Pointwise) -> int:
    return math.prod(n.size for n in one.nest)


ELEMENTS: dict[type, tuple[Callable[[Any], int], Write]] = {
    Depthwise: (lambda k: k.window.pixels * k.channels, _depthwise),
    GatherRows: (lambda k: k.outer * k.picks * k.inner, _gather),
    Pointwise: (_size_pointwise, _pointwise),
    Pool: (lambda k: k.images * math.prod(k.out) * k.channels, _pool),
    Resample: (lambda k: k.outer * k.target * k.inner, _resample),
}
