"""Sums of signed powers of two, and how they are packed: numpy only.

A weight of ``k`` terms is ``q = sum over t of sign_t 2^(m_t - 1)``, where ``m_t = 0`` is no
term at all: a product with it is ``k`` shifts and additions (DeepShift, arXiv 1905.13298, for
``k = 1``; ShiftAddViT, arXiv 2306.06446). Shifts go to the left only: a right shift drops bits
and is not a product.

===========  =============================  ==========================================
form         bits a term                    stored as
===========  =============================  ==========================================
narrow       4: sign, ``m`` of 3 bits       ``codes``: sign in bit 3, ``m`` in bits 0 to 2
wide         5: ``m`` of 4 bits, sign       ``codes``: ``m``; ``signs``: a bit each
===========  =============================  ==========================================

``codes`` is uint8 ``[terms, ceil(K / 2), N]`` for a weight ``[K, N]``: the low half of a byte
is an even k, the high half the odd one behind it. ``signs`` is uint8 ``[terms, ceil(K / 8),
N]``: bit ``k % 8`` of byte ``k // 8``; 1 is negative. What fills up the last byte is zero.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgevit.errors import InputError

__all__ = [
    "FUNCTIONS",
    "MOST_TERMS",
    "NARROW_LIMIT",
    "WIDE_LIMIT",
    "Packed",
    "decode",
    "encode",
    "fewest",
    "greedy",
    "levels",
    "limit",
    "nearest",
    "octaves",
    "on_grid",
    "pack",
    "split",
    "unpack",
]

Array = np.ndarray[Any, Any]
MOST_TERMS = 3
# Functions whose weights are such codes (domain ai.edgevit).
FUNCTIONS = frozenset({"ShiftConv", "ShiftLinear", "WideShiftConv", "WideShiftLinear"})
# Sums must fit the integer dtype that engines multiply with: int8, int16.
NARROW_LIMIT, WIDE_LIMIT = 127, 32767
_NARROW_OCTAVES, _WIDE_OCTAVES = 7, 15
# Bits of a float32 mantissa; smallest exponent of a scale that kernels divide by; none.
_MANTISSA, _LEAST_UNIT, _NO_UNIT = 24, -102, 1 << 20


@dataclass(frozen=True, eq=False)
class Packed:
    """Codes of a weight matrix.

    Attributes:
        codes: uint8 ``[terms, ceil(K / 2), N]``.
        signs: uint8 ``[terms, ceil(K / 8), N]`` of the wide form, else ``None``.
        inputs: K.
    """

    codes: Array
    signs: Array | None
    inputs: int

    @property
    def terms(self) -> int:
        """Number of terms of a weight."""
        return int(self.codes.shape[0])

    @property
    def wide(self) -> bool:
        """Whether terms have 5 bits."""
        return self.signs is not None

    @property
    def bits(self) -> int:
        """Bits of one weight."""
        return self.terms * (5 if self.wide else 4)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and signs."""
        return self.codes.nbytes + (0 if self.signs is None else self.signs.nbytes)


def octaves(wide: bool) -> int:
    """Magnitudes that a term can have besides zero: 1, 2, 4, ..."""
    return _WIDE_OCTAVES if wide else _NARROW_OCTAVES


def limit(wide: bool) -> int:
    """Largest magnitude of a sum of terms."""
    return WIDE_LIMIT if wide else NARROW_LIMIT


def _check(terms: int) -> None:
    if not 1 <= terms <= MOST_TERMS:
        raise InputError(f"a weight has 1 to {MOST_TERMS} shift terms, found {terms}")


@cache
def _table(terms: int, wide: bool) -> tuple[Array, Array]:
    """All sums within the limit, ascending, and the terms of each, ``[terms, sums]``.

    Of several ways to write a sum that with the fewest terms is kept, largest first.
    """
    powers = [1 << m for m in range(octaves(wide))]
    digits = [0, *powers, *(-p for p in powers)]
    digits.sort(key=lambda d: (-abs(d), d))
    found: dict[int, tuple[int, ...]] = {}
    for combined in itertools.combinations_with_replacement(digits, terms):
        total = sum(combined)
        if abs(total) > limit(wide):
            continue
        known = found.get(total)
        if known is None or known.count(0) < combined.count(0):
            found[total] = combined
    sums = np.array(sorted(found), np.int32)
    parts = np.array([found[int(s)] for s in sums], np.int32).T
    for array in (sums, parts):
        array.setflags(write=False)
    return sums, parts


def levels(terms: int, wide: bool = False) -> Array:
    """The integers that ``terms`` terms can say, int32, ascending, symmetric around zero."""
    _check(terms)
    return _table(terms, wide)[0]


def nearest(values: Array, terms: int, wide: bool = False) -> Array:
    """The nearest sum of terms; the smaller one of two at equal distance. int32.

    Args:
        values: Real numbers in units of the scale; not NaN.
        terms: 1 to 3.
        wide: Which form.
    """
    known = levels(terms, wide)
    middles = (known[1:].astype(np.float64) + known[:-1]) / 2
    return known[np.searchsorted(middles, values)]


