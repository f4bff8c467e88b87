"""Range and magnitude of every channel of activations, over calibration samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgevit.errors import InputError
from edgevit.passes.facts import Array

__all__ = ["ChannelRange", "channel_ranges"]


@dataclass(frozen=True)
class ChannelRange:
    """What was seen of an activation, channel by channel.

    Attributes:
        low: Smallest value, ``[C]``.
        high: Largest value, ``[C]``.
        power: Mean square, ``[C]``.
    """

    low: Array
    high: Array
    power: Array

    @property
    def width(self) -> Array:
        """Extent of every channel, ``[C]``."""
        return self.high - self.low


def channel_ranges(
    stream: Iterable[Mapping[str, Array]], axes: Mapping[str, int]
) -> dict[str, ChannelRange]:
    """Fold a stream of samples into one range for each activation; memory does not grow.

    Args:
        stream: One mapping of value name to array for every sample.
        axes: Value name -> axis of its channels.

    Raises:
        InputError: No samples, or NaN or infinity in an activation.
    """
    found: dict[str, ChannelRange] = {}
    count = 0
    for sample in stream:
        count += 1
        for name, axis in axes.items():
            now = _range(name, sample[name], axis)
            before = found.get(name)
            found[name] = now if before is None else _merged(before, now)
    if not count:
        raise InputError("no calibration samples", hint="give at least one with --calib")
    return {n: ChannelRange(r.low, r.high, r.power / count) for n, r in found.items()}


def _range(name: str, array: Array, axis: int) -> ChannelRange:
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(
            f"activation {name!r} has NaN or infinity on calibration data",
            hint="check the preprocessing and the samples",
        )
    power = np.einsum("nc,nc->c", rows, rows, dtype=np.float64) / len(rows)
    return ChannelRange(low, high, power)


def _merged(a: ChannelRange, b: ChannelRange) -> ChannelRange:
    return ChannelRange(
        np.minimum(a.low, b.low), np.maximum(a.high, b.high), a.power + b.power
    )
