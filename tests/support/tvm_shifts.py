"""Shift and addition kernels on random operands, with what int64 says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels import codes, matadd, shifts
from edgevit.targets.tvm.kernels.arithmetic import QUAD
from edgevit.targets.tvm.kernels.codes import Codes, dot_codes, pack_codes, panels
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.counts import BinaryDot, pack_words
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import Kernel, load, store
from edgevit.targets.tvm.kernels.matadd import MaskedAdd, MaskedDot, pack_bits
from edgevit.targets.tvm.kernels.shifts import shift_codes
from edgevit.targets.tvm.machine import Machine

__all__ = [
    "ADDITIONS",
    "CODE_MUTANTS",
    "FORMS",
    "MASK_MUTANTS",
    "addition",
    "form",
    "product",
    "random_parts",
]

Array = np.ndarray[Any, Any]
Case = tuple[Kernel, list[Array], Array]
Mutants = tuple[Callable[[pytest.MonkeyPatch], None], ...]
# Name -> terms, wide, whether the dot products of bytes multiply.
FORMS = {
    "1 term, decoded": (1, False, True),
    "2 terms, decoded": (2, False, True),
    "3 terms, decoded": (3, False, True),
    "1 term, shifted": (1, False, False),
    "2 terms, shifted": (2, False, False),
    "1 wide term, shifted": (1, True, False),
    "2 wide terms, shifted": (2, True, False),
}
ADDITIONS = ("float", "bytes", "bits")


def form(name: str, machine: Machine) -> Codes:
    """How a kernel of a form multiplies."""
    terms, wide, dot = FORMS[name]
    return dot_codes(machine, terms) if dot else shift_codes(machine, terms, wide)


def random_parts(rng: np.random.Generator, terms: int, wide: bool, *shape: int) -> Array:
    """Signed terms [terms, *shape]; sums of narrow ones stay within int8."""
    most = 15 if wide else 8 - terms
    size = (1 << rng.integers(0, most, (terms, *shape), endpoint=True)) >> 1
    return np.asarray(size * rng.choice([-1, 1], size.shape))


def product(machine: Machine, name: str, shape: tuple[int, int, int], zero: int = 7) -> Case:
    """A matrix product of [M, K] bytes with codes [K, N]: kernel, operands, exact sums."""
    (m, n, k), (terms, wide, _) = shape, FORMS[name]
    rng, kind = np.random.default_rng([m, n, k]), form(name, machine)
    deep, columns = -(-k // QUAD) * QUAD, panels(n, machine)
    limits = np.iinfo(kind.left)
    a = rng.integers(limits.min, limits.max, (m, deep), kind.left, endpoint=True)
    parts = random_parts(rng, terms, wide, k, n)
    packed, offsets = pack_codes(parts, zero, columns, kind)
    exact = (a[:, :k].astype(np.int64) - zero) @ parts.sum(0)
    scale = rng.uniform(0.5, 2, n).astype(np.float32)
    kernel = Gemm(m, deep, columns, deep, n, Epilogue(scale=True), kind)
    # int32 sums become the nearest float32, and are scaled: one rounding each.
    return kernel, [a, packed, offsets, scale], exact.astype(np.float32) * scale


def addition(machine: Machine, name: str, shape: tuple[int, int, int, int]) -> Case:
    """A product of bits [B, K, M] with floats, bytes or bits [B, K, N], exact in each."""
    b, m, n, k = shape
    rng = np.random.default_rng([b, m, n, k])
    bits = rng.random((b, k, m)) < 0.5
    if name == "bits":
        other = rng.random((b, k, n)) < 0.5
        words = np.ascontiguousarray(pack_words(other.swapaxes(1, 2)).swapaxes(1, 2))
        left = pack_words(bits.swapaxes(1, 2))
        kernel: Kernel = BinaryDot(b, m, Columns(n, machine.lanes, 2), left.shape[-1])
        return kernel, [left, words], _summed(bits, other)
    if name == "bytes":
        whole = rng.integers(-128, 127, (b, k, n), np.int8, endpoint=True)
        return MaskedDot(machine, b, m, n, k), [pack_bits(bits), whole], _summed(bits, whole)
    # Whole numbers this small are added exactly in float32.
    v = rng.integers(-1000, 1000, (b, k, n)).astype(np.float32)
    return MaskedAdd(machine, b, m, n, k), [pack_bits(bits), v], _summed(bits, v)


def _summed(bits: Array, other: Array) -> Array:
    return np.asarray(np.einsum("bkm,bkn->bmn", bits.astype(np.int64), other.astype(np.int64)))


def ignore_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sign bit is not looked at."""
    table = (*codes._TABLE[:8], *codes._TABLE[:8])
    monkeypatch.setattr(codes, "_TABLE", table)
    code = shifts.ShiftCodes._code

    def mutant(self: Any, words: Any, signs: Any, *where: Any) -> Any:
        count, sign = code(self, words, signs, *where)
        return count, sign - sign

    monkeypatch.setattr(shifts.ShiftCodes, "_code", mutant)


def shift_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every term is twice as large."""
    table = tuple(v * 2 if abs(v) < 64 else v for v in codes._TABLE)
    monkeypatch.setattr(codes, "_TABLE", table)
    count = shifts.ShiftCodes._count
    monkeypatch.setattr(
        shifts.ShiftCodes,
        "_count",
        lambda self, m, lanes: count(self, m + shifts._number(1, lanes), lanes),
    )


def swap_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both vectors of a byte's codes read its low half."""
    read, code = codes._bytes, shifts.ShiftCodes._code
    monkeypatch.setattr(codes, "_bytes", lambda c, b, at, v, wide: read(c, b, at, 0, wide))
    monkeypatch.setattr(
        shifts.ShiftCodes,
        "_code",
        lambda self, w, s, j, v, lanes: code(self, w, s, j, 0, lanes),
    )


def add_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are read the wrong way round."""
    mask, ones = MaskedAdd._mask, MaskedDot._ones
    monkeypatch.setattr(MaskedAdd, "_mask", lambda self, *at: tirx.Not(mask(self, *at)))

    def mutant(self: Any, *at: Any) -> Any:
        return tirx.const(1, "uint8") - ones(self, *at)

    monkeypatch.setattr(MaskedDot, "_ones", mutant)


def start_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are not cleared."""
    sums = matadd._Masked._sums

    def mutant(self: Any, dtype: str) -> Any:
        found = sums(self, dtype)
        for one in found:
            value = load(one, 0, self.lanes)
            store(one, 0, value + tirx.const(1, dtype), self.lanes)
        return found

    monkeypatch.setattr(matadd._Masked, "_sums", mutant)


def drop_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block of columns is forgotten."""
    blocks = matadd._Masked._blocks

    def mutant(self: Any, write: Any) -> None:
        def most(group: Any, half: int, first: Any) -> None:
            with T.If(first + self.width < self.columns), T.Then():
                write(group, half, first)

        blocks(self, most)

    monkeypatch.setattr(matadd._Masked, "_blocks", mutant)


CODE_MUTANTS: Mutants = (ignore_signs, shift_more, swap_halves)
MASK_MUTANTS: Mutants = (add_elsewhere, start_at_one, drop_columns)
