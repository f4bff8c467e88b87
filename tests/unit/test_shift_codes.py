"""Sums of signed powers of two: their law, their packing, their limits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.shift_codes import (
    NARROW_LIMIT,
    Packed,
    decode,
    encode,
    greedy,
    levels,
    limit,
    nearest,
    octaves,
    pack,
    split,
    unpack,
)

Array = np.ndarray[Any, Any]
FORMS = [(t, w) for t in (1, 2, 3) for w in (False, True)]


def brute(terms: int, wide: bool) -> set[int]:
    """Every sum of so many terms that the form can say, by trying all of them."""
    powers = [2**i for i in range(15 if wide else 7)]
    digits = [0, *powers, *[-p for p in powers]]
    sums = {sum(c) for c in itertools.product(digits, repeat=terms)}
    return {s for s in sums if abs(s) <= (32767 if wide else 127)}


@pytest.mark.parametrize(("terms", "wide"), FORMS)
def test_levels_are_all_the_sums(terms: int, wide: bool) -> None:
    assert set(levels(terms, wide).tolist()) == brute(terms, wide)


@pytest.mark.parametrize(("terms", "wide"), FORMS)
def test_nearest_is_the_nearest_of_all(terms: int, wide: bool) -> None:
    values = np.random.default_rng(0).normal(size=400) * limit(wide) / 2
    known = np.array(sorted(brute(terms, wide)))
    best = np.abs(values[:, None] - known).min(axis=1)
    assert np.array_equal(np.abs(values - nearest(values, terms, wide)), best)
    assert np.all(np.abs(values - greedy(values, terms, wide)) >= best)


def logarithmic(values: Array, terms: int) -> Array:
    """Terms one after the other, each rounded in the logarithm, as in DeepShift."""
    left, total = values.copy(), np.zeros(values.shape)
    for _ in range(terms):
        size = np.maximum(np.abs(left), 2.0**-60)
        term = np.sign(left) * 2.0 ** np.rint(np.log2(size))
        total, left = total + term, left - term
    return total


def ratio_db(true: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(true).sum() / np.square(true - found).sum()))


@pytest.mark.parametrize(("terms", "law"), [(1, 14.0), (2, 28.0), (3, 42.6)])
@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_each_term_buys_the_same(terms: int, law: float, kind: str) -> None:
    """The law of rounding in the logarithm; the nearest sums are .1 to .6 dB better.

    Nothing is clipped: half the range for one term, three quarters for more.
    """
    weight = getattr(np.random.default_rng(1), kind)(size=(768, 768))
    top = 16384 if terms == 1 else 24576
    scale = 2.0 ** np.ceil(np.log2(np.abs(weight).max(axis=0) / top))
    assert abs(ratio_db(weight, logarithmic(weight, terms)) - law) < 0.5
    found = ratio_db(weight, scale * nearest(weight / scale, terms, wide=True))
    assert 0 < found - ratio_db(weight, logarithmic(weight, terms)) < 1
    assert abs(found - 14.4 * terms) < 0.5


@given(
    st.integers(1, 3), st.booleans(), st.integers(1, 19), st.integers(1, 5),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_packing_round_trips(
    terms: int, wide: bool, inputs: int, outputs: int, seed: int
) -> None:
    q = np.random.default_rng(seed).choice(levels(terms, wide), (inputs, outputs))
    packed = encode(q, terms, wide)
    assert packed.codes.shape == (terms, (inputs + 1) // 2, outputs)
    assert packed.wide is wide
    assert packed.bits == terms * (5 if wide else 4)
    assert np.array_equal(decode(packed), q)


def test_a_byte_holds_even_inputs_in_its_low_half() -> None:
    narrow = encode(np.array([[5], [-64], [0]]), 2)
    # 5 = 4 + 1: m = 3, 1; -64: m = 7 with the sign in bit 3; the last half is filled up.
    assert narrow.codes[:, :, 0].tolist() == [[3 | (15 << 4), 0], [1, 0]]
    wide = encode(np.array([[256], [-4]]), 1, wide=True)
    assert wide.codes[:, :, 0].tolist() == [[9 | (3 << 4)]]
    assert wide.signs is not None
    assert wide.signs[:, :, 0].tolist() == [[0b10]]


def test_terms_are_signed_powers_largest_first() -> None:
    q = levels(3)
    parts = split(q, 3)
    assert np.array_equal(parts.sum(axis=0), q)
    size = np.abs(parts)
    assert np.all(size[:-1] >= size[1:])
    assert np.all((size & (size - 1)) == 0)
    assert size.max() == 1 << (octaves(wide=False) - 1)


def test_what_terms_cannot_say_is_refused() -> None:
    with pytest.raises(InputError, match=r"11 is no sum of 2 .* 1 of 2 weights"):
        encode(np.array([[11], [3]]), 2)
    with pytest.raises(InputError, match="no sum of 1"):
        encode(np.array([[128]]), 1)
    with pytest.raises(InputError, match="1 to 3 shift terms, found 4"):
        levels(4)
    with pytest.raises(InputError, match="no power of two within 64"):
        pack(np.array([[[128]]]))
    with pytest.raises(InputError, match="no power of two"):
        pack(np.array([[[3]]]))


def test_damaged_codes_are_refused() -> None:
    sixty_four_twice = Packed(np.full((2, 1, 1), 7, np.uint8), None, 1)
    with pytest.raises(InputError, match=f"is 128, beyond {NARROW_LIMIT}"):
        decode(sixty_four_twice)
    short = Packed(np.zeros((1, 1, 2), np.uint8), None, 3)
    with pytest.raises(InputError, match=r"uint8 \[terms, 2, N\], found uint8 \[1, 1, 2\]"):
        unpack(short)
    unsigned = Packed(np.zeros((1, 5, 2), np.uint8), np.zeros((1, 1, 2), np.uint8), 9)
    with pytest.raises(InputError, match=r"\[1, 2, 2\], found"):
        unpack(unsigned)


def test_greedy_stays_within_the_limit() -> None:
    values = np.linspace(-300, 300, 601)
    for terms in (1, 2, 3):
        found = greedy(values, terms)
        assert np.abs(found).max() <= NARROW_LIMIT
        assert set(found.tolist()) <= brute(terms, wide=False)
