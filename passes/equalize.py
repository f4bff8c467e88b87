"""Weights of neighboring layers brought to the same range, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, FoldChannels
from edgevit.errors import UsageError
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.fold_channels import FoldPass, Place, places
from edgevit.pipeline import Context, Refusal

__all__ = ["Equalize", "balance"]

# Scales closer to 1 than this are not worth an edit; it also makes a second run a no-op.
_SETTLED = 0.01


@dataclass(frozen=True)
class Equalize(FoldPass):
    """Scale the channels between two layers so that neither wastes codes on them.

    ``W2 f(W1 x)``  ->  ``(W2 s) f((W1 / s) x)``, ``s_c = sqrt(max|W1_c| / max|W2_c|)``: Nagel,
    van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization
    and Bias Correction" (arXiv 1906.04721), eq. 8 to 11, over and over until it settles.

    1. f is nothing, a layout change, ReLU, a leaky ReLU or a pooling: f(s x) = s f(x).
    2. Everything that reads the channels is a layer.

    Attributes:
        sweeps: Rounds over all pairs at most.
    """

    name: ClassVar[str] = "equalize"
    needs_samples: ClassVar[bool] = False

    sweeps: int = 40

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose all scales together; no data is needed."""
        if self.sweeps < 1:
            raise UsageError(f"{self.name}: sweeps expects at least 1, found {self.sweeps}")
        found = [p for p in places(model, False) if isinstance(p, Place) and p.site.layer]
        scales = balance(found, self.sweeps)
        moved = [p for p in found if _moves(scales[p.layer.name])]
        return tuple(_edit(p, scales[p.layer.name]) for p in moved)

    def refusals(self, model: ir.Model) -> tuple[Refusal, ...]:
        """Pairs of layers with something in between that does not pass scales on."""
        return tuple(
            Refusal(self.name, r.node, r.reason)
            for r in places(model, False)
            if isinstance(r, Refusal)
        )


def _moves(scale: Array) -> bool:
    return bool((np.abs(np.log(scale)) > _SETTLED).any())


def _edit(place: Place, scale: Array) -> FoldChannels:
    widest = float(scale.max() / scale.min())
    detail = f"{len(scale)} channels, scales differ by a factor of {widest:.1f}"
    return FoldChannels(place.layer.name, scale, np.zeros_like(scale), detail=detail)


def balance(found: list[Place], sweeps: int) -> dict[str, Array]:
    """Scales of every site such that both sides have the same peaks, by layer name.

    Peaks follow the scales without touching weights: a layer's output peak of channel c is
    divided by the scale behind it, its input peaks are multiplied by the one in front.
    """
    total = {p.layer.name: np.ones(p.site.channels) for p in found}
    weights: dict[str, Array] = {}
    for place in found:
        for layer in _layers(place):
            weights.setdefault(layer.name, np.abs(layer.weight.astype(np.float64)))
    for _ in range(sweeps):
        moved = [_sweep(p, weights, total) for p in found]
        if not any(moved):
            break
    return total


def _layers(place: Place) -> tuple[ChannelLayer, ...]:
    front = (place.site.layer,) if place.site.layer is not None else ()
    return (*front, *place.site.readers)


def _sweep(place: Place, weights: dict[str, Array], total: Mapping[str, Array]) -> bool:
    """Balance one site in place; whether that moved anything."""
    front = place.site.layer
    if front is None:
        return False
    made = _output_peaks(front, weights[front.name])
    read = np.max([_input_peaks(r, weights[r.name]) for r in place.site.readers], axis=0)
    alive = (made > 0) & (read > 0)
    ratio = np.divide(made, read, out=np.ones_like(made), where=alive)
    scale = np.sqrt(ratio)
    if not _moves(scale):
        return False
    shape = (-1, 1, 1, 1) if front.is_conv else (-1,)
    weights[front.name] = weights[front.name] / scale.reshape(shape)
    for reader in place.site.readers:
        weights[reader.name] = _scaled(reader, weights[reader.name], scale)
    total[place.layer.name][:] *= scale
    return True


def _output_peaks(layer: ChannelLayer, size: Array) -> Array:
    axes = tuple(range(1, size.ndim)) if layer.is_conv else (0,)
    return np.asarray(size.max(axis=axes))


def _input_peaks(layer: ChannelLayer, size: Array) -> Array:
    return _with(layer, size).input_peaks()


def _scaled(layer: ChannelLayer, size: Array, scale: Array) -> Array:
    return _with(layer, size).scale_inputs(scale)


def _with(layer: ChannelLayer, weight: Array) -> ChannelLayer:
    return ChannelLayer(layer.node, layer.add, weight, layer.bias, layer.group)
