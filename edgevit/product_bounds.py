"""Tolerances of products: matrix products, convolutions and attention, which is two of them.

First-order running error analysis as in ``edgevit.tolerance``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.roundoff import FUNCTION_ULPS, SAFETY, Operand, Roundoff
from edgevit.tipping import bias_step

__all__ = ["PRODUCT_RULES", "sum_error"]

Array = np.ndarray[Any, Any]
# exp(-x) is no float32 any more, not even a denormal one.
_VANISHES = 104.0


def sum_error(length: int, scale: float, unit: Roundoff) -> float:
    """Error of a sum of ``length`` products whose absolute values sum to ``scale``."""
    return SAFETY * math.sqrt(max(length, 1)) * unit.compute * scale


def _rows(array: Array, axis: int) -> float:
    finite = np.where(np.isfinite(array), array, 0).astype(np.float64)
    return float(np.sqrt(np.max(np.sum(finite**2, axis=axis)))) if finite.size else 0.0


def _product(a: Operand, b: Operand, axis_a: int, axis_b: int, unit: Roundoff) -> float:
    """Contraction of ``a`` along one axis with ``b``: Cauchy-Schwarz on |a||b|."""
    length = a.array.shape[axis_a]
    norm_a, norm_b = _rows(a.array, axis_a), _rows(b.array, axis_b)
    carried = a.norm(length) * norm_b + b.norm(length) * norm_a
    return sum_error(length, norm_a * norm_b, unit) + carried


def _matmul(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    axis_b = -2 if ops[1].array.ndim > 1 else 0
    return _product(ops[0], ops[1], -1, axis_b, unit) + bias_step(node)


def _convolution(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    x, w = ops[0], ops[1]
    axes = (0, *range(2, w.array.ndim)) if node.op_type == "ConvTranspose" else None
    axes = axes or tuple(range(1, w.array.ndim))
    length = int(np.prod([w.array.shape[a] for a in axes]))
    absolute = np.abs(w.array.astype(np.float64))
    weight_l1 = float(np.max(np.sum(absolute, axis=axes)))
    weight_l2 = float(np.sqrt(np.max(np.sum(absolute**2, axis=axes))))
    patch = math.sqrt(length) * x.peak
    own = sum_error(length, min(weight_l1 * x.peak, weight_l2 * patch), unit)
    bias = ops[2].error + SAFETY * unit.compute * ops[2].peak if len(ops) > 2 else 0.0
    carried = min(x.error * weight_l1, x.norm(length) * weight_l2)
    return own + carried + w.error * length * x.peak + bias + bias_step(node)


def _attention(node: ir.Node, ops: Sequence[Operand], out: Array, unit: Roundoff) -> float:
    q, k, v = ops[0], ops[1], ops[2]
    scale = node.attributes.get_float("scale", 1.0 / math.sqrt(q.array.shape[-1])) or 1.0
    score = abs(scale) * _product(q, k, -1, -1, unit)
    peak = abs(scale) * _rows(q.array, -1) * _rows(k.array, -1)
    if len(ops) > 3:
        score += ops[3].error + SAFETY * unit.compute * (peak + _mask_peak(ops[3], peak))
    # Each stored intermediate (scores, probabilities) is rounded once in the storage dtype.
    score += 3 * unit.storage * peak
    relative = 2 * score + SAFETY * FUNCTION_ULPS * unit.compute * (1 + peak) + unit.storage
    relative += SAFETY * math.sqrt(k.array.shape[-2]) * unit.compute
    return v.peak * relative + v.error


def _mask_peak(mask: Operand, peak: float) -> float:
    """Largest magnitude of what counts: behind a softmax a key so far below the best is 0."""
    with np.errstate(invalid="ignore"):
        best = mask.array.astype(np.float64).max(axis=-1, keepdims=True, initial=-np.inf)
        counted = np.maximum(mask.array, best - 2 * peak - _VANISHES)
    return float(np.abs(counted[np.isfinite(counted)]).max(initial=0.0))


PRODUCT_RULES: dict[str, Callable[[ir.Node, Sequence[Operand], Array, Roundoff], float]] = {
    "MatMul": _matmul,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Attention": _attention,
    # Functions of our own whose bodies are these products.
    "OpticalLinear": _matmul,
    "OpticalConv": _convolution,
    "SharedConv": _convolution,
}
