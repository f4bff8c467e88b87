"""Normalizations.

Source: coremltools ``ops/defs/iOS15/normalization.py``. Means and variances are taken in two
passes, in float32 (or, pessimistically, with float16 sums).
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.arithmetic import total
from edgevit.runtimes.mil.context import Context, Kernel, axes_of
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _standardize(ctx: Context, x: Array, axes: tuple[int, ...], epsilon: Array) -> Array:
    """``(x - mean) / sqrt(variance + epsilon)`` over ``axes``."""
    count = np.float32(np.prod([x.shape[axis] for axis in axes]))
    mean = total(x, axes, keepdims=True, half=ctx.half) / count
    centered = x - mean
    variance = total(np.square(centered), axes, keepdims=True, half=ctx.half) / count
    return np.asarray(centered / np.sqrt(variance + epsilon))


def _scaled(
    x: Array, gamma: Array | None, beta: Array | None, shape: tuple[int, ...]
) -> Array:
    """``x gamma + beta``, both reshaped to broadcast."""
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _layer_norm(
    ctx: Context,
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | None = None,
) -> Array:
    """``gamma (x - E[x]) / sqrt(Var[x] + epsilon) + beta`` over ``axes`` (default: all).

    ``gamma`` and ``beta`` have the shape ``x.shape[axes]``; epsilon is 1e-5 by default.
    """
    over = axes_of(axes, x.ndim)
    eps = ctx.constant(1e-5, "x") if epsilon is None else epsilon
    shape = tuple(n if axis in over else 1 for axis, n in enumerate(x.shape))
    return _scaled(_standardize(ctx, x, over, np.asarray(eps)), gamma, beta, shape)


def _channels(x: Array) -> tuple[int, ...]:
    return (1, x.shape[1], *([1] * (x.ndim - 2)))


def _batch_norm(
    ctx: Context,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | None = None,
) -> Array:
    """``gamma (x - mean) / sqrt(variance + epsilon) + beta`` along axis 1."""
    shape = _channels(x)
    eps = ctx.constant(1e-5, "x") if epsilon is None else epsilon
    normal = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + eps)
    return _scaled(normal, gamma, beta, shape)


def _instance_norm(
    ctx: Context,
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | None = None,
) -> Array:
    """``layer_norm`` over the spatial axes, scaled along axis 1."""
    eps = ctx.constant(1e-5, "x") if epsilon is None else epsilon
    normal = _standardize(ctx, x, tuple(range(2, x.ndim)), np.asarray(eps))
    return _scaled(normal, gamma, beta, _channels(x))


def _l2_norm(ctx: Context, x: Array, epsilon: Array | None = None) -> Array:
    """``x / sqrt(sum(x^2) + epsilon)`` over the last three axes; epsilon 1e-6 by default."""
    if x.ndim < 3:
        raise ValueError(f"expected rank 3 or more, found {x.ndim}")
    eps = ctx.constant(1e-6, "x") if epsilon is None else epsilon
    return np.asarray(
        x / np.sqrt(total(np.square(x), (-3, -2, -1), keepdims=True, half=ctx.half) + eps)
    )


def _local_response_norm(
    ctx: Context,
    x: Array,
    size: Array,
    alpha: Array | None = None,
    beta: Array | None = None,
    k: Array | None = None,
) -> Array:
    """``x / (k + alpha / size sum(x^2 of size neighboring channels))^beta``.

    Channels ``i - floor((size - 1) / 2)`` to ``i + ceil((size - 1) / 2)``; defaults: alpha
    1e-4, beta 0.75, k 1.
    """
    width = int(size)
    scale = ctx.constant(1e-4, "x") if alpha is None else alpha
    power = ctx.constant(0.75, "x") if beta is None else beta
    offset = ctx.constant(1.0, "x") if k is None else k
    edges = [(0, 0)] * x.ndim
    edges[1] = ((width - 1) // 2, width // 2)
    squares = np.pad(np.square(x), edges)
    view = np.lib.stride_tricks.sliding_window_view(squares, width, axis=1)
    sums = total(view, (-1,), keepdims=False, half=ctx.half)
    return np.asarray(x / np.power(offset + scale / np.float32(width) * sums, power))


OPERATORS: dict[str, Kernel] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}
