"""Bounds for quantizers: which of them can an error tip to the next code?

Errors of codes are counted in codes. The reference divides in float32 and rounds halves to
even; an engine may multiply by a reciprocal, round a fixed-point product twice, or have
rounded the bias to the unit of its integer sums. All of that moves the quotient by a small
known amount, so the code can change only where the quotient lies that close to a half.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.quantizers import dequantizer, quantizer_of

__all__ = ["dequantize_bound", "quantize_bound"]

Array = np.ndarray[Any, Any]
# Fixed-point factors of sums and products of two tensors: 20 fractional bits under 8.
_FIXED = 2.0**-10
# int16 kernels multiply 64-bit sums by 16 bits of the factor.
_WIDE = 2.0**-15
# Half a unit for the bias, one for a product that is rounded twice.
_UNITS = 1.5


def quantize_bound(node: ir.Node, x: Array, error: float, roundoff: float) -> float:
    """Largest change of a code.

    Args:
        node: QuantizeLinear with constant parameters.
        x: The reference's numbers.
        error: Bound on the numbers' error.
        roundoff: Unit roundoff of the engine's float arithmetic.

    Returns:
        0 where no quotient lies close enough to a half, else at least 1; infinite if the
        parameters are not known.
    """
    found = quantizer_of(node)
    if found is None or found.block:
        return math.inf
    shape = [-1 if i == found.axis else 1 for i in range(x.ndim)]
    scale = found.scale if found.axis is None else found.scale.reshape(shape)
    zero = found.zero_point if found.axis is None else found.zero_point.reshape(shape)
    quotient = x.astype(np.float64) / scale.astype(np.float64)
    margin = (error + _UNITS * _unit(node)) / scale + 4 * roundoff * np.abs(quotient) + _FIXED
    if found.dtype in (ir.DataType.INT16, ir.DataType.UINT16):
        margin = margin + _WIDE * np.abs(quotient)
    info = np.iinfo(found.dtype.numpy())
    clear = (quotient + zero < info.min - margin) | (quotient + zero > info.max + margin)
    near = np.abs(quotient - np.floor(quotient) - 0.5) <= margin
    tipped = np.where(near & ~clear, np.ceil(margin + 0.5), 0)
    return float(np.max(tipped, initial=0))


def dequantize_bound(node: ir.Node, error: float) -> float:
    """Error of the numbers of codes that are off by ``error``."""
    found = quantizer_of(node)
    return math.inf if found is None else error * float(np.max(found.scale))


def _unit(node: ir.Node) -> float:
    """What one unit of the integer sum in front of a quantizer is worth; 0 without one."""
    value = node.inputs[0]
    maker = None if value is None else value.producer()
    while maker is not None and maker.op_type in ("Relu", "Clip", "Add"):
        known = [v for v in maker.inputs if v is not None and v.producer() is not None]
        if len(known) != 1:
            return 0.0
        maker = known[0].producer()
    if maker is None or maker.op_type not in ("Conv", "MatMul"):
        return 0.0
    makers = [dequantizer(v) for v in maker.inputs[:2]]
    found = [None if m is None else quantizer_of(m) for m in makers]
    if any(q is None for q in found):
        return 0.0
    return math.prod(float(np.max(q.scale)) for q in found if q is not None)
