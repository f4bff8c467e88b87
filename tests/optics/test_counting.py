"""Counts drawn by vector operations have the distributions of the textbook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from edgevit.sim4f.camera import Camera
from edgevit.sim4f.counting import (
    EXPANDED_FROM,
    counts,
    dim_counts,
    electrons,
    normals,
)

Array = np.ndarray[Any, Any]
# A Kolmogorov-Smirnov test of 200,000 samples sees 5e-3 at the level of 1e-4.
SAMPLES = 200_000


def expansion_error(mean: float, made: Any = counts) -> float:
    """Largest error of the distribution function, found without any random number."""
    z = np.linspace(-6, 6, 200_001, dtype=np.float32)
    drawn = made(np.full(z.shape, mean, np.float32), z)
    ks = np.arange(int(mean - 6 * mean**0.5), int(mean + 6 * mean**0.5))
    first_above = np.searchsorted(drawn, ks, side="right")
    inner = (first_above > 0) & (first_above < len(z))
    found = stats.norm.cdf(z[first_above[inner]])
    return float(np.abs(found - stats.poisson.cdf(ks[inner], mean)).max())


@pytest.mark.parametrize("mean", [EXPANDED_FROM, 11.3, 40.0, 317.0, 999.0])
def test_the_expansion_is_poissons_distribution(mean: float) -> None:
    # 4e-4 is the expansion's own error at a mean of 8; the grid of z adds 2.4e-5.
    assert expansion_error(mean) < 4.3e-4


def test_a_normal_approximation_would_be_noticed() -> None:
    def rounded(mean: Array, z: Array) -> Array:
        return np.asarray(np.rint(mean + np.sqrt(mean) * z))

    assert expansion_error(40.0, rounded) > 5e-3


@pytest.mark.parametrize("mean", [0.01, 0.7, 3.0, 7.9])
def test_dim_counts_are_poisson(mean: float) -> None:
    """Each uniform number is placed exactly: no statistics are needed."""
    u = ((np.arange(100_000) + 0.5) / 100_000).astype(np.float32)
    drawn = dim_counts(np.full(u.shape, mean, np.float32), u)
    # Twenty rounded terms of float32.
    inner = np.abs(stats.poisson.cdf(drawn, mean) - u) > 3e-6
    outer = np.abs(stats.poisson.cdf(drawn - 1, mean) - u) > 3e-6
    expected = stats.poisson.ppf(u.astype(float), mean)
    assert np.array_equal(drawn[inner & outer], expected[inner & outer])


def test_normal_deviates_are_normal_and_independent() -> None:
    z = normals(np.random.default_rng(5), SAMPLES + 1)
    assert z.shape == (SAMPLES + 1,)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    half = len(z) // 2
    # Both come from one radius: squares too must not be correlated (4 sigma).
    for power in (1, 2):
        pair = np.corrcoef(z[:half] ** power, z[half : 2 * half] ** power)[0, 1]
        assert abs(pair) < 4 / half**0.5
    assert np.abs(z).max() > 3.9


@pytest.mark.parametrize("level", [2.0, 60.0, 990.0, 5000.0])
def test_electrons_have_the_moments_of_both_noises(level: float) -> None:
    rng = np.random.default_rng(int(level))
    mean = np.full(SAMPLES, level, np.float32)
    found = electrons(mean, Camera(read_noise=3.0), rng).astype(float)
    variance = level + 9
    assert abs(found.mean() - level) < 4 * (variance / SAMPLES) ** 0.5
    # The variance of a variance: kurtosis of a Poisson count adds at most 1 / level.
    assert abs(found.var() / variance - 1) < 4 * ((2 + 1 / level) / SAMPLES) ** 0.5


def test_bright_and_dim_pixels_side_by_side_keep_their_places() -> None:
    mean = np.tile(np.array([0.0, 5.0, 300.0, 1e6], np.float32), 500)
    found = electrons(mean, Camera(), np.random.default_rng(1)).reshape(-1, 4)
    assert np.array_equal(found[:, 0], np.zeros(500))
    assert np.abs(found.mean(axis=0)[1:] / [5, 300, 1e6] - 1).max() < 0.1


def test_equal_seeds_give_equal_counts() -> None:
    mean = np.linspace(0, 3000, 5000, dtype=np.float32)
    first, again = (electrons(mean, Camera(), np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first, again)
