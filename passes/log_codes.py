"""Logarithmic codes for numbers between 0 and 1, as a softmax gives them."""

from __future__ import annotations

import numpy as np

from edgevit.passes.facts import Array

__all__ = ["RATES", "best_rate", "factor", "log_quantized", "table"]

# AdaLog (Wu, Chen, Zhong, Huang and Wang, "AdaLog", arXiv 2407.12951): bases 2^(q/37) for
# whole q; 37 is log2 itself and 18.5 the log-sqrt2 of RepQ-ViT.
_PARTS = 37
RATES = tuple(q / _PARTS for q in range(6, 2 * _PARTS + 1, 2))


def factor(rate: float) -> float:
    """``code = round(factor * log(x))`` with the natural logarithm."""
    return -1.0 / (rate * float(np.log(2.0)))


def table(bits: int, rate: float) -> Array:
    """The number behind every code, float32 ``[2^bits]``; the last is 0."""
    values = 2.0 ** (-rate * np.arange(2**bits))
    values[-1] = 0.0
    return values.astype(np.float32)


def log_quantized(x: Array, bits: int, rate: float) -> Array:
    """What ``ai.edgevit.LogQuantize`` computes, float32."""
    tiny = np.finfo(np.float32).tiny
    codes = np.rint(np.log(np.maximum(x, tiny)) * np.float32(factor(rate)))
    index = np.clip(codes, 0, 2**bits - 1).astype(np.int64)
    return np.asarray(table(bits, rate)[index])


def best_rate(weights: Array, values: Array, bits: int) -> float:
    """The rate with the least square error of ``weights @ values``.

    Args:
        weights: Attention, ``[..., S, T]``.
        values: What it weighs, ``[..., T, E]``.
        bits: Width of the codes.
    """
    true = weights @ values

    def error(rate: float) -> float:
        return float(np.square(log_quantized(weights, bits, rate) @ values - true).sum())

    return min(RATES, key=error)
