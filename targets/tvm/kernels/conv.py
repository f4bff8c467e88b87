"""Convolution over images in NHWC order, float32 or bytes: an implicit matrix product.

A row of A is the window of one output pixel, read where it lies; the rows of a tile are
neighboring output pixels of the flattened images, so that narrow images fill tiles too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.targets.tvm.kernels.arithmetic import (
    FLOAT32,
    QUAD,
    Arithmetic,
    pack_integers,
)
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue
from edgevit.targets.tvm.kernels.kernel import Operand, loop
from edgevit.targets.tvm.kernels.tile import Spot, Tile, finish, tiles
from edgevit.targets.tvm.machine import Machine

__all__ = ["Conv", "Window", "pack_conv", "pack_conv_integers"]


@dataclass(frozen=True)
class Window:
    """What one output pixel reads of padded images, and how pixels are found.

    Attributes:
        batch: Images.
        output: Output rows and columns.
        kernel: Window's rows and columns.
        strides: Input pixels between neighboring windows.
        dilations: Input pixels between neighboring taps.
        batch_stride: Elements from one image to the next.
        row_stride: Elements from one input row to the next.
        pixel_stride: Elements from one input pixel to the next: all channels or more.
    """

    batch: int
    output: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    batch_stride: int
    row_stride: int
    pixel_stride: int

    @property
    def pixels(self) -> int:
        """Output pixels of all images."""
        return self.batch * self.output[0] * self.output[1]

    @property
    def taps(self) -> int:
        """Pixels of the window."""
        return self.kernel[0] * self.kernel[1]

    def extent(self, channels: int) -> int:
        """Elements from the first one read to the last."""
        last = self.tap(self.kernel[0] - 1, self.kernel[1] - 1) + channels
        return int(self.corner(self.pixels - 1)) + int(last)

    def corner(self, pixel: Any) -> Any:
        """Where the window of an output pixel starts in the input."""
        high, wide = self.output
        y, x = pixel // wide % high, pixel % wide
        first = y * (self.strides[0] * self.row_stride)
        first = first + x * (self.strides[1] * self.pixel_stride)
        return first + pixel // (high * wide) * self.batch_stride if self.batch > 1 else first

    def tap(self, row: Any, column: Any) -> Any:
        """Where a tap is, from the window's start."""
        down = row * (self.dilations[0] * self.row_stride)
        return down + column * (self.dilations[1] * self.pixel_stride)


def pack_conv(
    weights: np.ndarray[Any, Any], groups: int, columns: Columns
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights [Cout, Cin / groups, KH, KW] as ``Conv`` reads them.

    Panels [groups][Cout / groups / NR][KH][KW][Cin / groups][NR], flat.
    """
    out, channels, high, wide = weights.shape
    split = np.asarray(weights, np.float32).reshape(
        groups, out // groups, channels, high, wide
    )
    flat = split.transpose(0, 3, 4, 2, 1).reshape(groups, -1, out // groups)
    return np.concatenate([columns.pack(g) for g in flat])


def pack_conv_integers(
    weights: np.ndarray[Any, Any],
    groups: int,
    zero: int,
    columns: Columns,
    arithmetic: Arithmetic,
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], np.ndarray[Any, np.dtype[np.int32]]]:
    """The same for int8, channels padded with zeros to a multiple of four.

    Returns:
        Panels [groups][Cout / groups / NR][KH][KW][C / G][NR][G], and the offsets [Cout]
        that undo the input's zero point; padding of the image has its value.
    """
    out, channels, high, wide = weights.shape
    padded = np.zeros((out, -(-channels // QUAD) * QUAD, high, wide), np.int8)
    padded[:, :channels] = weights
    split = padded.reshape(groups, out // groups, -1, high, wide).transpose(0, 3, 4, 2, 1)
    flat = split.reshape(groups, -1, out // groups)
    packs, offsets = zip(
        *(pack_integers(g, zero, columns, arithmetic) for g in flat), strict=True
    )
    return np.concatenate(packs), np.concatenate(offsets)


@dataclass(frozen=True)
class Conv:
    """Output[pixel, channel] = epilogue(sum over the window and input channels).

    Attributes:
        window: Windows and how they lie in the input, which is padded already.
        channels: Input channels of one group.
        groups: Groups of channels.
        columns: Output channels of one group, dealt to tiles.
        output_stride: Elements from one output pixel to the next.
        epilogue: What follows the sums.
        arithmetic: float32, or ``integer(machine)``; ``channels`` is a multiple of four then.
        tile: Rows of a register tile at most; 0: as many as registers allow.
    """

    window: Window
    channels: int
    groups: int
    columns: Columns
    output_stride: int
    epilogue: Epilogue = PLAIN
    arithmetic: Arithmetic = FLOAT32
    tile: int = 0

    @property
    def label(self) -> str:
        """``conv``, ``conv_int8``, ``conv_codes``, ``conv_shift``."""
        return f"conv{self.arithmetic.suffix}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Padded input, packed weights, offsets if integers, the epilogue's reads, output."""
        columns, kind = self.columns, self.arithmetic
        panels = kind.size(columns.vectors, columns.lanes, self.channels * self.window.taps)
        places = (self.window.pixels - 1) * self.output_stride + columns.count * self.groups
        return (
            Operand("input", kind.left, self.window.extent(self.channels * self.groups)),
            Operand("weights", kind.right, self.groups * panels),
            *kind.operands(columns.count * self.groups),
            *self.epilogue.operands(columns.count * self.groups, places),
        )

    def _runs(self) -> tuple[int, int, int]:
        """Rows and columns of taps to loop over, and neighbors that each of them reads."""
        high, wide = self.window.kernel
        if self.groups == 1 and self.window.tap(0, 1) == self.channels:
            return high, 1, wide * self.channels
        return high, wide, self.channels

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Tiles of pixels x panels."""
        columns, window, kind = self.columns, self.window, self.arithmetic
        depth = window.taps * self.channels

        def write(spot: Spot) -> None:
            pixels = spot.rows()
            base = spot.outer * columns.count
            starts = [base + columns.start(spot.panel, v) for v in range(spot.vectors)]
            tile = Tile(len(pixels), spot.vectors, columns.lanes, kind.sums)
            kind.start(tile, buffers[2:], starts)
            first = spot.outer * kind.size(columns.vectors, columns.lanes, depth)
            first = first + spot.panel * kind.size(columns.height, columns.lanes, depth)
            corners = [window.corner(p) + spot.outer * self.channels for p in pixels]
            self._sum(tile, buffers, corners, first)
            places = [p * self.output_stride for p in pixels]
            finish(tile, self.epilogue, buffers[2 + kind.starts :], starts, places)

        multiplies = window.pixels * columns.count * self.groups * depth
        tiles(machine, window.pixels, columns, multiplies, write, self.groups, self.tile)

    def _sum(self, tile: Tile, buffers: Any, corners: list[Any], panel: Any) -> None:
        """Add all taps: one run of neighbors after another."""
        high, wide, run = self._runs()
        taken = self.arithmetic.size(tile.vectors, tile.lanes, run)
        with loop(high) as row, loop(wide) as column:
            tap = self.window.tap(row, column)
            rows = [c + tap for c in corners]
            start = panel + (row * wide + column) * taken
            self.arithmetic.multiply(tile, buffers[0], rows, buffers[1], start, run)
