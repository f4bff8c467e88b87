"""Mapping ``channel-tile``: many input channels at once, summed by the light before detection.

Input channels stand as tiles on a lattice of pitch P, kernels on the mirrored lattice, so that
every channel's product falls onto the same tile (zero lag), where the fields add up
(Li et al., arXiv 2011.07391). Kernels of further output channels follow in groups, each as
wide as the input lattice: lag ``(G' - G) n + (c - c')`` is zero for ``G' = G, c' = c`` only,
so one input frame gives as many outputs as groups fit. With ``groups * n * P <= plane`` in
each direction, no lag wraps onto a read tile: the largest is ``groups * n - 1``, and the torus
leaves at least one pitch beyond it.

``one-shot``, for linear layers, is the same with tokens as a column and 1 x 1 kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgevit.errors import UnsupportedModelError
from edgevit.sim4f.moves import pad, reshape, slice_, transpose
from edgevit.sim4f.program import Lattice, Operand, Optical, Read
from edgevit.sim4f.signs import Signs
from edgevit.targets.optical.layer import Layer, Window

__all__ = ["Tiling", "channel_tile", "fold_tokens", "tilings", "too_large"]

Plane = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How channels are laid out in one frame.

    Attributes:
        across: Input channels along y and x.
        groups: Output channels along y and x.
        isolated: Leave out the room of partial overlaps between groups too, so that the whole
            linear convolution of each group could be read, not its zero lag only.
    """

    across: tuple[int, int]
    groups: tuple[int, int]
    isolated: bool = False

    def frames(self, layer: Layer) -> int:
        """Frames of the layer, without the sign factor."""
        splits = math.ceil(layer.inputs / math.prod(self.across))
        return layer.batch * layer.groups * splits * self.masks(layer)

    def masks(self, layer: Layer) -> int:
        """Masks of one group and one part of the input channels."""
        return math.ceil(layer.outputs / math.prod(self.groups))


def too_large(layer: str, what: str, need: int, have: int) -> UnsupportedModelError:
    """The error of a layer that does not fit, with the inequality."""
    return UnsupportedModelError(
        f"layer {layer!r} does not fit the plane: expected {what} <= plane, found "
        f"{need} <= {have} px",
        hint="choose a device with larger planes",
    )


