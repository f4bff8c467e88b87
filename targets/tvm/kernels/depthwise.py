"""Convolution of each channel by itself, over images in NHWC order.

Vectors hold neighboring channels; a tile is a few neighboring pixels of an output row, which
share the pixels they read. Bytes become float32 as they are read: sums of up to 256 products
of bytes, less a zero point's part, stay below 2^24: float32 adds them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.conv import Window
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue, typed
from edgevit.targets.tvm.kernels.kernel import Operand, load, loop, vector
from edgevit.targets.tvm.kernels.tile import Blocks, Tile, finish, parallel_worth
from edgevit.targets.tvm.machine import Machine

__all__ = ["Depthwise", "pack_depthwise", "pack_depthwise_integers"]

# Products written out before a loop over the window's rows takes over.
_UNROLLED = 256
# Pixels of a tile where there are 32 registers: the rest hold weights and inputs.
_PIXELS = 12
# Tasks to share among cores, where blocks of pixels alone are fewer.
_TASKS = 16


def pack_depthwise(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights [Cout, 1, KH, KW] as ``Depthwise`` reads them: [KH][KW][Cout], flat."""
    return np.ascontiguousarray(
        np.asarray(weights, np.float32)[:, 0].transpose(1, 2, 0)
    ).ravel()


def pack_depthwise_integers(
    weights: np.ndarray[Any, Any], zero: int
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
    """The same for int8 weights, and the offsets [Cout] that undo the input's zero point."""
    offsets = -zero * weights.astype(np.int64).sum(axis=(1, 2, 3))
    return pack_depthwise(weights), offsets.astype(np.float32)


@dataclass(frozen=True)
class Depthwise:
    """Output[pixel, c] = epilogue(sum over the window of input channel c // multiplier).

    Attributes:
        window: Windows and how they lie in the input, which is padded already.
        channels: Output channels.
        multiplier: Output channels of each input channel; reads are scattered unless 1.
        output_stride: Elements from one output pixel to the next.
        epilogue: What follows the sums.
        source: dtype of the input: ``float32``, ``uint8`` or ``int8``; weights are integers
            in float32 then, and sums start at offsets that undo the zero point.
    """

    window: Window
    channels: int
    multiplier: int
    output_stride: int
    epilogue: Epilogue = PLAIN
    source: str = "float32"

    @property
    def label(self) -> str:
        """``depthwise``, ``depthwise_int8``."""
        return "depthwise" if self.source == "float32" else "depthwise_int8"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Padded input, packed weights, offsets if integers, the epilogue's reads, output."""
        window = self.window
        places = (window.pixels - 1) * self.output_stride + self.channels
        return (
            Operand("input", self.source, window.extent(self.channels // self.multiplier)),
            Operand("weights", "float32", window.taps * self.channels),
            *self._offsets,
            *self.epilogue.operands(self.channels, places),
        )

    @property
    def _offsets(self) -> tuple[Operand, ...]:
        integers = self.source != "float32"
        return (Operand("offset", "float32", self.channels),) if integers else ()

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Blocks of pixels of one vector of channels, row by row, in the cache."""
        window, offsets = self.window, len(self._offsets)
        high, wide = window.output
        columns = Columns(self.channels, machine.lanes, 1)
        blocks = Blocks(wide, _PIXELS if machine.registers >= 32 else _PIXELS // 2)
        walks = window.batch * blocks.number * columns.panels
        worth = parallel_worth(window.pixels * window.taps * self.channels)
        parts = Blocks(high, -(-high * walks // _TASKS) if worth and walks < _TASKS else high)
        with loop(walks * parts.number, parallel=worth) as task:
            walk, part = task // parts.number, task % parts.number
            channel = columns.start(walk % columns.panels, 0)
            block = walk // columns.panels
            image, left = block // blocks.number, blocks.start(block % blocks.number)
            with loop(parts.size) as down:
                row = image * high + parts.start(part) + down
                first = row * wide + left
                tile = Tile(blocks.size, 1, columns.lanes)
                tile.clear()
                if offsets:
                    tile.begin([load(buffers[2], channel, columns.lanes)])
                self._sum(tile, buffers, window.corner(first), channel)
                places = [(first + r) * self.output_stride for r in range(blocks.size)]
                finish(tile, self.epilogue, buffers[2 + offsets :], [channel], places)

    def _sum(self, tile: Tile, buffers: Any, corner: Any, channel: Any) -> None:
        """Add all taps, rows of the window in a loop where they are many."""
        high, wide = self.window.kernel
        step = self.window.strides[1] * self.window.pixel_stride

        def add(row: Any, column: int) -> None:
            tap = corner + self.window.tap(row, column)
            inputs = [
                self._read(buffers[0], tap + r * step, channel, tile.lanes)
                for r in range(tile.rows)
            ]
            weights = load(
                buffers[1], (row * wide + column) * self.channels + channel, tile.lanes
            )
            tile.step(column % tile.ways, inputs, [weights], lambda s, x, w: s + x * w)

        if high * wide * tile.rows <= _UNROLLED:
            for row in range(high):
                for column in range(wide):
                    add(row, column)
            return
        with loop(high) as row:
            for column in range(wide):
                add(row, column)

    def _read(self, source: Any, pixel: Any, channel: Any, lanes: int) -> Any:
        return typed(self._loaded(source, pixel, channel, lanes), "float32")

    def _loaded(self, source: Any, pixel: Any, channel: Any, lanes: int) -> Any:
        if self.multiplier == 1:
            return load(source, pixel + channel, lanes)
        if lanes == 1:
            return source[pixel + channel // self.multiplier]
        spread = T.Broadcast(tirx.const(self.multiplier, "int32"), lanes)
        return source[
            T.Broadcast(pixel, lanes) + tirx.floordiv(vector(channel, lanes), spread)
        ]