def greedy(values: Array, terms: int, wide: bool = False) -> Array:
    """Terms chosen one after the other, each the nearest to what is left; their sum, int32.

    What DeepShift and its followers do. For one term it is ``nearest``; for more it can only
    be as good: a sum of two nearest powers need not be the nearest sum of two powers.
    """
    _check(terms)
    left = np.asarray(values, np.float64)
    total = np.zeros(left.shape, np.int32)
    for _ in range(terms):
        term = nearest(left, 1, wide)
        while np.any(over := np.abs(total + term) > limit(wide)):
            term = np.where(over, np.sign(term) * (np.abs(term) // 2), term)
        total += term
        left = left - term
    return total


def split(q: Array, terms: int, wide: bool = False) -> Array:
    """The signed terms of each integer, int32 ``[terms, *shape]``, largest first.

    Raises:
        InputError: An integer that so many terms cannot say.
    """
    _check(terms)
    known, parts = _table(terms, wide)
    at = np.minimum(np.searchsorted(known, q), len(known) - 1)
    if not np.array_equal(known[at], q):
        wrong = np.asarray(q)[known[at] != q]
        raise InputError(
            f"{int(wrong.flat[0])} is no sum of {terms} signed powers of two within "
            f"{limit(wide)}; {wrong.size} of {np.asarray(q).size} weights are not"
        )
    return np.asarray(parts[:, at])


def fewest(q: Array, most: int, wide: bool = False) -> int | None:
    """The fewest terms that say every one of these integers; ``None``: more than ``most``."""
    for terms in range(1, most + 1):
        if np.isin(q, levels(terms, wide)).all():
            return terms
    return None


def on_grid(weight: Array) -> tuple[Array, Array] | None:
    """The integers and powers of two that float32 weights ``[K, N]`` are, exactly.

    The scale of a column is the largest power of two that divides all of its numbers, 1 for a
    column of zeros.

    Returns:
        ``q``, int32 ``[K, N]``, and ``scale``, float32 ``[N]``, with ``q * scale == weight``;
        ``None`` where integers leave ``WIDE_LIMIT``, scales are smaller than kernels divide
        by, or a weight is not finite.
    """
    numbers = np.asarray(weight, np.float32).astype(np.float64)
    if not np.isfinite(numbers).all():
        return None
    mantissa, exponent = np.frexp(numbers)
    whole = np.ldexp(mantissa, _MANTISSA).astype(np.int64)
    lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    unit = np.where(whole != 0, exponent - _MANTISSA + lowest, _NO_UNIT).min(axis=0)
    unit[unit == _NO_UNIT] = 0
    q = np.ldexp(numbers, -unit)
    if np.abs(q).max(initial=0) > WIDE_LIMIT or unit.min(initial=0) < _LEAST_UNIT:
        return None
    return q.astype(np.int32), np.ldexp(1.0, unit).astype(np.float32)


def pack(parts: Array, wide: bool = False) -> Packed:
    """Pack signed terms ``[terms, K, N]``, each zero or a signed power of two.

    Raises:
        InputError: A term that is none, or is beyond the form's octaves.
    """
    size = np.abs(parts.astype(np.int64))
    m = np.where(size > 0, np.frexp(size.astype(np.float64))[1], 0)
    if np.any(size & (size - 1)) or np.any(m > octaves(wide)):
        raise InputError(
            f"a term is no power of two within {1 << (octaves(wide) - 1)}: "
            f"the largest found is {int(size.max(initial=0))}"
        )
    terms, inputs, outputs = parts.shape
    negative = (parts < 0).astype(np.uint8)
    code = m.astype(np.uint8) if wide else m.astype(np.uint8) | (negative << 3)
    halves = np.zeros((terms, -(-inputs // 2) * 2, outputs), np.uint8)
    halves[:, :inputs] = code
    codes = halves[:, 0::2] | (halves[:, 1::2] << 4)
    signs = np.packbits(negative, axis=1, bitorder="little") if wide else None
    return Packed(np.ascontiguousarray(codes), signs, inputs)


def unpack(packed: Packed) -> Array:
    """The signed terms, int32 ``[terms, K, N]``.

    Raises:
        InputError: The arrays have not the shapes of packed codes.
    """
    codes, signs, inputs = packed.codes, packed.signs, packed.inputs
    if codes.dtype != np.uint8 or codes.ndim != 3 or codes.shape[1] != -(-inputs // 2):
        raise InputError(
            f"shift codes of {inputs} inputs are uint8 [terms, {-(-inputs // 2)}, N], "
            f"found {codes.dtype} {list(codes.shape)}"
        )
    terms, _, outputs = codes.shape
    halves = np.stack([codes & 15, codes >> 4], axis=2).reshape(terms, -1, outputs)
    code = halves[:, :inputs].astype(np.int32)
    if signs is None:
        magnitude, negative = code & 7, code >> 3
    else:
        rows = -(-inputs // 8)
        if signs.dtype != np.uint8 or signs.shape != (terms, rows, outputs):
            raise InputError(
                f"signs of {inputs} inputs are uint8 [{terms}, {rows}, {outputs}], "
                f"found {signs.dtype} {list(signs.shape)}"
            )
        bits = np.unpackbits(signs, axis=1, bitorder="little")
        magnitude, negative = code, bits[:, :inputs].astype(np.int32)
    return np.asarray(((1 << magnitude) >> 1) * (1 - 2 * negative), np.int32)


def encode(q: Array, terms: int, wide: bool = False) -> Packed:
    """Pack integers ``[K, N]`` in so many terms.

    Raises:
        InputError: An integer that so many terms cannot say.
    """
    return pack(split(q, terms, wide), wide)


def decode(packed: Packed) -> Array:
    """The integers of packed codes, int32 ``[K, N]``.

    Raises:
        InputError: A sum of terms leaves the integers that engines multiply with.
    """
    total = unpack(packed).sum(axis=0, dtype=np.int32)
    most = int(np.abs(total).max(initial=0))
    if most > limit(packed.wide):
        raise InputError(f"a sum of shift terms is {most}, beyond {limit(packed.wide)}")
    return np.asarray(total)
