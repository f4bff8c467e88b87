"""Activations element by element, in numpy: what a rounding error becomes behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["only_reader"]

Array = np.ndarray[Any, Any]
_ERF = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6.0 + 0.5, 0.0, 1.0))


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Gelu": lambda x: np.asarray(0.5 * x * (1.0 + _ERF(x / math.sqrt(2.0)))),
    "HardSwish": _hard_swish,
    "Relu": lambda x: np.maximum(x, 0.0),
    "Sigmoid": _sigmoid,
    "Silu": lambda x: np.asarray(x * _sigmoid(x)),
    "Tanh": np.tanh,
}


def only_reader(value: ir.Value) -> Callable[[Array], Array] | None:
    """The activation that all readers of a value apply to it; ``None`` if others read it."""
    if value.is_graph_output():
        return None
    readers = {use.node.op_type for use in value.uses()}
    return _FUNCTIONS.get(readers.pop()) if len(readers) == 1 else None
