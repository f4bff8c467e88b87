"""What rounding to integers can add to an error: steps tipped over ties, rounded biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.quantizers import quantized_as_run, stored

__all__ = ["bias_step", "factor_roundoff", "half_step", "rounds_activations", "tipped"]

Array = np.ndarray[Any, Any]
# Kernels divide by the scale or multiply by its reciprocal, in float32: 1.5 roundings each.
# OpenVINO's adds the zero point ahead of rounding to an integer: one rounding more of the sum,
# and 1.5 of the zero point, which it keeps as a product of the range's end.
DIVISION_ULPS = 3.0


def tipped(
    x: Array,
    scale: Array,
    error: float,
    unit: float,
    low: float,
    high: float,
    zero: float = 0.0,
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
        zero: The zero point itself.
    """
    scaled = x.astype(np.float64) / scale
    off = error / scale + DIVISION_ULPS * unit * (np.abs(scaled) + abs(zero))
    nearest = np.abs(scaled - np.floor(scaled) - 0.5)
    steps = np.where(nearest <= off, 1 + np.floor(off - nearest), 0.0)
    clamped = (scaled + off < low) | (scaled - off > high)
    return np.asarray(np.where(clamped, 0.0, steps))


def bias_step(node: ir.Node) -> float:
    """What an integer kernel's accumulator loses, in units of ``s_x s_w``.

    Half a unit for the bias, which is kept in it; one for its product with the factor
    ``s_x s_w / s_y``, which some kernels round twice (TFLite's convolutions: the doubled high
    product, then the shift). 0 for a layer whose operands are not both dequantized.
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
    return 1.5 * scales[0] * scales[1]


def factor_roundoff(bits: int) -> float:
    """Roundoff of the factor of integer kernels: 16 bits of it where codes have 16 bits."""
    return 2.0**-16 if bits == 16 else 0.0


def rounds_activations(node: ir.Node, everywhere: bool) -> bool:
    """Whether a layer's kernel rounds what it reads to 8 bits as it runs.

    Args:
        node: A layer whose weight is stored: a hybrid kernel's case. Other nodes do not.
        everywhere: Whether the engine does so with all of them, or only where the graph asks.
    """
    layer = node.domain == "" and node.op_type in ("Conv", "MatMul")
    asked = everywhere or quantized_as_run(node)
    found = stored(node.inputs[1]) if layer and asked else None
    return found is not None and found.quantizer.symmetric


def half_step(peak: float) -> float:
    """Half a step of 8 bits for numbers up to ``peak``: 127 steps on each side of zero."""
    return peak / 254
