"""Pools.

Source: coremltools ``ops/defs/iOS15/pool.py``.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import total
from edgevit.runtimes.mil.context import Context, Kernel, integers
from edgevit.runtimes.mil.ops.windows import Windows
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]

_MANY_TAPS = 64  # above, one reduction of a view beats a loop over taps


def _geometry(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None,
    pad_type: str,
    pad: Array | None,
    ceil_mode: Array | None,
) -> Windows:
    ceil = ceil_mode is not None and bool(ceil_mode)
    kernel = integers(kernel_sizes, ())
    return Windows.over(x.shape[2:], kernel, strides, None, pad_type, pad, ceil=ceil)


def _sum(windows: Windows, padded: Array, *, half: bool) -> Array:
    """The sum of each window."""
    if half or int(np.prod(windows.kernel)) > _MANY_TAPS:
        view = windows.view(padded)
        axes = range(padded.ndim, view.ndim)
        return total(view, list(axes), keepdims=False, half=half)
    result = np.zeros((*padded.shape[:2], *windows.out), dtype=padded.dtype)
    for _, where in windows.taps():
        result += padded[where]
    return result


def _avg_pool(
    ctx: Context,
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    exclude_padding_from_average: Array | None = None,
    ceil_mode: Array | None = None,
) -> Array:
    """The mean of each window; padding counts as zeros unless it is excluded.

    What ``ceil_mode`` reaches beyond the declared padding never counts.
    """
    windows = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    exclude = exclude_padding_from_average is not None and bool(exclude_padding_from_average)
    inside = np.ones((1, 1, *x.shape[2:]), dtype=np.float32)
    if not exclude:
        widths = zip(windows.before, windows.after, strict=True)
        inside = np.pad(inside, [(0, 0), (0, 0), *widths], constant_values=1.0)
        shifted = Windows(
            windows.kernel,
            windows.strides,
            windows.dilations,
            (0,) * len(windows.kernel),
            (0,) * len(windows.kernel),
            windows.out,
        )
        counts = _sum(shifted, shifted.padded(inside, 0.0), half=False)
    else:
        counts = _sum(windows, windows.padded(inside, 0.0), half=False)
    sums = _sum(windows, windows.padded(x, 0.0), half=ctx.half)
    return np.asarray(sums / np.maximum(counts, 1))


def _max_pool(
    _: Context,
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: Array | None = None,
) -> Array:
    """The largest element of each window; padding never wins."""
    windows = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded = windows.padded(x, -np.inf)
    result = np.full((*x.shape[:2], *windows.out), -np.inf, dtype=x.dtype)
    if int(np.prod(windows.kernel)) > _MANY_TAPS:
        view = windows.view(padded)
        return np.asarray(view.max(axis=tuple(range(x.ndim, view.ndim))))
    for _tap, where in windows.taps():
        np.maximum(result, padded[where], out=result)
    return result


def _l2_pool(
    ctx: Context,
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: Array | None = None,
) -> Array:
    """The square root of the sum of squares of each window."""
    windows = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return np.sqrt(_sum(windows, windows.padded(np.square(x), 0.0), half=ctx.half))


OPERATORS: dict[str, Kernel] = {
    "avg_pool": _avg_pool,
    "l2_pool": _l2_pool,
    "max_pool": _max_pool,
}
