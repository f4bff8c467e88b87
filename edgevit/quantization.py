"""Quantization parameters and the arithmetic of QuantizeLinear, in numpy only.

ONNX operator specification, QuantizeLinear: ``q = saturate(round(x / s) + z)``, rounding half
to even; DequantizeLinear: ``x = (q - z) s``. Zero always has an exact code, because padding
and ReLU produce it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgevit.errors import InternalError

__all__ = [
    "DTYPE_RANGES",
    "QParams",
    "Range",
    "Scheme",
    "dequantize",
    "fake",
    "parameters",
    "quantize",
    "zero_point_overflow",
]

Array = np.ndarray[Any, Any]
Scheme = Literal["symmetric", "asymmetric"]
DTYPE_RANGES = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
}
# Smaller scales are denormal or divide to infinity in float32 kernels.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 2.0**24


@dataclass(frozen=True, eq=False)
class QParams:
    """How a tensor is quantized.

    Attributes:
        scale: float32, positive; shape ``()`` per tensor, ``[C]`` per axis, or the tensor's
            shape with ``axis`` divided by ``block``.
        zero_point: int32 of the same shape, within ``low..high``.
        dtype: ONNX dtype of stored codes: ``int8``, ``uint8``, ``int4``, ``int16``, ...
        low: Smallest code used; above the dtype's for narrow precisions.
        high: Largest code used.
        axis: Of per-axis and block-wise parameters; non-negative; ``None`` per tensor.
        block: Elements that share a scale along ``axis``; 0 if not block-wise.
    """

    scale: Array
    zero_point: Array
    dtype: str
    low: int
    high: int
    axis: int | None = None
    block: int = 0

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, np.float32)
        zero = np.asarray(self.zero_point, np.int32)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero)
        least, most = DTYPE_RANGES[self.dtype]
        if scale.shape != zero.shape or not least <= self.low < self.high <= most:
            raise InternalError(f"inconsistent quantization parameters: {self}")
        if not (np.all(np.isfinite(scale)) and np.all(scale > 0)):
            raise InternalError("a quantization scale is not positive and finite")
        if np.any(zero < self.low) or np.any(zero > self.high):
            raise InternalError("a zero point lies outside of the codes: repair it first")

    @property
    def narrow(self) -> bool:
        """Whether an activation needs a Clip: codes below the dtype's full range are used.

        ``-127`` as the lowest code of int8 counts as full: it is the symmetric convention.
        """
        least, most = DTYPE_RANGES[self.dtype]
        symmetric = least < 0 and self.low == least + 1
        return self.high != most or not (self.low == least or symmetric)

    @property
    def clip(self) -> tuple[float, float]:
        """The real numbers of the lowest and highest code; per tensor only."""
        scale, zero = float(self.scale), int(self.zero_point)
        return (self.low - zero) * scale, (self.high - zero) * scale

    def same(self, other: QParams) -> bool:
        """Whether both describe the same function."""
        plain = ("dtype", "low", "high", "axis", "block")
        return all(getattr(self, n) == getattr(other, n) for n in plain) and (
            np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def scaled(self, factor: Array | float) -> QParams:
        """The same codes for a tensor that is multiplied by ``factor``."""
        return replace(self, scale=(self.scale * factor).astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        """Plain values; scales are exact (float32 in float64)."""
        return {
            "scale": self.scale.astype(np.float64).tolist(),
            "zero_point": self.zero_point.tolist(),
            "dtype": self.dtype,
            "low": self.low,
            "high": self.high,
            "axis": self.axis,
            "block": self.block,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> QParams:
        """The inverse of ``to_json``."""
        return cls(**{**data, "scale": np.asarray(data["scale"], np.float32)})


@dataclass(frozen=True)
class Range:
    """Smallest and largest real number to represent, per tensor ``()`` or per channel."""

    low: Array
    high: Array

    @classmethod
    def of(cls, array: Array, axis: int | None = None) -> Range:
        """The range of an array, per tensor or per channel of ``axis``."""
        axes = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
        return cls(np.min(array, axis=axes), np.max(array, axis=axes))

    def with_zero(self) -> Range:
        """Widened to include zero."""
        return Range(np.minimum(self.low, 0), np.maximum(self.high, 0))


def parameters(
    span: Range,
    dtype: str,
    scheme: Scheme,
    bits: int | None = None,
    axis: int | None = None,
) -> QParams:
    """Parameters that represent a range; zero is always included.

    Args:
        span: Shape ``()`` or ``[C]``.
        dtype: Stored dtype.
        scheme: ``symmetric``: zero point 0 (the middle code of an unsigned dtype), codes
            ``-(2^(bits-1)-1) .. 2^(bits-1)-1``; ``asymmetric``: all ``2^bits`` codes.
        bits: Fewer than the dtype has for narrow precisions; ``None``: the dtype's.
        axis: Of per-channel ranges.

    Returns:
        A constant zero range has scale 1: every code is exact.
    """
    low, high = codes(dtype, scheme, bits)
    wide = span.with_zero()
    least, most = wide.low.astype(np.float64), wide.high.astype(np.float64)
    if scheme == "symmetric":
        middle = 0 if low < 0 else (low + high) // 2
        scale = _positive(np.maximum(-least, most) / (high - middle))
        zero = np.full(scale.shape, middle, np.int32)
        return QParams(scale, zero, dtype, low, high, axis)
    scale = _positive((most - least) / (high - low))
    zero = np.clip(np.rint(low - least / scale), low, high)
    return QParams(scale, zero.astype(np.int32), dtype, low, high, axis)


def codes(dtype: str, scheme: Scheme, bits: int | None = None) -> tuple[int, int]:
    """Lowest and highest code of a scheme with ``bits`` bits in ``dtype``."""
    least, most = DTYPE_RANGES[dtype]
    full = (most - least + 1).bit_length() - 1
    count = full if bits is None else bits
    if not 2 <= count <= full:
        raise InternalError(f"{count} bits do not fit into {dtype}")
    if least == 0:
        return (1, 2**count - 1) if scheme == "symmetric" else (0, 2**count - 1)
    half = 2 ** (count - 1)
    return (1 - half, half - 1) if scheme == "symmetric" else (-half, half - 1)


def _positive(scale: Array) -> Array:
    """As float32; ranges without extent get scale 1."""
    narrow = np.asarray(scale, np.float32)
    return np.asarray(np.where(narrow > SMALLEST_SCALE, narrow, 1.0), np.float32)


def zero_point_overflow(span: Range, dtype: str, bits: int | None = None) -> Array:
    """Where an asymmetric zero point without the include-zero rule would leave the codes.

    Q-HyViT (arXiv 2303.12557): ``z = low - r_min / s`` overflows for ranges that do not hold
    zero. ``parameters`` repairs it by including zero; this lint says where it had to.
    """
    return np.asarray((span.low > 0) | (span.high < 0))


def spread(params: QParams, which: Array, shape: Sequence[int]) -> Array:
    """Scales or zero points shaped to broadcast against a tensor of ``shape``."""
    if params.axis is None:
        return which
    if params.block:
        return np.repeat(which, params.block, axis=params.axis)
    return which.reshape([-1 if i == params.axis else 1 for i in range(len(shape))])


def quantize(x: Array, params: QParams) -> Array:
    """Codes of ``x`` as int32, in ``low..high``; divides in float32 as kernels do."""
    scale = spread(params, params.scale, x.shape)
    zero = spread(params, params.zero_point, x.shape)
    scaled = np.rint(x.astype(np.float32) / scale) + zero
    return np.asarray(np.clip(scaled, params.low, params.high), np.int32)


def dequantize(q: Array, params: QParams) -> Array:
    """Real numbers of codes, float32."""
    scale = spread(params, params.scale, q.shape)
    zero = spread(params, params.zero_point, q.shape)
    return np.asarray((q.astype(np.int32) - zero) * scale, np.float32)


def fake(x: Array, params: QParams) -> Array:
    """``dequantize(quantize(x))``."""
    return dequantize(quantize(x, params), params)
