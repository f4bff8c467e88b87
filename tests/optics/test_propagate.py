"""Free space against closed forms, and the sampling conditions that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import fresnel as fresnel_integrals

from edgevit.sim4f import sampling
from edgevit.sim4f.errors import ParameterError, SamplingError
from edgevit.sim4f.fourier import lens
from edgevit.sim4f.grid import Field, Grid, critical_pitch, power
from edgevit.sim4f.propagate import (
    angular_spectrum,
    fresnel,
    fresnel_far,
    pad_field,
    thin_lens,
)
from edgevit.sim4f.pupil import disc

LAM = 532e-9
Array = npt.NDArray[Any]


def worst(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def beam(grid: Grid, waist: float, distance: float) -> Array:
    """Paraxial Gaussian beam without piston: w(z), R(z) and Gouy phase in one q."""
    y, x = grid.coordinates()
    rayleigh = np.pi * waist**2 / LAM
    q = distance - 1j * rayleigh
    form: Array = (-1j * rayleigh / q) * np.exp(1j * np.pi * (y**2 + x**2) / (LAM * q))
    return form


@pytest.mark.parametrize("shape", [(256, 256), (255, 280)])
@pytest.mark.parametrize("distance", [0.01, 0.045, -0.03])
def test_gaussian_beam(shape: tuple[int, int], distance: float) -> None:
    grid = Grid(shape, (1e-5, 1e-5), LAM)
    waist = 2e-4
    out = fresnel(Field(beam(grid, waist, 0.0), grid), distance)
    assert worst(out.values, beam(grid, waist, distance)) < 1e-10
    # The oracle notices 1 % of distance.
    assert worst(out.values, beam(grid, waist, 1.01 * distance)) > 1e-6


def test_gaussian_beam_by_one_transform() -> None:
    grid = Grid((300, 301), (5e-6, 5e-6), LAM)
    out = fresnel_far(Field(beam(grid, 1e-4, 0.0), grid), 0.3)
    assert worst(out.values, beam(out.grid, 1e-4, 0.3)) < 1e-10


@pytest.mark.parametrize("distance", [0.001, 0.004])
def test_angular_spectrum_is_paraxial_for_wide_beams(distance: float) -> None:
    grid = Grid((300, 300), (5e-6, 5e-6), LAM)
    waist = 1e-4
    out = angular_spectrum(Field(beam(grid, waist, 0.0), grid), distance)
    # The next term of sqrt: k z (theta / 2)^4 / 2 or so, theta = lam / (pi w).
    bound = np.pi * distance / LAM * (LAM / (np.pi * waist)) ** 4 + 1e-10
    assert worst(out.values, beam(grid, waist, distance)) < 10 * bound


def slit_error(pixels: int) -> float:
    """Slit of Fresnel number 2 on ever finer pixels against the Fresnel integrals."""
    width, distance = 4e-4, 0.04
    distance = width**2 / (4 * LAM * 2)
    pitch = width / pixels
    grid = Grid((1, 6 * pixels + 1), (1e-6, pitch), LAM)
    values = (np.abs(grid.axis(1)) < width / 2).astype(complex)[None, :]
    out = fresnel_far(Field(values, grid), distance)
    near = np.abs(out.grid.axis(1)) < width
    x = out.grid.axis(1)[near]
    scale = np.sqrt(2 / (LAM * distance))
    edges = [fresnel_integrals(scale * (x + s * width / 2)) for s in (1, -1)]
    line = (edges[0][1] + 1j * edges[0][0]) - (edges[1][1] + 1j * edges[1][0])
    # Along y one pixel of 1 um: a point source, 1 / sqrt(i lam z) times its width.
    expected = line / np.sqrt(2j) * 1e-6 / np.sqrt(1j * LAM * distance)
    return worst(out.values[0][near], expected)


def test_slit_gives_fresnel_integrals_with_order_two() -> None:
    errors = [slit_error(n) for n in (201, 401, 3201)]
    order = np.log(errors[0] / errors[1]) / np.log(401 / 201)
    assert order == pytest.approx(2, abs=0.05)
    assert errors[2] < 1e-6


def spot_error(pixels: int) -> float:
    diameter = 1e-3
    distance = diameter**2 / (4 * LAM * 1.5)
    grid = Grid((2 * pixels + 1,) * 2, (diameter / pixels,) * 2, LAM)
    opening = disc(grid, diameter, lines=64) + 0j
    out = fresnel_far(Field(opening, grid), distance).values[pixels, pixels]
    # Behind the opening 1 - exp(i pi a^2 / lam z); Babinet: behind the obstacle the rest.
    spot = 1 - out
    return float(abs(spot - np.exp(1j * np.pi * 1.5)))


def test_arago_spot_is_as_bright_as_without_obstacle() -> None:
    errors = [spot_error(n) for n in (50, 100, 200)]
    order = np.log(errors[0] / errors[2]) / np.log(4)
    assert order > 1.9
    assert errors[2] < 5e-4


@pytest.mark.parametrize("order", [1, 2])
def test_talbot_grating_repeats_itself(order: int) -> None:
    period, pitch = 16, 1e-5
    # One row, so coarse that light spreads nowhere along y.
    grid = Grid((1, 2048), (1e-3, pitch), LAM)
    grating = (np.arange(2048) % period < 5).astype(complex)[None, :]
    length = 2 * (period * pitch) ** 2 / LAM
    out = fresnel(Field(grating, grid), order * length)
    assert worst(out.values, grating) < 1e-10
    half = fresnel(Field(grating, grid), (order - 0.5) * length)
    assert worst(half.values, np.roll(grating, period // 2, axis=1)) < 1e-10
    quarter = fresnel(Field(grating, grid), length / 4)
    assert worst(quarter.values, grating) > 0.1


@pytest.mark.parametrize("n", [32, 48])
def test_fresnel_lens_fresnel_is_the_dft_at_critical_sampling(n: int) -> None:
    rng = np.random.default_rng(1)
    focal = 0.1
    pitch = critical_pitch(n, LAM, focal)
    grid = Grid((n, n), (pitch, pitch), LAM)
    field = Field(rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)), grid)
    chain = fresnel(thin_lens(fresnel(field, focal), focal), focal)
    assert worst(chain.values, lens(field, focal).values) < 1e-12


def test_defocus_is_a_quadratic_pupil_phase() -> None:
    rng = np.random.default_rng(2)
    grid = Grid((64, 70), (8e-6, 8e-6), LAM)
    focal, shift = 0.1, 1e-3
    field = Field(rng.standard_normal((64, 70)) + 0j, grid)
    moved = fresnel(lens(field, focal), shift)
    y, x = grid.coordinates()
    phase = np.exp(-1j * np.pi * shift * (y**2 + x**2) / (LAM * focal**2))
    assert (
        worst(moved.values, lens(field.with_values(field.values * phase), focal).values)
        < 1e-12
    )


def test_angular_spectrum_of_a_plane_wave() -> None:
    grid = Grid((40, 40), (2e-6, 2e-6), LAM)
    y, x = grid.coordinates()
    fy, fx = 3 / 80e-6, -5 / 80e-6
    wave = np.exp(2j * np.pi * (fy * y + fx * x))
    distance = 1e-4
    out = angular_spectrum(Field(wave, grid), distance)
    k_z = 2 * np.pi * (np.sqrt(1 / LAM**2 - fy**2 - fx**2) - 1 / LAM)
    assert worst(out.values, wave * np.exp(1j * k_z * distance)) < 1e-10


def test_angular_spectrum_goes_back_and_keeps_power() -> None:
    rng = np.random.default_rng(3)
    grid = Grid((50, 60), (3e-6, 3e-6), LAM)
    field = Field(rng.standard_normal((50, 60)) + 0j, grid)
    there = angular_spectrum(field, 2e-4)
    np.testing.assert_allclose(power(there), power(field), rtol=1e-12)
    assert worst(angular_spectrum(there, -2e-4).values, field.values) < 1e-12


def test_evanescent_waves_are_removed() -> None:
    grid = Grid((32, 32), (2e-7, 2e-7), LAM)
    point = np.zeros((32, 32), complex)
    point[16, 16] = 1
    out = angular_spectrum(Field(point, grid), 1e-8, clip=True)
    spectrum = np.fft.fft2(out.values)
    frequency = np.fft.fftfreq(32, 2e-7)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    assert np.abs(spectrum[radius > 1 / LAM]).max() < 1e-12
    assert np.abs(spectrum[0, 0]) == pytest.approx(1, rel=1e-12)


def test_nyquist_row_passes_at_the_limit() -> None:
    """The limit is inclusive: at f_lim = Nyquist the row is kept, not lost to rounding."""
    n, pitch = 64, 2e-6
    distance = n * pitch / 2 * np.sqrt((2 * pitch / LAM) ** 2 - 1)
    grid = Grid((n, n), (pitch, pitch), LAM)
    assert all(f.holds for f in sampling.band_limit(grid, distance))
    checker = (-1.0) ** np.arange(n)[None, :] * np.ones((n, 1)) + 0j
    out = angular_spectrum(Field(checker, grid), distance)
    np.testing.assert_allclose(np.abs(out.values), 1, rtol=1e-9)


def test_padding_keeps_the_axis() -> None:
    rng = np.random.default_rng(4)
    for shape, wide in (((4, 5), (9, 8)), ((5, 4), (8, 9))):
        grid = Grid(shape, (1e-6, 1e-6), LAM)
        field = Field(rng.standard_normal(shape) + 0j, grid)
        padded = pad_field(field, wide)
        axis = tuple(n // 2 for n in shape)
        assert padded.values[wide[0] // 2, wide[1] // 2] == field.values[axis]
        np.testing.assert_array_equal(pad_field(padded, shape).values, field.values)


GRID = Grid((64, 64), (1e-5, 1e-5), LAM)
FIELD = Field(np.ones((64, 64), complex), GRID)


@pytest.mark.parametrize(
    ("broken", "inequality"),
    [
        (lambda: fresnel(FIELD, 1.0), r"lam \|z\| / N <= pitch\^2"),
        (lambda: fresnel_far(FIELD, 1e-3), r"pitch\^2 <= lam \|z\| / N"),
        (lambda: angular_spectrum(FIELD, 1.0), r"1 / \(2 pitch\) <= 1 / \(lam sqrt"),
        (lambda: thin_lens(FIELD, 1e-3), r"N pitch / 2 <= lam \|f\| / \(2 pitch\)"),
    ],
)
def test_under_sampling_is_refused_by_its_inequality(
    broken: Callable[[], Field], inequality: str
) -> None:
    with pytest.raises(SamplingError, match=inequality) as caught:
        broken()
    assert caught.value.finding.left > caught.value.finding.right
    assert "violated" in str(caught.value)


def test_clipping_is_allowed_on_request_only() -> None:
    clipped = angular_spectrum(FIELD, 1.0, clip=True)
    assert float(power(clipped)) <= float(power(FIELD)) * (1 + 1e-12)


def test_backwards_far_field_is_refused() -> None:
    with pytest.raises(ParameterError, match="distance: expected > 0 m"):
        fresnel_far(FIELD, -1.0)


def test_coverage_of_band_and_field() -> None:
    """Matched planes hold both conditions; a shorter focal length breaks the second."""
    n, pitch = 100, 8e-6
    source = Grid((n, n), (pitch, pitch), LAM)
    matched = n * pitch**2 / LAM
    for focal, band, field in ((matched, True, True), (2 * matched, False, True)):
        assert [f.holds for f in sampling.band_coverage(source, source, focal)] == [band] * 2
        assert [f.holds for f in sampling.field_coverage(source, source, focal)] == [field] * 2
    assert not sampling.field_coverage(source, source, matched / 2)[0].holds
    wide = 2 * n * pitch
    assert sampling.lens_aperture(source, matched, wide)[0].holds
    assert not sampling.lens_aperture(source, matched, 0.9 * wide)[0].holds
