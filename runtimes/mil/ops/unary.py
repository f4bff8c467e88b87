"""Elementwise operators of one argument.

Source: coremltools ``ops/defs/iOS15/elementwise_unary.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.erf import erf
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _unary(function: Callable[[Array], Array]) -> Kernel:
    def kernel(_: Context, x: Array) -> Array:
        return function(x)

    return kernel


def _clip(_: Context, x: Array, alpha: Array, beta: Array) -> Array:
    """``min(max(x, alpha), beta)``."""
    return np.minimum(np.maximum(x, alpha), beta)


def _threshold(_: Context, x: Array, alpha: Array) -> Array:
    """``max(x, alpha)``."""
    return np.maximum(x, alpha)


def _log(ctx: Context, x: Array, epsilon: Array | None = None) -> Array:
    """``log(x + epsilon)``, epsilon 1e-45 by default."""
    return np.asarray(np.log(x + (ctx.constant(1e-45, "x") if epsilon is None else epsilon)))


def _rsqrt(ctx: Context, x: Array, epsilon: Array | None = None) -> Array:
    """``1 / sqrt(x + epsilon)``, epsilon 1e-12 by default."""
    shifted = x + (ctx.constant(1e-12, "x") if epsilon is None else epsilon)
    return np.asarray(np.float32(1) / np.sqrt(shifted))


def _inverse(ctx: Context, x: Array, epsilon: Array | None = None) -> Array:
    """``1 / (x + epsilon)``, epsilon 1e-4 by default."""
    shifted = x + (ctx.constant(1e-4, "x") if epsilon is None else epsilon)
    return np.asarray(np.float32(1) / shifted)


_CAST = {"fp16": "float16", "fp32": "float32"}


def _cast(ctx: Context, x: Array, dtype: str) -> Array:
    """``x`` as ``dtype``; towards zero from float to integer, ``x != 0`` to bool."""
    wanted, declared = _CAST.get(dtype, dtype), ctx.outputs[0].dtype
    if wanted != declared:
        raise ValueError(f"expected a result of type {wanted}, found {declared} declared")
    return x  # the evaluator converts every result to its declared dtype, as above


OPERATORS: dict[str, Kernel] = {
    "abs": _unary(np.abs),  # |x|
    "acos": _unary(np.arccos),
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atanh": _unary(np.arctanh),
    "cast": _cast,
    "ceil": _unary(np.ceil),  # towards +inf
    "clip": _clip,
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "erf": _unary(erf),
    "exp": _unary(np.exp),
    "exp2": _unary(np.exp2),  # 2^x
    "floor": _unary(np.floor),  # towards -inf
    "identity": _unary(np.asarray),
    "inverse": _inverse,
    "log": _log,
    "logical_not": _unary(np.logical_not),
    "round": _unary(np.round),  # to nearest, ties to even
    "rsqrt": _rsqrt,
    "sign": _unary(np.sign),
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "threshold": _threshold,
}
