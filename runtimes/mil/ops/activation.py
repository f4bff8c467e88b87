"""Activation functions.

Source: coremltools ``ops/defs/iOS15/activation.py``. ``sigmoid`` and ``softplus`` are written
so that ``exp`` never overflows; the functions are the same.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import total
from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.erf import erf
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _per_channel(value: Array, x: Array) -> Array:
    """A vector along axis 1 of ``x``."""
    if value.ndim != 1 or x.ndim < 2 or value.shape[0] != x.shape[1]:
        raise ValueError(f"expected {list(x.shape)[1:2]} values, found {list(value.shape)}")
    return value.reshape(-1, *([1] * (x.ndim - 2)))


def _relu(_: Context, x: Array) -> Array:
    """``max(x, 0)``."""
    return np.maximum(x, 0)


def _relu6(_: Context, x: Array) -> Array:
    """``min(max(x, 0), 6)``."""
    return np.minimum(np.maximum(x, 0), 6)


def _clamped_relu(_: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``min(beta, x)`` where ``x >= 0``, else ``min(beta, alpha x)``."""
    return np.minimum(np.where(x >= 0, x, alpha * x), beta)


def _leaky_relu(_: Context, x: Array, alpha: Array) -> Array:
    """``x`` where ``x >= 0``, else ``alpha x``."""
    return np.where(x >= 0, x, alpha * x)


def _prelu(_: Context, x: Array, alpha: Array) -> Array:
    """``x`` where ``x > 0``, else ``alpha[channel] x``."""
    return np.where(x > 0, x, _per_channel(alpha, x) * x)


def _elu(_: Context, x: Array, alpha: Array) -> Array:
    """``x`` where ``x > 0``, else ``alpha (e^x - 1)``."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _thresholded_relu(_: Context, x: Array, alpha: Array) -> Array:
    """``x`` where ``x >= alpha``, else 0."""
    return np.where(x >= alpha, x, np.zeros_like(x))


def _linear_activation(_: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``alpha x + beta``."""
    return alpha * x + beta


def sigmoid(x: Array) -> Array:
    """``1 / (1 + e^-x)``."""
    power = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, x.dtype.type(1), power) / (1 + power))


def _sigmoid(_: Context, x: Array) -> Array:
    """``1 / (1 + e^-x)``."""
    return sigmoid(x)


def _sigmoid_hard(_: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``min(max(alpha x + beta, 0), 1)``."""
    return np.asarray(np.minimum(np.maximum(alpha * x + beta, 0), 1))


def _silu(_: Context, x: Array) -> Array:
    """``x sigmoid(x)``."""
    return x * sigmoid(x)


def _softplus(_: Context, x: Array) -> Array:
    """``log(1 + e^x)``."""
    return np.asarray(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))


def _softplus_parametric(ctx: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``alpha[channel] log(1 + e^(beta[channel] x))``."""
    return _per_channel(alpha, x) * _softplus(ctx, _per_channel(beta, x) * x)


def _softsign(_: Context, x: Array) -> Array:
    """``x / (1 + |x|)``."""
    return np.asarray(x / (1 + np.abs(x)))


def _scaled_tanh(_: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``alpha tanh(beta x)``."""
    return np.asarray(alpha * np.tanh(beta * x))


def _gelu(_: Context, x: Array, mode: str = "EXACT") -> Array:
    """``0.5 x (1 + erf(x / sqrt 2))``, its tanh form, or ``x sigmoid(1.702 x)``."""
    one = x.dtype.type(1)
    if mode == "EXACT":
        inner = x * x.dtype.type(np.sqrt(0.5))
        return np.asarray(x.dtype.type(0.5) * x * (one + erf(inner)))
    if mode == "TANH_APPROXIMATION":
        inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return np.asarray(x.dtype.type(0.5) * x * (one + np.tanh(inner)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(x.dtype.type(1.702) * x)
    raise ValueError(f"expected one of the three modes of gelu, found {mode!r}")


def _softmax(ctx: Context, x: Array, axis: Array | None = None) -> Array:
    """``e^(x - max) / sum(e^(x - max))`` along ``axis`` (the last by default)."""
    along = -1 if axis is None else int(axis)
    power = np.exp(x - np.max(x, axis=along, keepdims=True))
    return np.asarray(power / total(power, [along], keepdims=True, half=ctx.half))


OPERATORS: dict[str, Kernel] = {
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "relu": _relu,
    "relu6": _relu6,
    "scaled_tanh": _scaled_tanh,
    "sigmoid": _sigmoid,
    "sigmoid_hard": _sigmoid_hard,
    "silu": _silu,
    "softmax": _softmax,
    "softplus": _softplus,
    "softplus_parametric": _softplus_parametric,
    "softsign": _softsign,
    "thresholded_relu": _thresholded_relu,
}
