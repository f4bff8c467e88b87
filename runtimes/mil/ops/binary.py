"""Elementwise operators of two arguments, broadcast as numpy does, and ``select``.

Source: coremltools ``ops/defs/iOS15/elementwise_binary.py`` and ``control_flow.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _binary(function: Callable[[Array, Array], Array]) -> Kernel:
    def kernel(_: Context, x: Array, y: Array) -> Array:
        return function(x, y)

    return kernel


def _select(_: Context, cond: Array, a: Array, b: Array) -> Array:
    """``a`` where ``cond``, else ``b``."""
    return np.where(cond, a, b)


OPERATORS: dict[str, Kernel] = {
    "add": _binary(np.add),
    "equal": _binary(np.equal),
    "floor_div": _binary(np.floor_divide),  # floor(x / y)
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "logical_and": _binary(np.logical_and),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),  # x - y floor(x / y): the sign of y
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "real_div": _binary(np.true_divide),  # of integers: towards zero
    "select": _select,
    "sub": _binary(np.subtract),
}
