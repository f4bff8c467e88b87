"""Streaming observers of channels: a histogram each, in constant memory.

As ``edgevit.observers`` does for a tensor, each channel's histogram covers ``[-2^k, 2^k)``
with a k of its own and widens by doubling, which merges neighboring bins exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.observers import TensorStatistics

__all__ = ["CHANNEL_HALF", "ChannelObserver", "ChannelStatistics"]

Array = np.ndarray[Any, Any]
# Bins on each side of zero: 1,000 channels take 2 MB.
CHANNEL_HALF = 256


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """What was seen of the channels of one value.

    Attributes:
        samples: Number of arrays.
        axis: Channel axis of the value; non-negative.
        count: Finite elements of each channel, ``[C]``.
        broken: Elements that were NaN or infinite; they count nowhere else.
        low: Smallest element of each channel; 0 if there was none.
        high: Largest.
        reach: The histogram of channel c covers ``[-reach[c], reach[c])``.
        bins: Counts, ``[C, 2 * CHANNEL_HALF]``.
    """

    samples: int
    axis: int
    count: Array
    broken: int
    low: Array
    high: Array
    reach: Array
    bins: Array

    def channel(self, index: int) -> TensorStatistics:
        """One channel as if it were a tensor of its own."""
        none = np.zeros(0)
        return TensorStatistics(
            self.samples, int(self.count[index]), self.broken, float(self.low[index]),
            float(self.high[index]), float(self.reach[index]), self.bins[index],
            none, none, none, none,
        )  # fmt: skip


class ChannelObserver:
    """Collects ``ChannelStatistics``.

    Args:
        axis: Channel axis; non-negative.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._seen: ChannelStatistics | None = None

    def update(self, array: Array) -> None:
        """See one more array, of any batch.

        Raises:
            InputError: It has another number of channels than those before.
        """
        channels = array.shape[self._axis]
        rows = np.moveaxis(np.asarray(array, np.float32), self._axis, 0)
        self._take(_seen(rows.reshape(channels, -1), self._axis))

    def merge(self, other: ChannelObserver) -> None:
        """Take in what another observer of the same value has seen.

        Raises:
            InputError: The channels differ.
        """
        if other._seen is not None:
            self._take(other._seen)

    def _take(self, new: ChannelStatistics) -> None:
        old = self._seen
        if old is None:
            self._seen = new
            return
        if len(old.count) != len(new.count):
            raise InputError(
                f"expected statistics of {len(old.count)} channels, found {len(new.count)}"
            )
        reach = np.maximum(old.reach, new.reach)
        # A channel without elements has 0 for both ends, and must not widen the other's.
        a, b = old.count > 0, new.count > 0
        self._seen = replace(
            old,
            samples=old.samples + new.samples,
            count=old.count + new.count,
            broken=old.broken + new.broken,
            low=np.select([a & b, a], [np.minimum(old.low, new.low), old.low], new.low),
            high=np.select([a & b, a], [np.maximum(old.high, new.high), old.high], new.high),
            reach=reach,
            bins=_widened(old, reach) + _widened(new, reach),
        )  # fmt: skip

    def result(self) -> ChannelStatistics:
        """What was seen so far.

        Raises:
            InputError: Nothing.
        """
        if self._seen is None:
            raise InputError("no calibration samples", hint="give at least one with --calib")
        return self._seen


def _seen(rows: Array, axis: int) -> ChannelStatistics:
    """Statistics of one array, ``[C, N]``."""
    finite = np.isfinite(rows)
    known = np.where(finite, rows, np.float32(0))
    count = finite.sum(axis=1)
    low = np.where(finite, rows, np.inf).min(axis=1, initial=np.inf)
    high = np.where(finite, rows, -np.inf).max(axis=1, initial=-np.inf)
    low, high = (np.where(count > 0, end, 0.0) for end in (low, high))
    peak = np.maximum(np.maximum(-low, high), 1e-30)
    reach = 2.0 ** np.ceil(np.log2(peak))
    reach = np.where(reach <= peak, 2 * reach, reach)
    scaled = known * (CHANNEL_HALF / reach)[:, None] + CHANNEL_HALF
    index = np.clip(scaled.astype(np.int64), 0, 2 * CHANNEL_HALF - 1)
    flat = (index + 2 * CHANNEL_HALF * np.arange(len(rows))[:, None])[finite]
    bins = np.bincount(flat, minlength=2 * CHANNEL_HALF * len(rows))
    return ChannelStatistics(
        1, axis, count, int(rows.size - count.sum()), low, high, reach,
        bins.reshape(len(rows), -1),
    )  # fmt: skip


def _widened(seen: ChannelStatistics, reach: Array) -> Array:
    """Counts over a larger reach: pairs of neighbors merge around zero, channel by channel."""
    bins, now = seen.bins.copy(), seen.reach.copy()
    quarter = CHANNEL_HALF // 2
    while (narrow := np.flatnonzero(now < reach)).size:
        pairs = bins[narrow].reshape(narrow.size, -1, 2).sum(axis=2)
        bins[narrow] = 0
        bins[narrow, quarter : quarter + CHANNEL_HALF] = pairs
        now[narrow] *= 2
    return bins
