"""Our kernels of one product each, on seeded operands, to be timed side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgevit.shift_codes import encode, levels, unpack
from edgevit.targets.tvm.kernels.arithmetic import integer, pack_integers
from edgevit.targets.tvm.kernels.codes import Codes, dot_codes, pack_codes, panels
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.counts import BinaryDot, pack_words
from edgevit.targets.tvm.kernels.epilogue import Epilogue, Quantize
from edgevit.targets.tvm.kernels.gemm import Gemm, layout, pack_b
from edgevit.targets.tvm.kernels.matadd import MaskedAdd, MaskedDot, pack_bits
from edgevit.targets.tvm.kernels.shifts import shift_codes
from edgevit.targets.tvm.machine import Machine, native
from edgevit.targets.tvm.single import Single

__all__ = ["additions", "codes", "multiplied", "products"]

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
_QUAD = 4
_ZERO = 128


def products(rows: int, depth: int, columns: int) -> Mapping[str, Call]:
    """Name -> one call of [rows, depth] times constant [depth, columns].

    Float32 stays float32; everything else is bytes that become bytes.
    """
    machine = native()
    found: dict[str, Call] = {
        "float32, ours": _float32(rows, depth, columns, machine),
        "int8, ours": multiplied(rows, depth, columns, machine),
    }
    for terms in (1, 2):
        name = f"shift codes, {terms} term{'s' * (terms > 1)}"
        if integer(machine).group == _QUAD:
            kind = dot_codes(machine, terms)
            found[name] = codes(rows, depth, columns, kind, machine)
    shifted = shift_codes(machine, 1, wide=False)
    found["shifts and additions, 1 term"] = codes(rows, depth, columns, shifted, machine)
    return found


def additions(
    batch: int, rows: int, columns: int, depth: int, machine: Machine | None = None
) -> Mapping[str, Call]:
    """Name -> one call: zeros and ones [batch, depth, rows]^T, [batch, depth, columns]."""
    machine = machine or native()
    rng = np.random.default_rng(0)
    bits = rng.random((batch, depth, rows)) < 0.5
    floats = rng.standard_normal((batch, depth, columns), np.float32)
    whole = rng.integers(-128, 127, (batch, depth, columns), np.int8)
    other = rng.random((batch, depth, columns)) < 0.5
    left = pack_words(bits.swapaxes(1, 2))
    right = np.ascontiguousarray(pack_words(other.swapaxes(1, 2)).swapaxes(1, 2))
    shape = (machine, batch, rows, columns, depth)
    counted = BinaryDot(batch, rows, Columns(columns, machine.lanes, 2), left.shape[-1])
    return {
        "masked additions, float32": Single(
            MaskedAdd(*shape), machine, [pack_bits(bits), floats]
        ),
        "masked dot products, int8": Single(
            MaskedDot(*shape), machine, [pack_bits(bits), whole]
        ),
        "bits counted": Single(counted, machine, [left, right]),
    }


def _float32(rows: int, depth: int, columns: int, machine: Machine) -> Call:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, depth), np.float32)
    b = rng.standard_normal((depth, columns), np.float32)
    kernel = Gemm(rows, depth, layout(columns, machine), depth, columns)
    return Single(kernel, machine, [a, pack_b(b, machine)])


def _requantized(depth: int) -> tuple[Epilogue, float]:
    """What follows the sums, and a scale with which bytes fill their range."""
    after = Epilogue(scale=True, quantize=Quantize(1.0, _ZERO, "uint8"))
    return after, float(100 / (148 * 73 * np.sqrt(depth)))


def _bytes(rows: int, depth: int, dtype: str) -> Array:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    return rng.integers(limits.min, limits.max, (rows, depth), dtype, endpoint=True)


def multiplied(rows: int, depth: int, columns: int, machine: Machine) -> Call:
    """The int8 product."""
    deep, kind = depth + -depth % _QUAD, integer(machine)
    dealt = layout(columns, machine)
    after, scale = _requantized(depth)
    weights = np.random.default_rng(1).integers(-127, 127, (deep, columns), np.int8)
    packed, offsets = pack_integers(weights, _ZERO, dealt, kind)
    kernel = Gemm(rows, deep, dealt, deep, columns, after, kind)
    scales = np.full(columns, scale, np.float32)
    return Single(kernel, machine, [_bytes(rows, deep, kind.left), packed, offsets, scales])


def codes(rows: int, depth: int, columns: int, kind: Codes, machine: Machine) -> Call:
    """The product with packed codes, multiplied as ``kind`` says."""
    deep, dealt = depth + -depth % _QUAD, panels(columns, machine)
    after, scale = _requantized(depth)
    rng = np.random.default_rng(1)
    q = rng.choice(levels(kind.terms), (depth, columns))
    packed, offsets = pack_codes(unpack(encode(q, kind.terms)), _ZERO, dealt, kind)
    kernel = Gemm(rows, deep, dealt, deep, columns, after, kind)
    scales = np.full(columns, scale, np.float32)
    return Single(kernel, machine, [_bytes(rows, deep, kind.left), packed, offsets, scales])
