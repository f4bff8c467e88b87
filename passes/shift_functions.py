"""Layers whose weights are packed sums of signed powers of two, as ONNX functions.

===================  ==================================================  =================
function             inputs                                              attributes
===================  ==================================================  =================
``ShiftLinear``      ``x [.., K]``, ``codes``, ``scale [N]``              ``inputs``
``WideShiftLinear``  ``x``, ``codes``, ``signs``, ``scale``               ``inputs``
``ShiftConv``        ``x``, ``codes``, ``scale [M]``, ``bias [M]``        ``inputs``,
                                                                         ``weight_shape``,
                                                                         those of ``Conv``
``WideShiftConv``    ``x``, ``codes``, ``signs``, ``scale``, ``bias``     the same
===================  ==================================================  =================

``codes`` and ``signs`` are packed as ``edgevit.shift_codes`` says, for the weight ``[K, N]``
of a linear layer, or ``[C / group * kh * kw, M]`` of a convolution. ``inputs`` is K, for its
last code may be half a byte; ``weight_shape`` is ``[M, C / group, kh, kw]``.

``y[.., n] = scale[n] * sum over k of q[k, n] x[.., k]`` with the integers ``q`` of the codes.
Where x comes from quantizers the sum is one of integers, and engines that fold constants see
a layer with stored int8 (int32 if wide) weights: the bodies end in ``DequantizeLinear`` and
the operator itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.passes.function_parts import Body

__all__ = ["CONV_KEYS", "SHIFT_FUNCTIONS"]

_INT, _INTS = ir.AttributeType.INT, ir.AttributeType.INTS
CONV_KEYS = {
    "kernel_shape": _INTS,
    "strides": _INTS,
    "dilations": _INTS,
    "pads": _INTS,
    "group": _INT,
}
_INPUTS = ("inputs", _INT)


def _rows(body: Body, pieces: ir.Value, packed: ir.Value) -> ir.Value:
    """``[T, rows, pieces of a byte, N]`` -> ``[T, K, N]``."""
    kept = body.constant([0, -1], np.int64)
    outputs = body.op("Shape", packed, start=2)
    shape = body.op("Concat", kept, outputs, axis=0)
    flat = body.op("Reshape", pieces, shape, allowzero=0)
    count = body.op("Constant", handed={"value_int": _INPUTS})
    one = body.constant([1], np.int64)
    ends = body.op("Reshape", count, one, allowzero=0)
    return body.op("Slice", flat, body.constant([0], np.int64), ends, one)


def _halves(body: Body, codes: ir.Value) -> ir.Value:
    """The codes of 4 bits, uint8 ``[T, K, N]``: low half of a byte first."""
    two = body.constant([2], np.int64)
    low = body.op("BitwiseAnd", codes, body.constant(15, np.uint8))
    high = body.op("BitShift", codes, body.constant(4, np.uint8), direction="RIGHT")
    parts = [body.op("Unsqueeze", half, two) for half in (low, high)]
    return _rows(body, body.op("Concat", *parts, axis=2), codes)


def _bits(body: Body, signs: ir.Value) -> ir.Value:
    """The signs, uint8 0 or 1, ``[T, K, N]``: lowest bit of a byte first."""
    spread = body.op("Unsqueeze", signs, body.constant([2], np.int64))
    steps = body.constant(np.arange(8).reshape(1, 1, 8, 1), np.uint8)
    moved = body.op("BitShift", spread, steps, direction="RIGHT")
    return _rows(body, body.op("BitwiseAnd", moved, body.constant(1, np.uint8)), signs)


def _power(body: Body, m: ir.Value, dtype: type[np.generic]) -> ir.Value:
    """``2^(m - 1)``, 0 for m = 0, as ``(1 << m) >> 1``; int32."""
    one = body.constant(1, dtype)
    twice = body.op("BitShift", one, m, direction="LEFT")
    power = body.op("BitShift", twice, one, direction="RIGHT")
    return body.op("Cast", power, to=int(ir.DataType.INT32))


def _total(body: Body, magnitude: ir.Value, negative: ir.Value) -> ir.Value:
    """The sum of the signed terms, int32 ``[K, N]``."""
    sign = body.op("Cast", negative, to=int(ir.DataType.INT32))
    twice = body.op("Mul", sign, body.constant(2, np.int32))
    factor = body.op("Sub", body.constant(1, np.int32), twice)
    terms = body.op("Mul", magnitude, factor)
    return body.op("ReduceSum", terms, body.constant([0], np.int64), keepdims=0)


def _narrow(body: Body, codes: ir.Value) -> ir.Value:
    """The integers of 4-bit terms, int8 ``[K, N]``."""
    code = _halves(body, codes)
    m = body.op("BitwiseAnd", code, body.constant(7, np.uint8))
    negative = body.op("BitShift", code, body.constant(3, np.uint8), direction="RIGHT")
    total = _total(body, _power(body, m, np.uint8), negative)
    return body.op("Cast", total, to=int(ir.DataType.INT8))


def _wide(body: Body, codes: ir.Value, signs: ir.Value) -> ir.Value:
    """The integers of 5-bit terms, int32 ``[K, N]``."""
    m = body.op("Cast", _halves(body, codes), to=int(ir.DataType.UINT32))
    return _total(body, _power(body, m, np.uint32), _bits(body, signs))


def _integers(body: Body, wide: bool) -> ir.Value:
    codes = body.inputs[1]
    return _wide(body, codes, body.inputs[2]) if wide else _narrow(body, codes)


def _linear(wide: bool) -> ir.Function:
    names = ("x", "codes", *(("signs",) if wide else ()), "scale")
    body = Body(*names)
    scale = body.inputs[-1]
    weight = body.op("DequantizeLinear", _integers(body, wide), scale, axis=1)
    y = body.op("MatMul", body.inputs[0], weight)
    return body.function("WideShiftLinear" if wide else "ShiftLinear", y, dict([_INPUTS]))


def _conv(wide: bool) -> ir.Function:
    names = ("x", "codes", *(("signs",) if wide else ()), "scale", "bias")
    body = Body(*names)
    *_, scale, bias = body.inputs
    turned = body.op("Transpose", _integers(body, wide), perm=[1, 0])
    shape = body.op("Constant", handed={"value_ints": ("weight_shape", _INTS)})
    filters = body.op("Reshape", turned, shape, allowzero=0)
    weight = body.op("DequantizeLinear", filters, scale, axis=0)
    handed = {key: (key, kind) for key, kind in CONV_KEYS.items()}
    y = body.op("Conv", body.inputs[0], weight, bias, handed=handed)
    attributes = dict([_INPUTS, ("weight_shape", _INTS), *CONV_KEYS.items()])
    return body.function("WideShiftConv" if wide else "ShiftConv", y, attributes)


SHIFT_FUNCTIONS: dict[str, Callable[[], ir.Function]] = {
    "ShiftConv": lambda: _conv(wide=False),
    "ShiftLinear": lambda: _linear(wide=False),
    "WideShiftConv": lambda: _conv(wide=True),
    "WideShiftLinear": lambda: _linear(wide=True),
}
