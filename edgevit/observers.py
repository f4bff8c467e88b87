"""Streaming observers of tensors: constant memory, mergeable, exact in what they keep.

A histogram over ``[-2^k, 2^k)`` widens by doubling its reach, which merges neighboring bins
exactly; zero is always a bin border. Minimum, maximum, mean and second moment are kept beside
it, per tensor and per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import InputError

__all__ = ["HALF", "Observer", "TensorStatistics"]

Array = np.ndarray[Any, Any]
# Bins on each side of zero: 32 to 16 of them for a step of 8 bits.
HALF = 4096


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What was seen of one value.

    Attributes:
        samples: Number of arrays.
        count: Number of finite elements.
        broken: Number of elements that were NaN or infinite; they count nowhere else.
        low: Smallest element; 0 if there was none.
        high: Largest element.
        reach: The histogram covers ``[-reach, reach)``, a power of two.
        bins: Counts, ``[2 * HALF]``; of a single channel there are fewer.
        channel_low: ``[C]`` or ``[0]`` if no channel axis was asked for.
        channel_high: As above.
        channel_sum: Sum of elements of each channel, float64.
        channel_square: Sum of squares.
    """

    samples: int
    count: int
    broken: int
    low: float
    high: float
    reach: float
    bins: Array
    channel_low: Array
    channel_high: Array
    channel_sum: Array
    channel_square: Array

    @property
    def constant(self) -> bool:
        """Whether every element was equal."""
        return self.low == self.high

    def centers(self) -> Array:
        """The middle of each bin, float64."""
        half = len(self.bins) // 2
        return (np.arange(-half, half) + 0.5) * (self.reach / half)


class Observer:
    """Collects ``TensorStatistics``.

    Args:
        axis: Channel axis; ``None`` for none.
    """

    def __init__(self, axis: int | None = None) -> None:
        self._axis = axis
        self._samples = self._count = self._broken = 0
        self._low, self._high = np.inf, -np.inf
        self._reach = 0.0
        self._bins = np.zeros(2 * HALF, np.int64)
        self._channels: tuple[Array, Array, Array, Array] | None = None

    def update(self, array: Array) -> None:
        """See one more array, of any shape and batch."""
        x = np.asarray(array, np.float32)
        self._samples += 1
        if not x.size:
            return
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            x = self._without_broken(x)
            finite = x[np.isfinite(x)]
            if not finite.size:
                return
            low, high = float(finite.min()), float(finite.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen(max(-low, high))
        self._fill(x)
        if self._axis is not None:
            self._see_channels(np.moveaxis(x, self._axis, -1).reshape(-1, x.shape[self._axis]))

    def _without_broken(self, x: Array) -> Array:
        """NaN where an element is not finite."""
        finite = np.isfinite(x)
        self._broken += int(x.size - np.count_nonzero(finite))
        return np.where(finite, x, np.float32(np.nan))

    def _widen(self, peak: float) -> None:
        """Double the reach until it exceeds ``peak``."""
        needed = 2.0 ** np.ceil(np.log2(max(peak, 1e-30)))
        needed = needed * 2 if needed <= peak else needed
        if self._reach == 0.0:
            self._reach = needed
        while self._reach < needed:
            self._bins = _halved(self._bins)
            self._reach *= 2

    def _fill(self, x: Array) -> None:
        flat = x.reshape(-1)
        if self._broken:
            flat = flat[np.isfinite(flat)]
        self._count += flat.size
        # Truncation of a non-negative number is its floor.
        index = (flat * np.float32(HALF / self._reach) + np.float32(HALF)).astype(np.int32)
        found = np.bincount(np.clip(index, 0, 2 * HALF - 1), minlength=2 * HALF)
        self._bins = self._bins + found

    def _see_channels(self, rows: Array) -> None:
        low, high = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
        known = np.nan_to_num(rows, nan=0.0) if self._broken else rows
        total = known.sum(axis=0, dtype=np.float64)
        square = np.einsum("ij,ij->j", known, known, dtype=np.float64)
        seen: tuple[Array, Array, Array, Array] = (low, high, total, square)
        self._channels = seen if self._channels is None else _joined(self._channels, seen)

    def merge(self, other: Observer) -> None:
        """Take in what another observer of the same value has seen.

        Raises:
            InputError: The channels differ.
        """
        mine, theirs = self._channels, other._channels
        if mine is not None and theirs is not None and len(mine[0]) != len(theirs[0]):
            raise InputError(
                f"statistics of {len(mine[0])} and {len(theirs[0])} channels cannot be merged"
            )
        bins, reach = other._bins, other._reach
        if reach and self._reach:
            self._widen_to(reach)
        while reach and reach < self._reach:
            bins, reach = _halved(bins), reach * 2
        self._bins, self._reach = self._bins + bins, max(self._reach, reach)
        self._samples += other._samples
        self._count += other._count
        self._broken += other._broken
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)
        if theirs is not None:
            self._channels = theirs if mine is None else _joined(mine, theirs)

    def _widen_to(self, reach: float) -> None:
        while self._reach < reach:
            self._bins, self._reach = _halved(self._bins), self._reach * 2

    def result(self) -> TensorStatistics:
        """What was seen so far."""
        empty = np.zeros(0)
        low, high, total, square = self._channels or (empty, empty, empty, empty)
        seen = self._count > 0
        return TensorStatistics(
            self._samples,
            self._count,
            self._broken,
            self._low if seen else 0.0,
            self._high if seen else 0.0,
            self._reach or 1.0,
            self._bins.copy(),
            low,
            high,
            total,
            square,
        )


def _halved(bins: Array) -> Array:
    """Counts over twice the reach: pairs of neighbors merge around zero."""
    wide = np.zeros_like(bins)
    quarter = HALF // 2
    wide[quarter : quarter + HALF] = bins.reshape(-1, 2).sum(axis=1)
    return wide


def _joined(
    a: tuple[Array, Array, Array, Array], b: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    return np.fmin(a[0], b[0]), np.fmax(a[1], b[1]), a[2] + b[2], a[3] + b[3]
