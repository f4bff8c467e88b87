"""Cases with quantizers whose layers stay on floats: weights stored, activations rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.support.graphs import GraphBuilder
from tests.support.quantized import QuantizedBuilder
from tests.targets.litert.case import Case, accumulated, noise, seeded

__all__ = ["CASES"]

# One step of a quantizer whose numbers reach 110 of them: engines may differ at a tie.
STEP = 1 / 110


def _quantized(g: GraphBuilder) -> QuantizedBuilder:
    if not isinstance(g, QuantizedBuilder):
        raise TypeError("these cases need a QuantizedBuilder")
    return g


def _round_trip(g: GraphBuilder, dtype: Any, zero: int) -> Sequence[str]:
    q = _quantized(g)
    return [q.pair(q.input("x", (2, 3, 4)), (0.03, zero), dtype)]


def _moved(g: GraphBuilder) -> Sequence[str]:
    """Layout operators on codes."""
    q = _quantized(g)
    codes = q.quantize(q.input("x", (1, 4, 6, 6)), (0.03, 5))
    turned = q.op("Transpose", codes, perm=[0, 2, 3, 1])
    flat = q.op("Reshape", turned, q.ints([1, 36, 4]))
    parts = [f"part{i}" for i in range(2)]
    q.op("Split", flat, q.ints([18, 18]), out=parts, axis=1)
    joined = q.op("Concat", *reversed(parts), axis=1)
    cut = q.op("Slice", joined, q.ints([3]), q.ints([30]), q.ints([1]), q.ints([1]))
    chosen = q.op("Gather", cut, q.ints([5, 2, 2, 9]), axis=1)
    zero = q.const(5, dtype=np.int8)
    padded = q.op("Pad", chosen, q.ints([0, 1, 0, 0, 2, 0]), zero, mode="constant")
    pool = q.op("MaxPool", codes, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0],
                dilations=[1, 1], ceil_mode=0)  # fmt: skip
    padded_pool = q.op("MaxPool", codes, kernel_shape=[3, 3], strides=[2, 2],
                       pads=[1, 1, 1, 1], dilations=[1, 1], ceil_mode=0)  # fmt: skip
    values = (padded, pool, padded_pool)
    return [q.dequantize(v, (0.03, 5)) for v in values]


def _linear(g: GraphBuilder, bits: int, scales: bool) -> Sequence[str]:
    q = _quantized(g)
    x = q.input("x", (2, 5, 12))
    if scales:
        weight = q.stored((12, 8), 1, bits=bits)
    else:
        weight = q.weight(np.arange(96).reshape(12, 8) - 48, 0.02, 1)
    return [q.op("Add", q.op("MatMul", x, weight), q.const(noise(8)))]


def _conv(g: GraphBuilder, groups: int, bits: int) -> Sequence[str]:
    q = _quantized(g)
    x = q.input("x", (1, 6, 7, 5))
    weight = q.stored((6, 6 // groups, 3, 3), 0, bits=bits)
    return [
        q.op("Conv", x, weight, q.const(noise(6)), kernel_shape=[3, 3], strides=[1, 1],
             pads=[1] * 4, dilations=[1, 1], group=groups),
    ]  # fmt: skip


def _conv_transpose(g: GraphBuilder) -> Sequence[str]:
    q = _quantized(g)
    x = q.input("x", (1, 4, 5, 5))
    weight = q.stored((4, 3, 2, 2), 1)
    return [
        q.op("ConvTranspose", x, weight, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4,
             dilations=[1, 1], group=1, output_padding=[0, 0]),
    ]  # fmt: skip


def _stored_table(g: GraphBuilder) -> Sequence[str]:
    """A stored constant that an operator on floats adds."""
    q = _quantized(g)
    table = q.stored((1, 7, 6), 2)
    return [q.op("Add", q.input("x", (2, 7, 6)), table)]


def _both_readers(g: GraphBuilder) -> Sequence[str]:
    """A layer on codes and a sum on floats read the same dequantizer."""
    q = _quantized(g)
    x = q.pair(q.input("x", (1, 5, 12)), (0.03, 0))
    product = q.op("MatMul", x, q.stored((12, 12), 1))
    return [q.op("Add", q.pair(product, (0.2, 3)), x)]


CASES = {
    "quantize-int8": Case(seeded(_round_trip, np.int8, -7), STEP),
    "quantize-uint8": Case(seeded(_round_trip, np.uint8, 121), STEP),
    "quantize-int16": Case(seeded(_round_trip, np.int16, 0), STEP),
    "moved-codes": Case(_moved, STEP),
    "linear-int8-weight": Case(seeded(_linear, 8, True), accumulated(13)),
    "linear-one-scale": Case(seeded(_linear, 8, False), accumulated(13)),
    "linear-int4-weight": Case(seeded(_linear, 4, True), accumulated(13)),
    "conv-int8-weight": Case(seeded(_conv, 1, 8), accumulated(55)),
    "conv-int4-weight": Case(seeded(_conv, 1, 4), accumulated(55)),
    "depthwise-int8-weight": Case(seeded(_conv, 6, 8), accumulated(10)),
    "grouped-int8-weight": Case(seeded(_conv, 2, 8), accumulated(28)),
    "conv-transpose-int8-weight": Case(_conv_transpose, accumulated(5)),
    "stored-table": Case(_stored_table, accumulated(2)),
    "codes-and-floats": Case(_both_readers, STEP),
}
