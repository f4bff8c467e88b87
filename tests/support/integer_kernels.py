"""Integer arithmetic as the engines specify it, in numpy: an oracle without any lowering.

Sources: TensorFlow Lite's 8-bit quantization specification and gemmlowp's fixed-point
multiplication (doubling high product, then a rounding shift) for the built-in kernels; the
ONNX operator specification (QLinearConv, QLinearMatMul, QuantizeLinear) for ONNX Runtime.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = [
    "convolve",
    "fixed_point",
    "onnx_requantize",
    "requantize",
    "requantize_once",
    "requantize_wide",
]

Array = np.ndarray[Any, Any]
_HALF = 1 << 30


def fixed_point(factor: float) -> tuple[int, int]:
    """A positive factor as ``m 2^(shift - 31)`` with ``m`` in [2^30, 2^31)."""
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (multiplier, shift) if shift >= -31 else (0, 0)


def _high_product(a: Array, b: int) -> Array:
    """round(a b / 2^31) as gemmlowp does: halves away from zero, by a truncating division."""
    product = a.astype(np.int64) * b
    nudged = product + np.where(product >= 0, _HALF, 1 - _HALF)
    return np.asarray(np.sign(nudged) * (np.abs(nudged) >> 31), np.int64)


def _shifted(x: Array, shift: int) -> Array:
    """Divide by 2^shift, halves away from zero."""
    remainder = x & ((1 << shift) - 1)
    threshold = ((1 << shift) - 1 >> 1) + (x < 0)
    return np.asarray((x >> shift) + (remainder > threshold), np.int64)


def _by_channel(total: Array, factors: Array, one: Any) -> Array:
    """Apply a requantization to each channel (the last axis)."""
    wide = np.broadcast_to(factors, total.shape[-1:])
    columns = [one(total[..., c], float(f)) for c, f in enumerate(wide)]
    return np.stack(columns, axis=-1)


def requantize(total: Array, factors: Array) -> Array:
    """Reference kernels: two roundings. ``total`` int64 within int32, channels last."""

    def one(x: Array, factor: float) -> Array:
        multiplier, shift = fixed_point(factor)
        raised = x.astype(np.int64) << max(shift, 0)
        return _shifted(_high_product(raised, multiplier), max(-shift, 0))

    return _by_channel(total, factors, one)


def requantize_once(total: Array, factors: Array) -> Array:
    """Kernels that round once: add half of the whole shift, then shift."""

    def one(x: Array, factor: float) -> Array:
        multiplier, shift = fixed_point(factor)
        whole = 31 - shift
        return np.asarray((x.astype(np.int64) * multiplier + (1 << whole - 1)) >> whole)

    return _by_channel(total, factors, one)


def requantize_wide(total: Array, factors: Array) -> Array:
    """int16 activations: 64-bit sums times a multiplier of 16 bits."""

    def one(x: Array, factor: float) -> Array:
        multiplier, shift = fixed_point(factor)
        top = multiplier < 0x7FFF0000
        narrow = (multiplier + (1 << 15)) >> 16 if top else 0x7FFF
        whole = 15 - shift
        return np.asarray((x.astype(np.int64) * narrow + (1 << whole - 1)) >> whole)

    return _by_channel(total, factors, one)


def onnx_requantize(total: Array, factors: Array) -> Array:
    """ONNX Runtime: the sum as float32 times a float32 factor, halves to even."""
    return np.rint(total.astype(np.float32) * factors.astype(np.float32)).astype(np.int64)


def convolve(
    x: Array, w: Array, strides: tuple[int, int], pads: tuple[int, int, int, int], groups: int
) -> Array:
    """Exact sums of a convolution.

    Args:
        x: ``[N, H, W, C]``, zero point taken off, so that padding is 0.
        w: ``[O, kh, kw, C / groups]``.
        strides: Height, width.
        pads: Top, left, bottom, right.
        groups: Groups of channels.

    Returns:
        int64 ``[N, H', W', O]``.
    """
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    o, kh, kw, inner = w.shape
    rows = (padded.shape[1] - kh) // strides[0] + 1
    columns = (padded.shape[2] - kw) // strides[1] + 1
    out = np.zeros((x.shape[0], rows, columns, o), np.int64)
    for channel in range(o):
        first = channel // (o // groups) * inner
        for i in range(kh):
            for j in range(kw):
                window = padded[
                    :,
                    i : i + rows * strides[0] : strides[0],
                    j : j + columns * strides[1] : strides[1],
                    first : first + inner,
                ]
                out[..., channel] += window[:, :rows, :columns] @ w[channel, i, j].astype(
                    np.int64
                )
    return out
