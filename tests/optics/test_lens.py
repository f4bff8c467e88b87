"""A Fourier lens against closed forms: absolute amplitudes, coordinates, conservation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import j0, j1

from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fourier import invert, lens, lens_onto
from edgevit.sim4f.grid import Field, Grid, critical_pitch, from_origin, power, to_origin
from edgevit.sim4f.pupil import disc

LAM = 532e-9
FOCAL = 0.1
PLANES = [(64, 64), (63, 65), (48, 81), (1, 33)]
Array = npt.NDArray[Any]


def worst(found: Array, expected: Array) -> float:
    """Largest deviation relative to the largest expected modulus."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def gaussian(grid: Grid, wy: float, wx: float) -> Array:
    y, x = grid.coordinates()
    return np.exp(-((y / wy) ** 2) - (x / wx) ** 2) + 0j


@pytest.mark.parametrize("shape", [(128, 128), (127, 160), (161, 130)])
def test_gaussian_becomes_a_gaussian_of_waist_lam_f_over_pi_w(shape: tuple[int, int]) -> None:
    grid = Grid(shape, (6e-6, 5e-6), LAM)
    wy, wx = 60e-6, 55e-6
    out = lens(Field(gaussian(grid, wy, wx), grid), FOCAL)
    waists = (LAM * FOCAL / (np.pi * wy), LAM * FOCAL / (np.pi * wx))
    expected = np.pi * wy * wx / (1j * LAM * FOCAL) * gaussian(out.grid, *waists)
    assert worst(out.values, expected) < 1e-10
    # The oracle notices 1 % of waist, and a lost factor i.
    assert worst(out.values, gaussian(out.grid, waists[0], 1.01 * waists[1])) > 1e-3
    assert worst(out.values, 1j * expected) > 1


def slit_error(pixels: int) -> float:
    """Slit of fixed width on ever finer pixels, against its sinc out to the third lobe."""
    width = 0.5e-3
    grid = Grid((1, 4 * pixels + 1), (1e-5, width / pixels), LAM)
    values = (np.abs(grid.axis(1)) < width / 2).astype(complex)[None, :]
    reach = 3 * LAM * FOCAL / width
    out = Grid((1, 41), (1e-6, reach / 20), LAM)
    found = lens_onto(Field(values, grid), FOCAL, out).values[0]
    sinc = np.sinc(out.axis(1) * width / (LAM * FOCAL))
    return worst(found, width * 1e-5 / (1j * LAM * FOCAL) * sinc)


def test_slit_becomes_a_sinc_with_order_two() -> None:
    errors = [slit_error(n) for n in (101, 201, 2001)]
    order = np.log(errors[0] / errors[1]) / np.log(201 / 101)
    assert order == pytest.approx(2, abs=0.02)
    assert errors[2] < 1e-6


def airy(grid: Grid, diameter: float) -> Array:
    """Amplitude of a circular opening; Goodman eq. 4-30, with the jinc at 0 by its limit."""
    y, x = grid.coordinates()
    z = np.pi * diameter * np.hypot(y, x) / (LAM * FOCAL)
    safe = np.where(z == 0, 1.0, z)
    jinc = np.where(z == 0, 1.0, 2 * j1(safe) / safe)
    return np.pi * diameter**2 / 4 / (1j * LAM * FOCAL) * jinc


def airy_error(pixels: int) -> float:
    diameter = 1e-3
    pitch = diameter / pixels
    grid = Grid((pixels + 3, pixels + 4), (pitch, pitch), LAM)
    opening = Field(disc(grid, diameter, lines=128) + 0j, grid)
    out = Grid((15, 16), (1e-5, 1e-5), LAM)
    found = lens_onto(opening, FOCAL, out).values
    # Shares of pixels are the opening averaged over a pixel: a sinc each in the focal plane.
    y, x = (np.sinc(out.axis(i) * pitch / (LAM * FOCAL)) for i in (0, 1))
    return worst(found, airy(out, diameter) * np.outer(y, x))


def test_disc_becomes_an_airy_pattern_with_order_above_one() -> None:
    errors = [airy_error(n) for n in (50, 100, 200, 400)]
    order = np.log(errors[0] / errors[-1]) / np.log(8)
    assert order > 1
    assert errors[-1] < 1e-6


def test_first_dark_ring_is_at_1_21967_lam_f_over_d() -> None:
    diameter, pixels = 1e-3, 400
    grid = Grid((pixels + 1, pixels + 1), (diameter / pixels,) * 2, LAM)
    out = Grid((1, 201), (1e-6, 1e-7), LAM)
    scale = LAM * FOCAL / diameter
    # The line is displaced to the ring by a tilt of the input: x0 = lam f u.
    tilt = np.exp(2j * np.pi * grid.axis(1) * 1.2 * scale / (LAM * FOCAL))
    opening = Field(disc(grid, diameter) * tilt[None, :], grid)
    line = (lens_onto(opening, FOCAL, out).values[0] * 1j).real
    x = -out.axis(1) + 1.2 * scale
    crossing = int(np.flatnonzero(np.diff(np.sign(line)))[0])
    share = line[crossing] / (line[crossing] - line[crossing + 1])
    zero = x[crossing] + share * (x[crossing + 1] - x[crossing])
    assert zero / scale == pytest.approx(1.2196698912665045, rel=1e-5)


