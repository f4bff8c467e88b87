"""Quantization, and constants that are stored compressed.

Source: coremltools ``ops/defs/iOS16/constexpr_ops.py``, ``iOS17/quantization_ops.py``,
``iOS18/compression.py``.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel, integers
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]


def _along(parameter: Array, data: Array, axis: Array | None) -> Array:
    """A scalar, or a vector along ``axis`` of ``data``, ready to broadcast; in float32."""
    wide = parameter.astype(np.float32)
    if parameter.ndim == 0:
        return wide
    if axis is None or parameter.shape != (data.shape[int(axis)],):
        raise ValueError(f"{list(parameter.shape)} values do not fit {list(data.shape)}")
    shape = [1] * data.ndim
    shape[int(axis)] = -1
    return wide.reshape(shape)


def _quantize(
    ctx: Context,
    input: Array,
    scale: Array,
    output_dtype: str,
    zero_point: Array | None = None,
    axis: Array | None = None,
) -> Array:
    """``clip(round(input / scale) + zero_point)``, ties to even, to the range of the dtype."""
    if output_dtype not in ("int8", "uint8") or ctx.outputs[0].dtype != output_dtype:
        raise ValueError(f"expected int8 or uint8 as declared, found {output_dtype!r}")
    steps = np.round(input / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis)
    limits = np.iinfo(output_dtype)
    return np.clip(steps, limits.min, limits.max)


def _affine(data: Array, scale: Array, zero_point: Array | None, axis: Array | None) -> Array:
    """``scale (data - zero_point)``; the difference is exact in float32."""
    wide = data.astype(np.float32)
    if zero_point is not None:
        wide = wide - _along(zero_point, data, axis)
    return wide * _along(scale, data, axis)


def _dequantize(
    _: Context,
    input: Array,
    scale: Array,
    zero_point: Array | None = None,
    axis: Array | None = None,
) -> Array:
    """``scale (input - zero_point)``."""
    return _affine(input, scale, zero_point, axis)


def _constexpr_affine_dequantize(
    _: Context, quantized_data: Array, zero_point: Array, scale: Array, axis: Array
) -> Array:
    """``scale (quantized_data - zero_point)``."""
    return _affine(quantized_data, scale, zero_point, axis)


def _spread(parameter: Array, data: Array) -> Array:
    """Each value of a parameter repeated over its block of ``data``; in float32."""
    wide = parameter.astype(np.float32)
    if parameter.ndim != data.ndim:
        raise ValueError(f"rank {parameter.ndim} of a parameter, {data.ndim} of the data")
    for axis, (count, size) in enumerate(zip(parameter.shape, data.shape, strict=True)):
        if size % count:
            raise ValueError(f"{count} blocks do not divide axis {axis} of {size}")
        wide = np.repeat(wide, size // count, axis)
    return wide


def _constexpr_blockwise_shift_scale(
    _: Context, data: Array, scale: Array, offset: Array | None = None
) -> Array:
    """``scale (data - offset)``, both constant over blocks."""
    wide = data.astype(np.float32)
    if offset is not None:
        wide = wide - _spread(offset, data)
    return wide * _spread(scale, data)


def _constexpr_cast(ctx: Context, source_val: Array, output_dtype: str) -> Array:
    """A float16 constant as float32."""
    if output_dtype != "fp32" or ctx.outputs[0].dtype != "float32":
        raise ValueError(f"expected fp32, found {output_dtype!r}")
    return source_val


def _constexpr_lut_to_dense(_: Context, indices: Array, lut: Array, shape: Array) -> Array:
    """``lut[i]``; indices of ``log2(len(lut))`` bits, packed from the lowest bit of a byte."""
    bits = int(lut.size).bit_length() - 1
    if lut.size not in (2, 4, 16, 64, 256):
        raise ValueError(f"expected 2, 4, 16, 64 or 256 entries, found {lut.size}")
    size = integers(shape, ())
    count = int(np.prod(size))
    stream = np.unpackbits(indices.astype(np.uint8), bitorder="little")
    if stream.size < count * bits:
        raise ValueError(
            f"expected {count} indices of {bits} bits, found {indices.size} bytes"
        )
    places = stream[: count * bits].reshape(count, bits) @ (1 << np.arange(bits))
    return lut[places].reshape(size)


def _constexpr_sparse_to_dense(
    _: Context, nonzero_data: Array, mask: Array, shape: Array
) -> Array:
    """``nonzero_data`` in order where a bit of ``mask`` is set, else 0; lowest bit first."""
    size = integers(shape, ())
    count = int(np.prod(size))
    stream = np.unpackbits(mask.astype(np.uint8), bitorder="little")[:count].astype(bool)
    if stream.size != count or int(stream.sum()) != nonzero_data.size:
        raise ValueError(f"the mask does not fit {nonzero_data.size} values in {list(size)}")
    result = np.zeros(count, dtype=nonzero_data.dtype)
    result[stream] = nonzero_data
    return result.reshape(size)


OPERATORS: dict[str, Kernel] = {
    "constexpr_affine_dequantize": _constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": _constexpr_blockwise_shift_scale,
    "constexpr_cast": _constexpr_cast,
    "constexpr_lut_to_dense": _constexpr_lut_to_dense,
    "constexpr_sparse_to_dense": _constexpr_sparse_to_dense,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
