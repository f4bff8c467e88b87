"""Mapping ``shared-kernel``: many pictures side by side, one kernel for all of them.

A shift-invariant system convolves every tile of its input plane with the same kernel. Tiles
of pitch P (see ``Window.pitch``) do not see each other. For pictures as large as the kernel
and valid padding this is ``valid-tile``: each tile gives one inner product, without any guard,
and a linear layer takes one frame for each output feature and plane full of tokens
(ConvShareViT, arXiv 2504.11517, read as an exact identity).
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgevit.sim4f.moves import Move, pad, reshape, slice_, transpose
from edgevit.sim4f.program import Lattice, Operand, Optical, Read
from edgevit.sim4f.signs import Signs
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.tiles import too_large

__all__ = ["as_tiles", "shared_frames", "shared_kernel", "tile_of"]

Plane = tuple[int, int]


def tile_of(features: int, plane: Plane) -> tuple[int, int] | None:
    """Height and width of a token's tile: most tiles on the plane, of those the squarest."""
    best: tuple[int, int, int, int] | None = None
    for height in range(1, min(features, plane[0]) + 1):
        width = math.ceil(features / height)
        if width > plane[1]:
            continue
        tiles = (plane[0] // height) * (plane[1] // width)
        if best is None or (tiles, -max(height, width)) > best[:2]:
            best = (tiles, -max(height, width), height, width)
    return None if best is None else best[2:]


def as_tiles(layer: Layer, height: int, width: int) -> Layer:
    """A linear layer as valid convolutions of token tiles with kernels as large."""
    n, g, d = layer.batch, layer.groups, layer.inputs
    spots = layer.rows.size * layer.columns.size
    spare = height * width - d
    show = (
        pad(0, 0, 0, 0, 0, spare, 0, 0, 0, 0),
        reshape(n, g, height, width, spots),
        transpose(0, 4, 1, 2, 3),
        reshape(n * spots, g, 1, height, width),
    )
    mask = (
        pad(0, 0, 0, 0, 0, spare, 0, 0, 0, 0),
        reshape(g, layer.outputs, 1, height, width),
    )
    collect = (
        reshape(n, spots, g, layer.outputs),
        transpose(0, 2, 3, 1),
        reshape(n, g, layer.outputs, layer.rows.size, layer.columns.size),
    )
    return replace(
        layer,
        batch=n * spots,
        inputs=1,
        rows=Window(height, height, 1, 1, 0, 1),
        columns=Window(width, width, 1, 1, 0, 1),
        show=(*layer.show, *show),
        mask=(*layer.mask, *mask),
        collect=(*collect, *layer.collect),
    )


def _middle(window: Window) -> int:
    """By how much kernel and read-out move together, so that taps stand around the origin.

    A displaced mask weakens taps by their distance from it.
    """
    return (window.kernel - 1) * window.dilation // 2 - window.before


def _tiles(layer: Layer, plane: Plane) -> tuple[int, int]:
    for axis, window, have in zip("yx", (layer.rows, layer.columns), plane, strict=True):
        if window.pitch > have:
            raise too_large(layer.name, f"tile pitch along {axis}", window.pitch, have)
    down, right = plane[0] // layer.rows.pitch, plane[1] // layer.columns.pitch
    right = min(right, layer.batch)
    return min(down, math.ceil(layer.batch / right)), right


def shared_frames(layer: Layer, plane: Plane) -> int:
    """Frames of the layer, without the sign factor.

    Raises:
        UnsupportedModelError: Not even one tile fits.
    """
    chunks = math.ceil(layer.batch / math.prod(_tiles(layer, plane)))
    return chunks * layer.groups * layer.inputs * layer.outputs


def shared_kernel(
    layer: Layer, plane: Plane, signs: Signs, mapping: str = "shared-kernel"
) -> Optical:
    """The frames of a layer; the pictures of its batch share a frame.

    Args:
        layer: What is computed; of several input channels each has frames of its own.
        plane: Rows and columns in pixels.
        signs: Exposures of each frame.
        mapping: Name for reports.

    Raises:
        UnsupportedModelError: Not even one tile fits.
    """
    down, right = _tiles(layer, plane)
    rows, columns = layer.rows, layer.columns
    chunks = math.ceil(layer.batch / (down * right))
    show, collect = _moves(layer, chunks, down, right)
    return Optical(
        name=layer.name,
        mapping=mapping,
        source=layer.source,
        kernel=layer.kernel,
        static=layer.static,
        plane=plane,
        displayed=Operand(
            (*layer.show, *show),
            "ngs",
            Lattice(0, ((down, rows.pitch), (rows.size, 1))),
            Lattice(0, ((right, columns.pitch), (columns.size, 1))),
        ),
        masked=Operand(
            layer.mask,
            "gms",
            Lattice(rows.before + _middle(rows), ((rows.kernel, -rows.dilation),)),
            Lattice(columns.before + _middle(columns), ((columns.kernel, -columns.dilation),)),
        ),
        read=Read(
            "ngm",
            Lattice(_middle(rows), ((down, rows.pitch), (rows.out, rows.stride))),
            Lattice(_middle(columns), ((right, columns.pitch), (columns.out, columns.stride))),
            (*collect, *layer.collect),
        ),
        order="gmsn",
        signs=signs,
        bias=layer.bias,
        macs=layer.macs,
    )


def _moves(
    layer: Layer, chunks: int, down: int, right: int
) -> tuple[tuple[Move, ...], tuple[Move, ...]]:
    """Pictures to chunks of ``down`` x ``right`` tiles, and what is read of them back."""
    rows, columns = layer.rows, layer.columns
    g, i, o = layer.groups, layer.inputs, layer.outputs
    spare = chunks * down * right - layer.batch
    show = (
        pad(0, spare, 0, 0, 0, 0, 0, 0, 0, 0),
        reshape(chunks, down, right, g, i, rows.size, columns.size),
        transpose(0, 3, 4, 1, 5, 2, 6),
        reshape(chunks, g, i, down * rows.size, right * columns.size),
    )
    collect = (
        reshape(chunks, g, o, down, rows.out, right, columns.out),
        transpose(0, 3, 5, 1, 2, 4, 6),
        reshape(chunks * down * right, g, o, rows.out, columns.out),
        slice_(0, layer.batch, 0, g, 0, o, 0, rows.out, 0, columns.out),
    )
    return show, collect
