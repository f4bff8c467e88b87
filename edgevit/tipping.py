"""What rounding to integers can add to an error: steps tipped over ties, rounded biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant

__all__ = ["bias_step", "tipped"]

Array = np.ndarray[Any, Any]
# Kernels divide by the scale or multiply by its reciprocal, in float32: 1.5 roundings each.
DIVISION_ULPS = 3.0


def tipped(
    x: Array, scale: Array, error: float, unit: float, low: float, high: float
) -> Array:
    """By how many steps the code of each element may differ, float64.

    ``round`` jumps at ties, which lie one apart: an argument that is off by ``d`` crosses
    ``1 + floor(d - t)`` of them if the nearest is at distance ``t <= d``, else none.

    Args:
        x: What is quantized.
        scale: Positive; a scalar or broadcastable to ``x``.
        error: Bound on the absolute error of any element of ``x``.
        unit: Unit roundoff of the division.
        low: Lowest code less the zero point; below it codes are clamped.
        high: Highest code less the zero point.
    """
    scaled = x.astype(np.float64) / scale
    off = error / scale + DIVISION_ULPS * unit * np.abs(scaled)
    nearest = np.abs(scaled - np.floor(scaled) - 0.5)
    steps = np.where(nearest <= off, 1 + np.floor(off - nearest), 0.0)
    clamped = (scaled + off < low) | (scaled - off > high)
    return np.asarray(np.where(clamped, 0.0, steps))


def bias_step(node: ir.Node) -> float:
    """Half a step of the integer accumulator, in which an integer kernel keeps the bias.

    0 for a layer whose operands are not both dequantized.
    """
    scales = []
    for value in node.inputs[:2]:
        made = None if value is None else value.producer()
        if made is None or made.op_type != "DequantizeLinear":
            return 0.0
        scale = constant(made.inputs[1])
        if scale is None:
            return 0.0
        scales.append(float(scale.max()))
    return 0.5 * scales[0] * scales[1]