def test_encircled_energy_is_one_minus_j0_and_j1_squared() -> None:
    diameter, pixels = 1e-3, 120
    grid = Grid((pixels + 1,) * 2, (diameter / pixels,) * 2, LAM)
    opening = Field(disc(grid, diameter) + 0j, grid)
    ring = 1.2196698912665045 * LAM * FOCAL / diameter
    out = Grid((121, 121), (ring / 50,) * 2, LAM)
    spot = lens_onto(opening, FOCAL, out)
    inside = np.sum(np.abs(spot.values) ** 2 * disc(out, 2 * ring)) * out.pixel_area
    edge = 3.8317059702075125
    expected = 1 - j0(edge) ** 2 - j1(edge) ** 2
    assert expected == pytest.approx(0.838, abs=5e-4)
    # Grey pixels at the rim: the light is that of the opening's area.
    arriving = np.pi * diameter**2 / 4
    assert float(inside) / arriving == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("period", [2, 3, 6])
def test_comb_becomes_a_comb(period: int) -> None:
    grid = Grid((1, 36), (1e-6, 5e-6), LAM)
    teeth = (np.arange(36) - 18) % period == 0
    out = lens(Field(teeth[None, :] + 0j, grid), FOCAL)
    expected = ((np.arange(36) - 18) % (36 // period) == 0) * (36 / period)
    expected = expected * grid.pixel_area / (1j * LAM * FOCAL)
    assert worst(out.values[0], expected) < 1e-12


@pytest.mark.parametrize("shape", PLANES)
def test_point_becomes_a_tilted_plane_wave(shape: tuple[int, int]) -> None:
    grid = Grid(shape, (7e-6, 5e-6), LAM)
    values = np.zeros(shape, complex)
    row, column = shape[0] // 3, shape[1] // 5
    values[row, column] = 1
    out = lens(Field(values, grid), FOCAL)
    y0, x0 = grid.axis(0)[row], grid.axis(1)[column]
    y, x = out.grid.coordinates()
    wave = np.exp(-2j * np.pi * (y * y0 + x * x0) / (LAM * FOCAL))
    assert worst(out.values, grid.pixel_area / (1j * LAM * FOCAL) * wave) < 1e-12


@pytest.mark.parametrize("shape", PLANES)
def test_tilt_focuses_at_lam_f_u(shape: tuple[int, int]) -> None:
    grid = Grid(shape, (7e-6, 5e-6), LAM)
    step = min(3, shape[1] // 2 - 1)
    u = step / (shape[1] * 5e-6)
    wave = np.exp(2j * np.pi * grid.axis(1) * u)[None, :] * np.ones((shape[0], 1))
    out = lens(Field(wave, grid), FOCAL)
    row, column = np.unravel_index(int(np.abs(out.values).argmax()), shape)
    assert out.grid.axis(0)[row] == 0
    assert out.grid.axis(1)[column] == pytest.approx(LAM * FOCAL * u, rel=1e-12)


@pytest.mark.parametrize("shape", PLANES)
def test_two_lenses_invert(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    grid = Grid(shape, (7e-6, 5e-6), LAM)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    out = lens(lens(Field(values, grid), FOCAL), FOCAL)
    assert worst(out.values, -invert(values)) < 1e-12
    assert out.grid.pitch == pytest.approx(grid.pitch, rel=1e-12)


@pytest.mark.parametrize("shape", PLANES)
def test_power_is_kept(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(8)
    grid = Grid(shape, (7e-6, 5e-6), LAM)
    field = Field(rng.standard_normal((3, *shape)) + 0j, grid)
    np.testing.assert_allclose(power(lens(field, FOCAL)), power(field), rtol=1e-12)


@pytest.mark.parametrize("shape", PLANES)
def test_matrix_and_fast_transform_agree(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(9)
    grid = Grid(shape, (7e-6, 5e-6), LAM)
    field = Field(rng.standard_normal(shape) + 1j * rng.standard_normal(shape), grid)
    fast = lens(field, FOCAL)
    assert worst(lens_onto(field, FOCAL, fast.grid).values, fast.values) < 1e-12


@pytest.mark.parametrize("n", [4, 5])
def test_axis_goes_through_pixel_half(n: int) -> None:
    grid = Grid((n, n), (1.0, 1.0), 1.0)
    assert grid.axis(0)[n // 2] == 0
    values = np.arange(n * n, dtype=float).reshape(n, n)
    moved = to_origin(values)
    assert moved[0, 0] == values[n // 2, n // 2]
    np.testing.assert_array_equal(from_origin(moved), values)


def test_critical_pitch_is_its_own_image() -> None:
    pitch = critical_pitch(100, LAM, FOCAL)
    grid = Grid((100, 100), (pitch, pitch), LAM)
    assert grid.behind_lens(FOCAL).pitch == pytest.approx(grid.pitch, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (0, 4)}, r"grid pixels along y: expected N >= 1, found 0"),
        ({"pitch": (1e-6, -1e-6)}, r"grid pitch along x: expected 0 < pitch"),
        ({"wavelength": float("nan")}, r"wavelength: expected 0 < wavelength < inf m"),
    ],
)
def test_impossible_grids_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"shape": (4, 4), "pitch": (1e-6, 1e-6), "wavelength": LAM}
    with pytest.raises(ParameterError, match=message):
        Grid(**{**given, **change})


def test_impossible_lenses_and_fields_are_refused() -> None:
    grid = Grid((4, 4), (1e-6, 1e-6), LAM)
    field = Field(np.ones((4, 4), complex), grid)
    with pytest.raises(ParameterError, match="focal length: expected 0 < focal"):
        lens(field, 0.0)
    with pytest.raises(ParameterError, match="wavelength of the output grid"):
        lens_onto(field, FOCAL, Grid((4, 4), (1e-6, 1e-6), 633e-9))
    with pytest.raises(ParameterError, match="field shape"):
        Field(np.ones((4, 5), complex), grid)
