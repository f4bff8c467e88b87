"""Linear layers, products of two activations and convolutions as tiles of products."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgevit.targets.tvm.gpu.body import kept
from edgevit.targets.tvm.gpu.device import Gpu
from edgevit.targets.tvm.gpu.product import Product, tiling
from edgevit.targets.tvm.kernels.batched import Batched, Matrices, offset
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.conv import Conv
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import store

__all__ = ["BatchedTiles", "ConvTiles", "GemmTiles"]


def _packed(columns: Columns, depth: int, k: Any, column: Any) -> Any:
    """Where an element of packed weights is; columns that two panels have are in both."""
    width = columns.lanes
    return column // width * (width * depth) + k * width + column % width


def _padded(columns: Columns) -> int:
    """Columns with those that the last panel repeats: whole panels."""
    return columns.vectors * columns.lanes


def _actual(columns: Columns, column: Any) -> Any:
    """The output column of a padded one: those of the last panel lie further left."""
    lanes = columns.lanes
    return columns.start(column // lanes, 0) + column % lanes


def _finish(
    epilogue: Epilogue, buffers: Sequence[Any], value: Any, column: Any, place: Any
) -> None:
    made = epilogue.apply(value, buffers, column, place, 1)
    store(buffers[-1], place, made, 1)


class _Tiles(ABC):
    """A kernel whose blocks are tiles of a product."""

    @property
    @abstractmethod
    def _product(self) -> Product:
        """The product that the kernel is."""

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self._product.blocks

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self._product.threads


@dataclass(frozen=True)
class GemmTiles(_Tiles):
    """A linear layer."""

    kernel: Gemm
    gpu: Gpu

    @property
    def _product(self) -> Product:
        one = self.kernel
        columns = _padded(one.columns)
        return Product(
            1, one.rows, columns, one.depth, tiling(one.rows, columns, 1, self.gpu.units)
        )

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Rows times packed panels."""
        one = self.kernel
        a, b, *rest = buffers

        def put(value: Any, row: Any, column: Any) -> None:
            column = kept(_actual(one.columns, column), "int32")
            place = row * one.output_stride + column
            _finish(one.epilogue, rest, value, column, place)

        self._product.write(
            block,
            thread,
            lambda row, k: a[row * one.row_stride + k],
            lambda k, column: b[_packed(one.columns, one.depth, k, column)],
            put,
        )


@dataclass(frozen=True)
class ConvTiles(_Tiles):
    """A convolution: rows are output pixels, steps along K taps and channels."""

    kernel: Conv
    gpu: Gpu

    @property
    def _product(self) -> Product:
        one = self.kernel
        pixels, columns = one.window.pixels, _padded(one.columns)
        depth = one.window.taps * one.channels
        tile = tiling(pixels, columns, one.groups, self.gpu.units)
        return Product(one.groups, pixels, columns, depth, tile)

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Windows times packed panels, a group of channels after the other."""
        one, product = self.kernel, self._product
        x, weights, *rest = buffers
        group, _, _ = product.place(block)
        window, wide = one.window, one.window.kernel[1]
        panel = _padded(one.columns) * product.depth

        def pixel(row: Any, k: Any) -> Any:
            tap, channel = k // one.channels, k % one.channels
            at = window.corner(row) + window.tap(tap // wide, tap % wide)
            return x[at + group * one.channels + channel]

        def put(value: Any, row: Any, column: Any) -> None:
            column = _actual(one.columns, column) + group * one.columns.count
            column = kept(column, "int32")
            _finish(one.epilogue, rest, value, column, row * one.output_stride + column)

        self._product.write(
            block,
            thread,
            pixel,
            lambda k, c: weights[group * panel + _packed(one.columns, product.depth, k, c)],
            put,
        )


@dataclass(frozen=True)
class BatchedTiles(_Tiles):
    """Products of matrices that are both computed at run time; the scratch is not used."""

    kernel: Batched
    gpu: Gpu

    @property
    def _product(self) -> Product:
        one = self.kernel
        outer = math.prod(one.batch)
        tile = tiling(one.rows, one.columns, outer, self.gpu.units)
        along = one.b.column != 1
        return Product(outer, one.rows, one.columns, one.depth, tile, along)

    def write(self, buffers: Sequence[Any], block: Any, thread: Any) -> None:
        """Strided matrices, read where they lie."""
        one = self.kernel
        a, b = buffers[:2]
        rest = buffers[len(buffers) - len(one.epilogue.operands(0, 0)) :]
        which, _, _ = self._product.place(block)

        def at(lies: Matrices, row: Any, column: Any) -> Any:
            first = offset(which, one.batch, lies.batch)
            return first + row * lies.row + column * lies.column

        def put(value: Any, row: Any, column: Any) -> None:
            _finish(one.epilogue, rest, value, column, at(one.c, row, column))

        self._product.write(
            block,
            thread,
            lambda row, k: a[at(one.a, row, k)],
            lambda k, column: b[at(one.b, k, column)],
            put,
        )
