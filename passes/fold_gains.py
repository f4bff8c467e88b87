"""What a change of channels is worth to the layers that read them, measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgevit.channel_observer import ChannelObserver
from edgevit.edits import FoldChannels
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.channel_ranges import ChannelRange
from edgevit.passes.facts import Array
from edgevit.passes.fold_channels import Place
from edgevit.passes.layer_rows import Seen, change_rows, gather
from edgevit.pipeline import Context
from edgevit.quantization import Range, fake, parameters
from edgevit.statistics import stream

__all__ = ["gain_db", "look", "with_gains"]

ROWS = 256  # of each layer's input, over all samples
_LIMIT = 200.0  # decibels between something and nothing


def look(
    model: ir.Model,
    found: Sequence[Place],
    context: Context,
    spec: str,
    observers: Mapping[str, ChannelObserver] | None = None,
) -> Seen:
    """Calibration data of everything that reads a changed activation.

    Args:
        model: Canonical model.
        found: Where changes are.
        context: Has the samples.
        spec: Of the pass, for errors.
        observers: See the activations of their names besides.
    """
    samples = context.data(spec)
    readers = list({r.name: r for place in found for r in place.site.readers}.values())
    wanted = list(dict.fromkeys(str(r.x.name) for r in readers))
    values = _observed(stream(model, samples=samples, values=wanted), observers or {})
    return gather(readers, values, ROWS, len(samples), context.seed)


def _observed(
    values: Iterable[Mapping[str, Array]], observers: Mapping[str, ChannelObserver]
) -> Iterator[Mapping[str, Array]]:
    for found in values:
        for name, observer in observers.items():
            observer.update(found[name])
        yield found


def with_gains(fold: FoldChannels, place: Place, seen: Seen, bits: int) -> FoldChannels:
    """The same change, with its gain in every layer that reads the activation.

    Args:
        fold: The change.
        place: Where.
        seen: Calibration data of the readers.
        bits: Width of the codes that the activation would get.
    """
    readers = place.site.readers
    gains = tuple(
        gain_db(r, seen.rows[r.name], seen.ranges[str(r.x.name)], fold, bits) for r in readers
    )
    return replace(fold, readers=tuple(r.name for r in readers), gains_db=gains)


def gain_db(
    layer: ChannelLayer, rows: Array, seen: ChannelRange, fold: FoldChannels, bits: int
) -> float:
    """Noise at a layer's output without the change over the noise with it, in decibels.

    The input gets one scale and zero point from its range (zero included), before and after
    the change; the weights stay float, so that only what the change is about is compared.

    Args:
        layer: The layer, before the change.
        rows: What is under its filters, float32 ``[g, R, i]``.
        seen: Range of the channels of its input.
        fold: The change.
        bits: Width of the codes.
    """
    before = _noise(rows, layer.matrix(), seen.low, seen.high, bits)
    moved = change_rows(rows, layer, fold.scale, fold.offset)
    weights = replace(layer, weight=layer.scale_inputs(fold.scale)).matrix()
    low, high = ((end - fold.offset) / fold.scale for end in (seen.low, seen.high))
    after = _noise(moved, weights, low, high, bits)
    if min(before, after) <= 0:
        return float(np.sign(before - after)) * _LIMIT
    return round(float(np.clip(10 * np.log10(before / after), -_LIMIT, _LIMIT)), 2)


def _noise(rows: Array, weights: Array, low: Array, high: Array, bits: int) -> float:
    """Sum of squared errors of the outputs if the input is quantized."""
    span = Range(np.asarray(low.min()), np.asarray(high.max())).with_zero()
    off = fake(rows, parameters(span, "uint8", "asymmetric", bits)) - rows
    return float(np.square(off @ weights.astype(np.float32).swapaxes(1, 2)).sum())
