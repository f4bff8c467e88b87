"""Layers for the tests, and what they compute by the definition of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.sim4f.program import Optical
from edgevit.sim4f.signs import AMPLITUDE, HOMODYNE
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.planner import as_patches
from edgevit.targets.optical.shared import as_tiles, shared_kernel, tile_of
from edgevit.targets.optical.tiles import channel_tile, fold_tokens, tilings

Array = np.ndarray[Any, Any]
SIGNS = {"homodyne": HOMODYNE, "amplitude": AMPLITUDE}
# Rounding of float32 transforms and sums of at most a thousand terms, relative to max |y|.
FLOAT32 = 5e-6


@dataclass(frozen=True, eq=False)
class Case:
    """A layer with operands, and the exact product."""

    layer: Layer
    x: Array
    kernel: Array
    exact: Array

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"x": self.x.shape, "k": self.kernel.shape}


def window(
    size: int, kernel: int, stride: int = 1, dilation: int = 1, pads: tuple[int, int] = (0, 0)
) -> Window:
    out = (size + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
    return Window(size, kernel, stride, dilation, pads[0], out)


def convolution(x: Array, k: Array, rows: Window, columns: Window) -> Array:
    """Sum over taps, straight from the definition, float64."""
    n, g, _, h, w = x.shape
    y = np.zeros((n, g, k.shape[1], rows.out, columns.out))
    for oy, ox in np.ndindex(rows.out, columns.out):
        for ky, kx in np.ndindex(rows.kernel, columns.kernel):
            iy = oy * rows.stride + ky * rows.dilation - rows.before
            ix = ox * columns.stride + kx * columns.dilation - columns.before
            if 0 <= iy < h and 0 <= ix < w:
                here = x[..., iy, ix].astype(float), k[..., ky, kx].astype(float)
                y[..., oy, ox] += np.einsum("ngi,goi->ngo", *here)
    return y


def case(n: int, g: int, i: int, o: int, rows: Window, columns: Window, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, g, i, rows.size, columns.size)).astype(np.float32)
    k = rng.standard_normal((g, o, i, rows.kernel, columns.kernel)).astype(np.float32)
    layer = Layer("y", "x", x.shape, "k", k.shape, True, n, g, i, o, rows, columns, (), (), ())
    return Case(layer, x, k, convolution(x, k, rows, columns))


def error(found: Array, exact: Array) -> float:
    """Largest error, relative to the largest value."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


# Mapping -> (case, step): each has several masks, frames and tiles.
def mapped(name: str, signs: str = "homodyne") -> tuple[Case, Optical]:
    scheme = SIGNS[signs]
    if name == "channel-tile":
        made = case(1, 1, 5, 7, window(9, 3, pads=(1, 1)), window(8, 3, pads=(1, 1)))
        tiling = next(t for t in tilings(made.layer, (40, 40)) if t.masks(made.layer) > 1)
        return made, channel_tile(made.layer, (40, 40), tiling, scheme)
    if name == "depthwise":
        made = case(1, 6, 1, 2, window(9, 5, pads=(2, 2)), window(8, 3, pads=(1, 1)))
        tiling = tilings(made.layer, (12, 24))[0]
        return made, channel_tile(made.layer, (12, 24), tiling, scheme)
    if name == "strided":
        made = case(2, 1, 3, 5, window(11, 3, 2, 1, (1, 1)), window(10, 3, 2, 2, (1, 2)))
        tiling = next(t for t in tilings(made.layer, (30, 60)) if t.masks(made.layer) > 1)
        return made, channel_tile(made.layer, (30, 60), tiling, scheme)
    if name == "one-shot":
        made = case(1, 1, 12, 40, window(10, 1), window(1, 1))
        folded = fold_tokens(made.layer, 10, 1)
        tiling = next(t for t in tilings(folded, (24, 50)) if t.masks(folded) > 1)
        return made, channel_tile(folded, (24, 50), tiling, scheme, "one-shot")
    if name == "valid-tile":
        made = case(1, 1, 12, 9, window(30, 1), window(1, 1))
        tile = tile_of(12, (16, 20))
        assert tile is not None
        return made, shared_kernel(as_tiles(made.layer, *tile), (16, 20), scheme, "valid-tile")
    if name == "shared-kernel":
        made = case(20, 1, 1, 4, window(7, 3, pads=(1, 1)), window(6, 3, pads=(1, 1)))
        return made, shared_kernel(made.layer, (24, 28), scheme)
    assert name == "patches"
    made = case(1, 1, 3, 8, window(12, 4, 4), window(17, 4, 4))
    folded = fold_tokens(as_patches(made.layer), 12, 1)
    return made, channel_tile(folded, (36, 100), tilings(folded, (36, 100))[0], scheme)


MAPPED = (
    *("channel-tile", "depthwise", "strided", "one-shot", "valid-tile", "shared-kernel"),
    "patches",
)