def tilings(layer: Layer, plane: Plane, isolated: bool = False) -> list[Tiling]:
    """Every sensible tiling: for each number of channels along y, as many as needed along x.

    Raises:
        UnsupportedModelError: Not even one channel fits.
    """
    room = []
    for axis, window, have in zip("yx", (layer.rows, layer.columns), plane, strict=True):
        if window.reach >= have:
            raise too_large(layer.name, f"kernel along {axis}", window.reach + 1, have)
        if window.pitch > have:
            raise too_large(layer.name, f"tile pitch along {axis}", window.pitch, have)
        room.append(have // window.pitch)
    found = {}
    for down in range(1, min(room[0], layer.inputs) + 1):
        most = min(room[1], math.ceil(layer.inputs / down))
        for across in {
            most,
            math.ceil(layer.inputs / down / math.ceil(layer.inputs / down / most)),
        }:
            groups = _groups(layer, (down, across), plane, isolated)
            if min(groups) >= 1:
                found[down, across] = Tiling((down, across), groups, isolated)
    return list(found.values())


def _groups(
    layer: Layer, across: tuple[int, int], plane: Plane, isolated: bool
) -> tuple[int, int]:
    down, right = (
        have // _stride(n, window, isolated)
        for n, window, have in zip(across, (layer.rows, layer.columns), plane, strict=True)
    )
    right = min(right, layer.outputs)
    if right < 1:
        return down, right
    masks = math.ceil(layer.outputs / max(1, down * right))
    # No more rows of groups than the last mask fills.
    return min(down, math.ceil(math.ceil(layer.outputs / masks) / right)), right


def _stride(across: int, window: Window, isolated: bool) -> int:
    """Pixels from one group of kernels to the next."""
    return (2 * across - 1 if isolated else across) * window.pitch


def fold_tokens(layer: Layer, height: int, width: int) -> Layer:
    """A linear layer, its tokens in pictures of ``height`` x ``width``, dark at the end."""
    batch, groups, inputs = layer.batch, layer.groups, layer.inputs
    spots = layer.rows.size * layer.columns.size
    tokens, size = batch * spots, height * width
    count = math.ceil(tokens / size)
    spare = count * size - tokens
    show = (
        transpose(1, 2, 0, 3, 4),
        reshape(groups, inputs, tokens),
        pad(0, 0, 0, 0, 0, spare),
        reshape(groups, inputs, count, height, width),
        transpose(2, 0, 1, 3, 4),
    )
    outs = layer.outputs
    collect = (
        transpose(1, 2, 0, 3, 4),
        reshape(groups, outs, count * size),
        slice_(0, groups, 0, outs, 0, tokens),
        reshape(groups, outs, batch, layer.rows.size, layer.columns.size),
        transpose(2, 0, 1, 3, 4),
    )
    return replace(
        layer,
        batch=count,
        rows=Window(height),
        columns=Window(width),
        show=(*layer.show, *show),
        collect=(*collect, *layer.collect),
    )


def channel_tile(
    layer: Layer, plane: Plane, tiling: Tiling, signs: Signs, mapping: str = "channel-tile"
) -> Optical:
    """The frames of a layer.

    Args:
        layer: What is computed.
        plane: Rows and columns in pixels.
        tiling: From ``tilings``.
        signs: Exposures of each frame.
        mapping: Name for reports.
    """
    return Optical(
        name=layer.name,
        mapping=mapping,
        source=layer.source,
        kernel=layer.kernel,
        static=layer.static,
        plane=plane,
        displayed=_displayed(layer, tiling),
        masked=_masked(layer, tiling),
        read=_read(layer, tiling),
        # Every mask is written once: inputs change the fastest.
        order="gmsn",
        signs=signs,
        bias=layer.bias,
        macs=layer.macs,
    )


def _split(layer: Layer, tiling: Tiling) -> int:
    return math.ceil(layer.inputs / math.prod(tiling.across))


def _displayed(layer: Layer, tiling: Tiling) -> Operand:
    (down, right), parts = tiling.across, _split(layer, tiling)
    rows, columns = layer.rows, layer.columns
    spare = parts * down * right - layer.inputs
    n, g, h, w = layer.batch, layer.groups, rows.size, columns.size
    moves = (
        pad(0, 0, 0, 0, 0, spare, 0, 0, 0, 0),
        reshape(n, g, parts, down, right, h, w),
        transpose(0, 1, 2, 3, 5, 4, 6),
        reshape(n, g, parts, down * h, right * w),
    )
    return Operand(
        (*layer.show, *moves),
        "ngs",
        Lattice(0, ((down, rows.pitch), (h, 1))),
        Lattice(0, ((right, columns.pitch), (w, 1))),
    )


def _masked(layer: Layer, tiling: Tiling) -> Operand:
    (down, right), parts = tiling.across, _split(layer, tiling)
    (up, side), masks = tiling.groups, tiling.masks(layer)
    ky, kx = layer.rows.kernel, layer.columns.kernel
    spare_in = parts * down * right - layer.inputs
    spare_out = masks * up * side - layer.outputs
    g = layer.groups
    moves = (
        pad(0, 0, 0, spare_out, 0, spare_in, 0, 0, 0, 0),
        reshape(g, masks, up, side, parts, down, right, ky, kx),
        transpose(0, 1, 4, 2, 5, 7, 3, 6, 8),
        reshape(g, masks, parts, up * down * ky, side * right * kx),
    )
    return Operand(
        (*layer.mask, *moves),
        "gms",
        _mask_lattice(layer.rows, down, up, tiling.isolated),
        _mask_lattice(layer.columns, right, side, tiling.isolated),
    )


def _mask_lattice(window: Window, across: int, groups: int, isolated: bool) -> Lattice:
    """Tap ``k`` of channel ``c``, group ``G``: at ``G n P - c P + before - k dilation``."""
    axes = (
        (groups, _stride(across, window, isolated)),
        (across, -window.pitch),
        (window.kernel, -window.dilation),
    )
    return Lattice(window.before, axes)


def _read(layer: Layer, tiling: Tiling) -> Read:
    (down, right), (up, side) = tiling.across, tiling.groups
    masks, rows, columns = tiling.masks(layer), layer.rows, layer.columns
    n, g, h, w = layer.batch, layer.groups, rows.out, columns.out
    outs = masks * up * side
    moves = (
        reshape(n, g, masks, up, h, side, w),
        transpose(0, 1, 2, 3, 5, 4, 6),
        reshape(n, g, outs, h, w),
        slice_(0, n, 0, g, 0, layer.outputs, 0, h, 0, w),
    )
    return Read(
        "ngm",
        Lattice(0, ((up, _stride(down, rows, tiling.isolated)), (h, rows.stride))),
        Lattice(0, ((side, _stride(right, columns, tiling.isolated)), (w, columns.stride))),
        (*moves, *layer.collect),
    )
