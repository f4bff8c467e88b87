"""Rounding, sums and the error function, against closed forms and slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.runtimes.mil.arithmetic import BLOCK, contract, round_half, total
from edgevit.runtimes.mil.erf import erf
from edgevit.runtimes.mil.spec import Array

F = np.float32


def _by_numpy(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(np.float16).astype(F)


def _same_bits(a: Array, b: Array) -> bool:
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | nan))


def test_round_half_on_all_float16_numbers_and_the_ties_between_them() -> None:
    exact = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(F)
    with np.errstate(all="ignore"):
        ties = ((exact[:-1].astype(float) + exact[1:]) / 2).astype(F)
        beside = [np.nextafter(ties, F(s) * np.inf) for s in (1, -1)]
        for x in (exact, ties, *beside):
            assert _same_bits(round_half(x), _by_numpy(x))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_round_half_on_any_bits(bits: list[int]) -> None:
    x = np.array(bits, dtype=np.uint32).view(F)
    with np.errstate(all="ignore"):
        assert _same_bits(round_half(x), _by_numpy(x))


@pytest.mark.parametrize("share", [0.001, 0.5, 1.0])
def test_round_half_on_many_subnormals(share: float) -> None:
    rng = np.random.default_rng(9)
    tiny = rng.uniform(-(2.0**-14), 2.0**-14, 5000)
    ties = rng.integers(-1024, 1024, 5000) * 2.0**-24 + 2.0**-25
    picked = np.where(rng.random(5000) < 0.5, tiny, ties)
    x = np.where(rng.random(5000) < share, picked, rng.standard_normal(5000)).astype(F)
    x[:10] = [0.0, -0.0] * 5
    assert _same_bits(round_half(x), _by_numpy(x))


def test_a_dot_product_that_float16_sums_cannot_form() -> None:
    # 2048 ones: 2048 + 1 is not a float16, so sums of blocks of 16 still grow, but a term
    # below half the spacing is lost. 1024 + 16 blocks of 16 * 2^-6 = 0.25, spacing 1: stuck.
    a = np.full((1, 17 * BLOCK), F(2.0**-6))
    a[0, 0] = 1024
    b = np.ones((17 * BLOCK, 1), F)
    exact = 1024 + (17 * BLOCK - 1) * 2.0**-6
    assert contract(a, b, half=False)[0, 0] == F(exact)
    assert contract(a, b, half=True)[0, 0] == 1024.0
    assert round_half(np.array([exact], F))[0] == 1028.0


def test_blocks_are_summed_in_float32() -> None:
    # in one block of 16 terms a single rounding is left
    a = np.full((1, BLOCK), F(2.0**-6))
    a[0, 0] = 1024
    want = F(np.float16(1024 + 15 * 2.0**-6))
    assert contract(a, np.ones((BLOCK, 1), F), half=True)[0, 0] == want


def test_half_sums_follow_the_stated_recurrence() -> None:
    rng = np.random.default_rng(3)
    x = _by_numpy(rng.standard_normal((4, 5, 9)).astype(F) * 50)
    got = total(x, (0, 2), keepdims=True, half=True)
    for j in range(5):
        terms = x[:, j].reshape(-1)
        running = F(0)
        for start in range(0, terms.size, BLOCK):
            running = F(np.float16(running + terms[start : start + BLOCK].sum()))
        assert got[0, j, 0] == running
    assert not np.array_equal(got, total(x, (0, 2), keepdims=True, half=False))


def test_sums_overflow_in_float16_only() -> None:
    x = np.full((1, 64), F(2048))
    assert total(x, (1,), keepdims=False, half=False)[0] == 131072
    assert total(x, (1,), keepdims=False, half=True)[0] == np.inf


def test_erf_agrees_with_the_standard_library() -> None:
    x = np.concatenate([np.linspace(-6.5, 6.5, 20001), np.logspace(-300, 0, 400), [0.0]])
    want = np.array([math.erf(v) for v in x])
    got = erf(x)
    worst = np.abs(got - want)[want != 0] / np.abs(want[want != 0])
    assert worst.max() < 5e-16
    assert got[-1] == 0.0


# Two roundings of a sum near the result, and one of the tabled value: 1.5 ULPs, of which
# one is 2 ** -23 of the result at most.
ERF_SINGLE = 1.6 * 2.0**-23


def _single_errors(factor: float) -> Array:
    rng = np.random.default_rng(3)
    grid = np.arange(-6 * 128, 6 * 128 + 1) / 128  # the points and the middles between them
    x = np.concatenate([rng.uniform(-5, 5, 40_000), grid, rng.uniform(-1e-3, 1e-3, 4_000)])
    x = x[x != 0].astype(F)
    want = np.array([math.erf(float(v)) for v in x])
    error: Array = np.abs(erf(x).astype(np.float64) * factor - want) / np.abs(want)
    return error


def test_erf_of_float32_is_within_two_units() -> None:
    assert _single_errors(1.0).max() <= ERF_SINGLE
    assert erf(np.zeros(3, F)).dtype == F


@pytest.mark.parametrize("factor", [1 + 2e-7, 1 - 2e-7])
def test_the_limit_rejects_a_slightly_wrong_erf_of_float32(factor: float) -> None:
    assert _single_errors(factor).max() > ERF_SINGLE


def test_erf_at_infinity_and_of_nan() -> None:
    got = erf(np.array([np.inf, -np.inf, np.nan, -0.0], F))
    assert got[0] == 1
    assert got[1] == -1
    assert np.isnan(got[2])
    assert math.copysign(1, got[3]) == -1


@pytest.mark.parametrize("factor", [1.000001, 0.999999])
def test_the_limit_rejects_a_slightly_wrong_erf(factor: float) -> None:
    x = np.linspace(0.1, 3, 100)
    want = np.array([math.erf(v) for v in x])
    assert (np.abs(erf(x) * factor - want) / want).max() > 5e-16


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sum_is_as_exact_along_each_axis(axis: int) -> None:
    """Pairwise sums: blocks of 128 in 8 lanes, then log2 of the blocks (Higham 4.2)."""
    terms = 20000
    x = np.full([terms if i == axis else 3 for i in range(3)], 0.1, F)
    exact = terms * float(F(0.1))
    limit = (128 / 8 + 3 + math.log2(terms / 128)) * 2.0**-24
    worst = np.abs(total(x, (axis,), keepdims=False, half=False) - exact).max() / exact
    assert worst <= limit
    # The mutant: one term after another.
    assert abs(float(np.cumsum(x.ravel()[:1].repeat(terms))[-1]) - exact) / exact > limit
