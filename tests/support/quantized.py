"""Small QDQ graphs for the tests of integer artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tests.support.graphs import GraphBuilder

__all__ = ["Codes", "QuantizedBuilder"]

Array = np.ndarray[Any, Any]
Codes = tuple[float, int]


class QuantizedBuilder(GraphBuilder):
    """A builder with quantizers. ``Codes`` are a scale and a zero point."""

    def quantize(self, x: str, codes: Codes, dtype: Any = np.int8, out: str = "") -> str:
        """QuantizeLinear, per tensor."""
        return self.op("QuantizeLinear", x, *self._parameters(codes, dtype), out=out)

    def dequantize(self, q: str, codes: Codes, dtype: Any = np.int8, out: str = "") -> str:
        """DequantizeLinear, per tensor."""
        return self.op("DequantizeLinear", q, *self._parameters(codes, dtype), out=out)

    def pair(self, x: str, codes: Codes, dtype: Any = np.int8, name: str = "") -> str:
        """Both, behind each other."""
        quantized = f"{name}.quantized" if name else ""
        dequantized = f"{name}.dequantized" if name else ""
        q = self.quantize(x, codes, dtype, quantized)
        return self.dequantize(q, codes, dtype, dequantized)

    def _parameters(self, codes: Codes, dtype: Any) -> tuple[str, str]:
        return self.const(codes[0]), self.const(codes[1], dtype=dtype)

    def weight(
        self, codes: Array, scale: Sequence[float] | float, axis: int, dtype: Any = np.int8
    ) -> str:
        """A stored weight: symmetric, per tensor or along ``axis``."""
        scales = np.asarray(scale, np.float32)
        zero = np.zeros(scales.shape, np.int8)
        inputs = [
            self.const(codes, dtype=dtype),
            self.const(scales),
            self.const(zero, dtype=dtype),
        ]
        attributes: dict[str, Any] = {"axis": axis} if scales.ndim else {}
        return self.op("DequantizeLinear", *inputs, **attributes)

    def stored(self, shape: Sequence[int], axis: int, seed: int = 1, bits: int = 8) -> str:
        """A random stored weight with scales of channels; of 4 bits it is int4, else int8."""
        rng = np.random.default_rng(seed)
        most = 2 ** (bits - 1) - 1
        codes = rng.integers(-most, most + 1, shape)
        scale = rng.uniform(0.5, 1.5, shape[axis]) / most
        dtype = ml_dtypes.int4 if bits == 4 else np.int8
        return self.weight(codes, [float(s) for s in scale], axis, dtype)
