"""The camera against its statistics, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from edgevit.sim4f.camera import (
    PLANCK,
    SPEED_OF_LIGHT,
    Camera,
    detect,
    gain_map,
    photons,
)
from edgevit.sim4f.errors import ParameterError, SaturationError

N = 200_000


@pytest.mark.parametrize("mean", [0.5, 20.0, 3000.0])
def test_light_is_poisson(mean: float) -> None:
    """Mean within five standard errors; dispersion index within chi^2's 1e-6 tails."""
    rng = np.random.default_rng(1)
    counts = detect(np.full(N, mean), Camera(), 1.0, rng).electrons
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / N))
    dispersion = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    assert chi2.ppf(1e-6, N - 1) < dispersion < chi2.ppf(1 - 1e-6, N - 1)
    normal = mean + np.sqrt(2 * mean) * rng.standard_normal(N)
    doubled = ((normal - normal.mean()) ** 2).sum() / normal.mean()
    assert doubled > chi2.ppf(1 - 1e-6, N - 1)


def test_photon_transfer_curve() -> None:
    """Variance over mean in electrons: slope 1; intercept = read noise squared + ADC step."""
    rng = np.random.default_rng(2)
    camera = Camera(full_well=20_000, read_noise=6.0, adc_bits=12)
    means, variances = [], []
    for level in (50.0, 500.0, 2000.0, 8000.0):
        counts = detect(np.full(N, level), camera, 1.0, rng).electrons
        means.append(counts.mean())
        variances.append(counts.var())
    weights = 1 / np.array(variances)
    slope, intercept = np.polyfit(means, variances, 1, w=weights)
    assert slope == pytest.approx(1, abs=0.01)
    assert intercept == pytest.approx(36 + camera.step**2 / 12, rel=0.05)


def test_snr_at_full_well_is_its_root() -> None:
    rng = np.random.default_rng(3)
    camera = Camera(full_well=10_000)
    counts = detect(np.full(N, 9_400.0), camera, 1.0, rng).electrons
    assert counts.mean() / counts.std() == pytest.approx(np.sqrt(9_400), rel=0.01)


def test_converter_error_is_lsb_over_root_12() -> None:
    rng = np.random.default_rng(4)
    camera = Camera(full_well=10_000, adc_bits=8)
    light = rng.uniform(100, 9_900, N)
    error = detect(light, camera, 1.0, None).electrons - light
    assert error.std() == pytest.approx(camera.step / np.sqrt(12), rel=0.01)
    assert np.abs(error).max() <= camera.step / 2 * (1 + 1e-12)


def test_efficiency_and_dark_current() -> None:
    rng = np.random.default_rng(5)
    camera = Camera(quantum_efficiency=0.6, dark_current=40.0)
    counts = detect(np.full(N, 50.0), camera, 0.5, rng).electrons
    # The dark mean is taken off, its noise stays: variance 30 + 20.
    assert counts.mean() == pytest.approx(30, abs=5 * np.sqrt(50 / N))
    assert counts.var() == pytest.approx(50, rel=0.03)


def test_noise_off_is_exact() -> None:
    light = np.linspace(0, 100, 11)
    np.testing.assert_array_equal(detect(light, Camera(), 1.0, None).electrons, light)


def test_same_seed_same_picture() -> None:
    camera = Camera(full_well=1000, read_noise=2, adc_bits=10, nonuniformity=0.01)
    light = np.full((8, 9), 100.0)
    one, two, other = (
        detect(light, camera, 1.0, np.random.default_rng(s)).electrons for s in (6, 6, 7)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_gain_map_is_a_property_of_the_sensor() -> None:
    camera = Camera(nonuniformity=0.05)
    gains = gain_map(camera, (300, 301), np.random.default_rng(8))
    assert gains.std() == pytest.approx(0.05, rel=0.02)
    light = np.full((300, 301), 1e6)
    seen = detect(light, camera, 1.0, None, gains=gains).electrons
    np.testing.assert_allclose(seen, gains * 1e6)


def test_photons_of_a_known_power() -> None:
    """1 W/m^2 on 1 um^2 for 1 s at 532 nm: 2.678e6 photons."""
    found = photons(np.array([1.0]), 1e-12, 1.0, 532e-9)
    assert found[0] == pytest.approx(1e-12 * 532e-9 / (PLANCK * SPEED_OF_LIGHT), rel=1e-14)
    assert found[0] == pytest.approx(2.678e6, rel=1e-3)


def test_saturation_is_refused_or_counted() -> None:
    camera = Camera(full_well=1000.0, adc_bits=8)
    light = np.array([10.0, 999.0, 1000.0, 5000.0])
    with pytest.raises(SaturationError, match=r"full_well: expected electrons < 1000.*2 of 4"):
        detect(light, camera, 1.0, None)
    reading = detect(light, camera, 1.0, None, clip=True)
    assert reading.saturated == 2
    np.testing.assert_allclose(reading.electrons[2:], 1000.0)


@pytest.mark.parametrize(
    ("light", "message"),
    [
        ([0.0, 0.0], "no light reaches the camera"),
        ([-1.0, 3.0], "photons: expected >= 0 in every pixel, found -1"),
        ([np.nan, 1.0], "expected finite numbers"),
        ([], "at least one pixel"),
    ],
)
def test_impossible_light_is_refused(light: list[float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        detect(np.array(light), Camera(), 1.0, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantum_efficiency": 1.2}, "quantum_efficiency: expected 0 < qe <= 1, found 1.2"),
        ({"full_well": 0.0}, "full_well: expected > 0 electrons"),
        ({"read_noise": -1.0}, "read_noise"),
        ({"dark_current": -1.0}, "dark_current"),
        ({"adc_bits": 30}, "adc_bits: expected 0 <= bits <= 24"),
        ({"nonuniformity": 1.0}, "nonuniformity"),
        ({"adc_bits": 8}, "full_well: expected finite"),
    ],
)
def test_impossible_cameras_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Camera(**given)


def test_zero_exposure_is_refused() -> None:
    with pytest.raises(ParameterError, match="exposure: expected > 0 s"):
        detect(np.ones(3), Camera(), 0.0, None)
