"""From what an observer saw to the range that is quantized: min-max, percentile, MSE, entropy.

All work on the histogram of ``edgevit.observers``, so that memory does not grow with samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from edgevit.channel_observer import ChannelStatistics
from edgevit.errors import UsageError
from edgevit.observers import TensorStatistics
from edgevit.quantization import QParams, Range, Scheme, fake, parameters

__all__ = ["METHODS", "Method", "activation_parameters", "channel_parameters", "channel_spans"]

Array = np.ndarray[Any, Any]
Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[str, ...] = get_args(Method)
# Shares of the range that are tried; below a quarter of it nothing was ever chosen at 4 bits.
SHARES = np.linspace(1.0, 0.1, 46)
ROUNDS = 2


def activation_parameters(
    seen: TensorStatistics,
    method: str,
    dtype: str,
    scheme: Scheme,
    bits: int | None = None,
    percentile: float = 99.99,
    through: Callable[[Array], Array] | None = None,
) -> QParams:
    """Choose per-tensor parameters.

    Args:
        seen: Statistics of the value.
        method: One of ``METHODS``.
        dtype: Stored dtype of the codes.
        scheme: ``symmetric`` or ``asymmetric``.
        bits: Fewer than the dtype has.
        percentile: Of ``percentile``: share of elements kept on each side, 50..100.
        through: What alone reads the value, element by element: ``mse`` then measures the
            error behind it, so that codes are not spent where it is flat.

    Raises:
        UsageError: Unknown method.
    """
    if method not in METHODS:
        raise UsageError(f"unknown observer {method!r}", hint="known: " + ", ".join(METHODS))
    span = _range(seen.low, seen.high).with_zero()
    if method == "percentile":
        span = _percentile(seen, percentile).with_zero()
    if method in ("minmax", "percentile") or seen.count == 0:
        return parameters(span, dtype, scheme, bits)
    used = seen.bins > 0
    centers = np.clip(seen.centers()[used], seen.low, seen.high)
    weights = seen.bins[used].astype(np.float64)
    if method == "entropy":
        return _least_divergence(span, centers, weights, dtype, scheme, bits)
    return _least_error(span, centers, weights, dtype, scheme, bits, through)


def channel_parameters(
    seen: ChannelStatistics,
    method: str,
    dtype: str,
    scheme: Scheme,
    bits: int | None = None,
    percentile: float = 99.99,
) -> QParams:
    """Choose parameters of every channel by itself; arguments as above.

    Raises:
        UsageError: Unknown method.
    """
    each = [
        activation_parameters(seen.channel(c), method, dtype, scheme, bits, percentile)
        for c in range(len(seen.count))
    ]
    scale, zero = (np.array([getattr(p, k) for p in each]) for k in ("scale", "zero_point"))
    return QParams(scale, zero, dtype, each[0].low, each[0].high, seen.axis)


def channel_spans(seen: ChannelStatistics, percentile: float) -> Range:
    """The range of every channel without its outliers on each side; zero need not be in it."""
    spans = [_percentile(seen.channel(c), percentile) for c in range(len(seen.count))]
    return Range(np.array([s.low for s in spans]), np.array([s.high for s in spans]))


def _range(low: float, high: float) -> Range:
    return Range(np.asarray(low, np.float64), np.asarray(high, np.float64))


def _percentile(seen: TensorStatistics, percentile: float) -> Range:
    """The range that leaves ``1 - percentile`` of the elements out on each side."""
    total = np.cumsum(seen.bins)
    step = seen.reach * 2 / len(seen.bins)
    out = (1 - percentile / 100) * seen.count
    first = int(np.searchsorted(total, out, side="right"))
    last = int(np.searchsorted(total, seen.count - out, side="left"))
    low, high = -seen.reach + first * step, -seen.reach + (last + 1) * step
    return _range(max(low, seen.low), min(high, seen.high))


def _least_error(
    span: Range,
    x: Array,
    w: Array,
    dtype: str,
    scheme: Scheme,
    bits: int | None,
    through: Callable[[Array], Array] | None,
) -> QParams:
    """The shares of both ends of the range with the least mean square error.

    Coordinate descent over the two ends; one-sided and symmetric ranges have one coordinate.
    """
    exact = x if through is None else through(x)

    def error(low: float, high: float) -> float:
        made = parameters(_range(low, high), dtype, scheme, bits)
        rounded = fake(x, made).astype(np.float64)
        return float(w @ np.square((rounded if through is None else through(rounded)) - exact))

    low, high = float(span.low), float(span.high)
    if scheme == "symmetric":
        peak = max(-low, high)
        share = min(SHARES, key=lambda s: error(-s * peak, s * peak))
        return parameters(_range(-share * peak, share * peak), dtype, scheme, bits)
    a = b = 1.0
    for _ in range(ROUNDS):
        b = min(SHARES, key=lambda s: error(a * low, s * high)) if high > 0 else b
        a = min(SHARES, key=lambda s: error(s * low, b * high)) if low < 0 else a
    return parameters(_range(a * low, b * high), dtype, scheme, bits)


def _least_divergence(
    span: Range, x: Array, w: Array, dtype: str, scheme: Scheme, bits: int | None
) -> QParams:
    """The common share of both ends with the least KL divergence of the clipped histogram.

    As in TensorRT's entropy calibration: the reference distribution keeps what is clipped in
    its last bins; the quantized one spreads the mass of a code evenly over its bins.
    """
    best, chosen = np.inf, parameters(span, dtype, scheme, bits)
    for share in SHARES:
        low, high = share * float(span.low), share * float(span.high)
        made = parameters(_range(low, high), dtype, scheme, bits)
        found = _divergence(x, w, fake(x, made), low, high)
        if found < best:
            best, chosen = found, made
    return chosen


def _divergence(x: Array, w: Array, codes: Array, low: float, high: float) -> float:
    inside = (x >= low) & (x <= high)
    if not inside.any():
        return float(np.inf)
    reference = w[inside].copy()
    reference[0] += w[x < low].sum()
    reference[-1] += w[x > high].sum()
    _, group = np.unique(codes[inside], return_inverse=True)
    mass = np.bincount(group, weights=w[inside])
    size = np.bincount(group)
    spread = (mass / size)[group]
    p, q = reference / reference.sum(), spread / spread.sum()
    return float(np.sum(p * np.log(p / q)))
