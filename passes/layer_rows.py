"""What a plan looks at: rows of every layer's input, and the range of every channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.channel_ranges import ChannelRange, channel_ranges
from edgevit.passes.facts import Array
from edgevit.passes.second_moments import filter_inputs, positions

# Numbers of a layer's rows that a search goes over again and again: what it costs.
ELEMENTS = 150_000

__all__ = ["Seen", "change_rows", "gather"]


@dataclass(frozen=True, eq=False)
class Seen:
    """Calibration data of a model's layers.

    Attributes:
        rows: Layer name -> ``[g, R, i]``: what is under its filters.
        ranges: Value name -> range of its channels, for everything that layers read.
    """

    rows: Mapping[str, Array]
    ranges: Mapping[str, ChannelRange]


def gather(
    layers: Sequence[ChannelLayer],
    found: Iterable[Mapping[str, Array]],
    rows: int,
    samples: int,
    seed: int,
) -> Seen:
    """Collect rows and ranges over a stream.

    Args:
        layers: Layers with constant weights.
        found: For each sample the arrays of what the layers read.
        rows: Rows of each layer over all samples; fewer where rows are long.
        samples: Number of samples to expect.
        seed: Of the choice of rows.

    Raises:
        InputError: No samples, or activations that are not finite.
    """
    parts: dict[str, list[Array]] = {layer.name: [] for layer in layers}

    def watched() -> Iterable[Mapping[str, Array]]:
        for count, values in enumerate(found):
            rng = np.random.default_rng([seed, count])
            for layer in layers:
                limit = min(rows, ELEMENTS // layer.matrix()[:, 0].size)
                at = positions(layer, max(1, limit // max(samples, 1)), rng)
                parts[layer.name].append(filter_inputs(values[str(layer.x.name)], layer, at))
            yield values

    axes = {str(layer.x.name): layer.in_axis for layer in layers}
    ranges = channel_ranges(watched(), axes)
    return Seen({n: np.concatenate(p, axis=1) for n, p in parts.items()}, ranges)


def change_rows(rows: Array, layer: ChannelLayer, scale: Array, offset: Array) -> Array:
    """Rows after a change of the input's channels: ``(x - offset) / scale``.

    A layer that pads has no offsets, so that zeros stay zeros.
    """
    group, _, inputs = rows.shape
    taps = inputs // (len(scale) // group)
    spread = (np.repeat(a.reshape(group, -1), taps, axis=1)[:, None] for a in (offset, scale))
    shift, step = spread
    return np.asarray((rows - shift) / step, np.float32)
