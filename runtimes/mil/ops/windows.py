"""Sliding windows: geometry shared by convolutions and pools.

Source: coremltools ``ops/defs/_utils.py`` (``spatial_dimensions_out_shape`` and
``aggregated_pad``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgevit.runtimes.mil.context import integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["Windows"]


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes (2 and up) of ``x``.

    Attributes:
        kernel: Taps along each spatial axis.
        strides: Steps between windows.
        dilations: Steps between taps.
        before: Padding before each axis.
        after: Padding after each axis, as declared.
        out: Number of windows along each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @classmethod
    def over(
        cls,
        size: tuple[int, ...],
        kernel: tuple[int, ...],
        strides: Array | None,
        dilations: Array | None,
        pad_type: str,
        pad: Array | None,
        *,
        ceil: bool = False,
    ) -> Windows:
        """The geometry of MIL's arguments for an input of spatial ``size``.

        ``valid``: no padding. ``custom``: ``pad`` = before, after for each axis. ``same``:
        as many windows as ``ceil(size / stride)``, the odd element after (``same_lower``:
        before). ``ceil``: round the number of windows up, and drop a window that would start
        in the padding.
        """
        rank = len(size)
        steps, spread = integers(strides, [1] * rank), integers(dilations, [1] * rank)
        if not len(kernel) == len(steps) == len(spread) == rank or min(steps + spread) < 1:
            raise ValueError(f"expected {rank} positive strides and dilations")
        extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True))
        before, after = _padding(size, extent, steps, pad_type, pad)
        out = []
        for i in range(rank):
            room = size[i] + before[i] + after[i] - extent[i]
            count = (room + (steps[i] - 1 if ceil else 0)) // steps[i] + 1
            if ceil and before[i] + after[i] and (count - 1) * steps[i] >= size[i] + before[i]:
                count -= 1
            out.append(count)
        if min(out) < 1:
            raise ValueError(f"a window of {extent} does not fit {size} with padding")
        return cls(kernel, steps, spread, before, after, tuple(out))

    def padded(self, x: Array, value: float) -> Array:
        """``x`` with ``value`` around, wide enough for the last window."""
        widths = [(0, 0), (0, 0)]
        for i, size in enumerate(x.shape[2:]):
            reach = (self.out[i] - 1) * self.strides[i]
            need = reach + (self.kernel[i] - 1) * self.dilations[i] + 1
            after = max(self.after[i], need - size - self.before[i])
            widths.append((self.before[i], after))
        if not any(sum(w) for w in widths):
            return x
        return np.pad(x, widths, constant_values=value)

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each tap's index in the kernel, and the slices of the padded input it meets."""
        for tap in np.ndindex(*self.kernel):
            spots = (
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, self.dilations, self.out, self.strides, strict=True)
            )
            yield tap, (slice(None), slice(None), *spots)

    def view(self, padded: Array) -> Array:
        """``[n, c, *out, *kernel]``, a view of the padded input."""
        axes = tuple(range(2, padded.ndim))
        extent = tuple(
            (k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)
        )
        whole = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=axes)
        where = [slice(None), slice(None)]
        where += [
            slice(0, (n - 1) * s + 1, s) for n, s in zip(self.out, self.strides, strict=True)
        ]
        where += [slice(None, None, d) for d in self.dilations]
        return whole[tuple(where)]


def _padding(
    size: tuple[int, ...],
    extent: tuple[int, ...],
    strides: tuple[int, ...],
    pad_type: str,
    pad: Array | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(size)
    if pad_type == "valid":
        return (0,) * rank, (0,) * rank
    if pad_type == "custom":
        flat = integers(pad, [0] * (2 * rank))
        if len(flat) != 2 * rank or min(flat) < 0:
            raise ValueError(f"expected {2 * rank} non-negative paddings, found {list(flat)}")
        return flat[0::2], flat[1::2]
    if pad_type in ("same", "same_lower"):
        sums = [
            max(0, -(-n // s) * s - n + k - s)
            for n, k, s in zip(size, extent, strides, strict=True)
        ]
        less, more = tuple(t // 2 for t in sums), tuple(t - t // 2 for t in sums)
        return (less, more) if pad_type == "same" else (more, less)
    raise ValueError(f"expected valid, custom, same or same_lower, found {pad_type!r}")
