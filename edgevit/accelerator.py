"""The energy of one layer on the accelerator model that ShiftAddViT's release uses.

An Eyeriss-like array: DRAM, a global buffer, a network to 16 x 12 processing elements with
register files (Chen et al., ISCA 2016). Every axis of the loop nest is cut into
levels; each word that a level reads or writes costs that level's energy. Constants and limits
are those of the release (GATECH-EIC/ShiftAddViT at 5f0edd5, ``pvt/hw_utils.py``); energies per
operation are for 45 nm CMOS (Horowitz, ISSCC 2014; shifts: You et al., arXiv 2406.05981,
table 1). The model's own choices are kept, ``Words`` says which: the release lets multiplied
layers move 32-bit words, shifted ones 10-bit words, and added ones nothing beyond the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = ["PICOJOULES", "Energy", "Layer", "Words", "energy", "product_energy"]

# Picojoules of one operation of so many bits.
PICOJOULES = {
    ("multiply", 32): 3.7,
    ("add", 32): 0.9,
    ("shift", 32): 0.13,
    ("multiply", 8): 0.2,
    ("add", 8): 0.03,
    ("shift", 8): 0.024,
    ("multiply", 16): 0.9,
}
# Picojoules of moving 16 bits: one access of a register file is 3.7.
_DRAM, _BUFFER, _NETWORK, _SUMS, _FILE, _WEIGHTS = 200.0, 22.2, 7.4, 3.7, 3.7, 7.4
# Limits: outputs of an element; below: elements, its inputs, its filter, words of the buffer.
_OUTPUTS, _ELEMENTS, _INPUTS, _FILTER, _GLOBAL = 16, 16 * 12, 12, 192 * 5, 65536


@dataclass(frozen=True)
class Layer:
    """A convolution, or a product whose rows are laid out as an image.

    Attributes:
        channels: Input channels of a group, K of a product.
        outputs: Output channels of a group, N of a product.
        height: Output rows.
        width: Output columns.
        kernel: Rows and columns of the window.
        stride: Input pixels between windows.
        product: Whether it is a product: elements may share a row then.
    """

    channels: int
    outputs: int
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    product: bool = False

    @property
    def operations(self) -> int:
        """Multiplications, or what stands for them."""
        pixels = self.height * self.width * self.outputs
        return pixels * self.channels * self.kernel**2


@dataclass(frozen=True)
class Words:
    """What is computed, and how much is moved.

    Attributes:
        picojoules: Of what stands for one multiplication.
        moved: Bits of a word of activations or sums.
        weights: Bits of a word of weights.
        local: Whether only register files and sums between elements cost anything: the
            release says so of additions.
    """

    picojoules: float
    moved: int
    weights: int
    local: bool = False


@dataclass(frozen=True)
class Energy:
    """Microjoules.

    Attributes:
        arithmetic: Of the operations.
        traffic: Of every word moved, on and off the chip.
    """

    arithmetic: float
    traffic: float

    @property
    def total(self) -> float:
        """Both."""
        return self.arithmetic + self.traffic

    def __add__(self, other: Energy) -> Energy:
        return Energy(self.arithmetic + other.arithmetic, self.traffic + other.traffic)


def _cuts(size: int, levels: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a size as a product of so many factors, in order."""
    if levels == 1:
        yield (size,)
        return
    for first in range(1, size + 1):
        if size % first == 0:
            for rest in _cuts(size // first, levels - 1):
                yield (first, *rest)


@cache
def _tilings(layer: Layer) -> dict[str, Any]:
    """Every allowed tiling, an array an axis and level (3 is DRAM, 0 the register file)."""
    outputs = [c for c in _cuts(layer.outputs, 4) if c[0] <= _OUTPUTS]
    channels = list(_cuts(layer.channels, 3))
    free = layer.product or layer.height == layer.width == 1
    rows = [c for c in _cuts(layer.height, 2) if free or c[0] > 1]
    picked = np.array([(*m, *c, *e) for m in outputs for c in channels for e in rows])
    names = ("m0", "m1", "m2", "m3", "c0", "c1", "c2", "e1", "e3")
    t = dict(zip(names, picked.reshape(-1, len(names)).T, strict=True))
    k, f = layer.kernel, layer.width
    high, wide = (t["e1"] - 1) * layer.stride + k, (f - 1) * layer.stride + k
    stored = t["c1"] * t["c0"] * high * wide + t["m2"] * t["m1"] * t["m0"] * t["e1"] * f
    fits = (
        (t["m1"] * t["c1"] * t["e1"] * k < _ELEMENTS)
        & (t["c0"] * k < _INPUTS)
        & (t["m0"] * t["c0"] * k < _FILTER)
        & (stored < _GLOBAL)
    )
    return {name: values[fits] for name, values in t.items()}


def _traffic(layer: Layer, t: dict[str, Any], words: Words) -> Any:
    """Picojoules of traffic of every tiling."""
    k, e, f = layer.kernel, layer.height, layer.width
    height, width = (e - 1) * layer.stride + k, (f - 1) * layer.stride + k
    inputs = height * width * layer.channels
    filters = k * k * layer.channels * layer.outputs
    outputs = e * f * layer.outputs
    spread = t["m3"] * t["m2"] * t["m1"] * (k * e / height) * inputs
    sums = np.maximum(t["c2"] * (t["c1"] * k - 1), 1) * outputs
    deep = t["c2"] * t["c1"] * k * (t["c0"] * k - 1) * 2
    own = spread * t["m0"] * (k * f / width) + np.maximum(deep, 1) * outputs
    moved, read = sums * _SUMS + own * _FILE, t["e3"] * t["e1"] * f * filters * _WEIGHTS
    if not words.local:
        buffer = t["m3"] * t["m2"] * inputs + np.maximum(2 * (t["c2"] - 1), 1) * outputs
        moved = moved + (t["m3"] * inputs + outputs) * _DRAM + buffer * _BUFFER
        moved = moved + spread * _NETWORK
        read = read + t["e3"] * filters * _DRAM + t["e3"] * t["e1"] * filters * _NETWORK
    return moved * (words.moved / 16) + read * (words.weights / 16)


@cache
def energy(layer: Layer, words: Words) -> Energy:
    """Of the tiling that is best in energy and latency together, as the release chooses.

    Both are taken relative to the worst tiling's; of equal ones the first counts.

    Raises:
        ValueError: No tiling fits the array.
    """
    t = _tilings(layer)
    if not t["m0"].size:
        raise ValueError(f"no tiling of {layer} fits the array")
    arithmetic = layer.operations * words.picojoules
    total = arithmetic + _traffic(layer, t, words)
    steps = t["m3"] * t["m2"] * t["m0"] * t["c2"] * t["c0"] * t["e3"]
    score = (total - total.min()) / total.max() + (steps - steps.min()) / steps.max()
    best = float(total[int(np.argmin(score))])
    return Energy(arithmetic / 1e6, (best - arithmetic) / 1e6)


@cache
def product_energy(rows: int, depth: int, columns: int, words: Words) -> Energy:
    """Of [rows, depth] times [depth, columns], the rows as the cheapest image there is.

    Raises:
        ValueError: No tiling fits the array.
    """
    found = []
    for high, wide in _cuts(rows, 2):
        layer = Layer(depth, columns, high, wide, product=True)
        if _tilings(layer)["m0"].size:
            found.append(energy(layer, words))
    if not found:
        raise ValueError(f"no tiling of {rows} x {depth} x {columns} fits the array")
    return min(found, key=lambda e: e.total)
