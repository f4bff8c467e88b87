"""Disturbances have the statistics that they are named after."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from edgevit.sim4f.disturb import background, flicker, laser_factors
from edgevit.sim4f.errors import ParameterError


def test_laser_noise_is_common_to_a_frame() -> None:
    factors = laser_factors(0.02, 100_000, np.random.default_rng(1))
    assert factors.std() == pytest.approx(0.02, rel=0.02)
    assert factors.mean() == pytest.approx(1, abs=5 * 0.02 / np.sqrt(100_000))


def test_speckle_intensity_is_exponential() -> None:
    field = background((300, 301), 2.5, np.random.default_rng(2))
    intensity = (np.abs(field) ** 2).ravel()
    assert kstest(intensity, "expon", args=(0, 2.5)).pvalue > 1e-3
    assert kstest(intensity, "expon", args=(0, 2.6)).pvalue < 1e-3
    assert not background((3, 3), 0.0, np.random.default_rng(2)).any()


def test_flicker_keeps_the_modulus() -> None:
    rng = np.random.default_rng(3)
    phases = [np.angle(flicker((2, 2), 0.1, rng)[0, 0]) for _ in range(20_000)]
    assert np.std(phases) == pytest.approx(0.1, rel=0.03)
    assert np.abs(flicker((4, 5), 0.3, rng)) == pytest.approx(np.ones((4, 5)))


def test_impossible_disturbances_are_refused() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(ParameterError, match="rin: expected 0 <= rin"):
        laser_factors(0.5, 3, rng)
    with pytest.raises(ParameterError, match="background"):
        background((2, 2), -1.0, rng)
    with pytest.raises(ParameterError, match="flicker"):
        flicker((2, 2), -1.0, rng)
