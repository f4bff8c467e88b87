"""Faults seen in other simulators, one test each: they would have caught them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.correlate import apply, place, support_rule, transfer, transfer_half
from edgevit.sim4f.errors import SamplingError
from edgevit.sim4f.fourier import four_f, lens
from edgevit.sim4f.grid import Field, Grid, from_origin
from edgevit.sim4f.propagate import fresnel
from edgevit.sim4f.recovery import homodyne_join, homodyne_light, split, split_join

LAM = 532e-9


def test_batch_roll_every_sample_keeps_its_result() -> None:
    """A shift over all axes gives sample i the result of sample i + B / 2."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((6, 3, 16, 17))
    grid = Grid((16, 17), (6e-6, 6e-6), LAM)
    mask = from_origin(transfer(place(rng.standard_normal((3, 3)), (16, 17))))
    together = four_f(Field(images + 0j, grid), mask, 0.1, 0.1).values
    for i, j in np.ndindex(6, 3):
        alone = four_f(Field(images[i, j] + 0j, grid), mask, 0.1, 0.1).values
        np.testing.assert_allclose(together[i, j], alone, rtol=0, atol=1e-12)
    order = rng.permutation(6)
    permuted = four_f(Field(images[order] + 0j, grid), mask, 0.1, 0.1).values
    np.testing.assert_allclose(permuted, together[order], rtol=0, atol=1e-12)


def test_doubled_mean_noise_adds_no_signal() -> None:
    """Noise added on top as a second Poisson draw doubles the mean."""
    rng = np.random.default_rng(2)
    arriving = np.full(200_000, 40.0)
    mean = detect(arriving, Camera(), 1.0, rng).electrons.mean()
    # Five standard errors of the mean.
    assert mean == pytest.approx(40.0, abs=5 * np.sqrt(40 / 200_000))


@pytest.mark.parametrize("scheme", ["split", "homodyne"])
def test_lost_sign_signed_inputs_and_kernels_come_back(scheme: str) -> None:
    """A modulus taken of the whole output discards the sign."""
    rng = np.random.default_rng(3)
    image, kernel = rng.standard_normal((14, 15)), rng.standard_normal((4, 3))
    expected = convolve2d(image, kernel)
    plane = np.zeros((17, 17))
    plane[:14, :15] = image
    if scheme == "homodyne":
        light = homodyne_light(apply(plane, transfer_half(place(kernel, (17, 17)))), 40.0)
        found = homodyne_join(*light, 40.0)
    else:
        parts = [
            s * t * split_join(_counts(x, k), np.zeros((17, 17)))
            for s, x in zip((1, -1), split(plane), strict=True)
            for t, k in zip((1, -1), split(kernel), strict=True)
        ]
        found = np.sum(parts, axis=0)
    assert np.abs(found - expected).max() < 1e-7 * np.abs(expected).max()
    assert (expected < 0).any()


def _counts(plane: Real, kernel: Real) -> Real:
    return np.asarray(apply(plane, transfer_half(place(kernel, (17, 17)))) ** 2)


@pytest.mark.parametrize("n", [32, 33])
def test_half_pixel_centring_symmetric_fields_stay_real(n: int) -> None:
    """A grid centred between pixels tilts the transform of a centred field."""
    grid = Grid((n, n), (6e-6, 6e-6), LAM)
    y, x = grid.coordinates()
    centred = np.exp(-(y**2 + x**2) / (30e-6) ** 2) + 0j
    spectrum = lens(Field(centred, grid), 0.1).values * 1j
    assert np.abs(spectrum.imag).max() < 1e-12 * np.abs(spectrum).max()
    y, x = (a + 3e-6 for a in (y, x))
    between = np.exp(-(y**2 + x**2) / (30e-6) ** 2) + 0j
    tilted = lens(Field(between, grid), 0.1).values * 1j
    assert np.abs(tilted.imag).max() > 0.1 * np.abs(tilted).max()


def test_float32_phase_masks_are_exact_to_single_precision() -> None:
    """exp(i k z) in float32 keeps 0.06 rad of k z = 1e6 rad: 5 % of error per lens."""
    rng = np.random.default_rng(4)
    n, distance = 64, 0.1
    pitch = float(np.sqrt(LAM * distance / n))
    grid = Grid((n, n), (pitch, pitch), LAM)
    values = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    single = fresnel(Field(values.astype(np.complex64), grid), distance)
    double = fresnel(Field(values, grid), distance)
    assert single.values.dtype == np.complex64
    error = np.abs(single.values - double.values).max() / np.abs(double.values).max()
    assert error < 2e-6


def test_wrap_around_is_refused_where_it_would_be_read() -> None:
    """Two pixels of padding are too few for a kernel of ten."""
    finding = support_rule(inputs=10, kernel=10, plane=14, axis=0)
    assert not finding.holds
    with pytest.raises(SamplingError, match=r"19 <= 14 px.*violated"):
        finding.require()
    assert support_rule(inputs=10, kernel=10, plane=19, axis=0).holds


def test_wrap_around_never_reaches_the_valid_part() -> None:
    """Whatever lies outside of the declared support, the valid part does not move."""
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((5, 4))
    half = transfer_half(place(kernel, (24, 24)))
    plane = np.zeros((24, 24))
    plane[:12, :12] = rng.standard_normal((12, 12))
    # What the tile's valid outputs [4:12, 3:12] read is the tile and nothing else.
    clean = apply(plane, half)[4:12, 3:12]
    plane[12:] = 1e3 * rng.standard_normal((12, 24))
    plane[:12, 12:] = 1e3 * rng.standard_normal((12, 12))
    dirty = apply(plane, half)[4:12, 3:12]
    # Rounding of the transform scales with the corrupted pixels.
    assert np.abs(clean - dirty).max() < 1e-13 * 1e3 * np.abs(kernel).sum()
