"""Zernike polynomials and pupils: orthonormality, indices, what they do to a spot."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fourier import lens, lens_onto
from edgevit.sim4f.grid import Field, Grid
from edgevit.sim4f.pupil import aberration, disc, noll, strehl, zernike

LAM = 532e-9

# Noll 1976, table I.
NOLL = {
    1: (0, 0),
    2: (1, 1),
    3: (1, -1),
    4: (2, 0),
    5: (2, -2),
    6: (2, 2),
    7: (3, -1),
    8: (3, 1),
    9: (3, -3),
    10: (3, 3),
    11: (4, 0),
    12: (4, 2),
    13: (4, -2),
    14: (4, 4),
    15: (4, -4),
    16: (5, 1),
    21: (5, -5),
    22: (6, 0),
}


@pytest.mark.parametrize(("index", "expected"), NOLL.items())
def test_noll_indices(index: int, expected: tuple[int, int]) -> None:
    assert noll(index) == expected


def test_first_polynomials_in_cartesian_form() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.7, 0.7, (2, 50))
    rho, theta = np.hypot(x, y), np.arctan2(y, x)
    written = {
        2: 2 * x,
        3: 2 * y,
        4: np.sqrt(3) * (2 * rho**2 - 1),
        5: 2 * np.sqrt(6) * x * y,
        6: np.sqrt(6) * (x**2 - y**2),
        7: np.sqrt(8) * (3 * rho**2 - 2) * y,
        11: np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1),
    }
    for index, expected in written.items():
        np.testing.assert_allclose(zernike(index, rho, theta), expected, atol=1e-12)


def test_orthonormal_on_the_disc() -> None:
    """Gauss-Legendre in rho^2 and the trapezoid in theta are exact for these polynomials."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    rho = np.sqrt((nodes + 1) / 2)[:, None] * np.ones(40)
    theta = np.ones((12, 1)) * 2 * np.pi * np.arange(40) / 40
    area = (weights / 2)[:, None] / 40
    modes = np.array([zernike(j, rho, theta) for j in range(1, 37)])
    gram = np.einsum("irt,jrt,rt->ij", modes, modes, np.broadcast_to(area, rho.shape))
    np.testing.assert_allclose(gram, np.eye(36), atol=1e-12)


def test_disc_has_its_area() -> None:
    for shape in ((101, 101), (100, 121)):
        grid = Grid(shape, (1e-6, 1e-6), LAM)
        area = float(disc(grid, 80e-6, lines=64).sum()) * grid.pixel_area
        assert area == pytest.approx(np.pi * (40e-6) ** 2, rel=1e-5)


@pytest.mark.parametrize("index", [4, 5, 7, 11])
def test_marechal_strehl(index: int) -> None:
    diameter = 1e-3
    grid = Grid((121, 121), (diameter / 120,) * 2, LAM)
    axis = Grid((1, 1), (1e-6, 1e-6), LAM)
    opening = disc(grid, diameter)

    def peak(coefficients: dict[int, float]) -> float:
        pupil = opening * aberration(grid, diameter, coefficients)
        return float(abs(lens_onto(Field(pupil, grid), 0.1, axis).values[0, 0]) ** 2)

    ratio = peak({index: 0.2}) / peak({})
    # exp(-sigma^2) is right to the third order of sigma for these; the mesh adds 1e-3.
    assert ratio == pytest.approx(strehl({index: 0.2}), abs=2e-3)
    assert ratio < 0.97


def test_tilt_shifts_the_spot_exactly() -> None:
    """Z2 = 2 x / R with rms c: a phase slope of 2 c / R moves the spot by its pixels."""
    grid = Grid((32, 32), (1e-5, 1e-5), LAM)
    field = Field(
        np.exp(-(grid.axis(1)[None, :] ** 2 + grid.axis(0)[:, None] ** 2) / 1e-8), grid
    )
    diameter = 32e-5
    pixels = 3
    coefficient = pixels * 2 * np.pi / diameter * diameter / 4
    tilted = field.values * aberration(grid, diameter, {2: coefficient})
    moved = lens(Field(tilted, grid), 0.1).values
    straight = lens(Field(field.values + 0j, grid), 0.1).values
    np.testing.assert_allclose(moved, np.roll(straight, pixels, axis=1), atol=1e-16)


def test_piston_and_tilt_cost_no_strehl() -> None:
    assert strehl({1: 3.0, 2: 1.0, 3: 2.0}) == 1.0
    assert strehl({4: 0.3, 11: 0.4}) == pytest.approx(np.exp(-0.25))


def test_impossible_pupils_are_refused() -> None:
    grid = Grid((4, 4), (1e-6, 1e-6), LAM)
    with pytest.raises(ParameterError, match="Noll index: expected >= 1"):
        noll(0)
    with pytest.raises(ParameterError, match="diameter: expected > 0 m"):
        disc(grid, 0.0)
    with pytest.raises(ParameterError, match="diameter"):
        aberration(grid, -1.0, {})
