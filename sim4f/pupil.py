"""Pupils and aberrations in a pupil plane: discs, and Zernike polynomials in Noll's order.

Noll, "Zernike polynomials and atmospheric turbulence", JOSA 66, 207 (1976): each polynomial
has unit variance over the disc: a coefficient is the root mean square of its wavefront.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import factorial

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.errors import require
from edgevit.sim4f.grid import Grid

__all__ = ["aberration", "disc", "noll", "strehl", "zernike"]


def disc(grid: Grid, diameter: float, *, lines: int = 32) -> Real:
    """Share of each pixel inside a centred circular opening.

    Exact along x, ``lines`` mid-points along y: a hard edge on pixels would make every result
    depend on where the edge falls between pixel centres.

    Args:
        grid: The plane.
        diameter: Of the opening in m.
        lines: Sub-lines a pixel row.

    Raises:
        ParameterError: The diameter is not positive.
    """
    require(diameter > 0, "diameter", "> 0 m", diameter)
    radius = diameter / 2
    offsets = ((np.arange(lines) + 0.5) / lines - 0.5) * grid.pitch[0]
    x = grid.axis(1)
    half = grid.pitch[1] / 2
    share = np.zeros(grid.shape)
    for offset in offsets:
        y = grid.axis(0) + offset
        chord = np.sqrt(np.maximum(radius**2 - y**2, 0.0))[:, None]
        share += np.clip(x + half, -chord, chord) - np.clip(x - half, -chord, chord)
    return share / (lines * grid.pitch[1])


def noll(index: int) -> tuple[int, int]:
    """Radial order n and azimuthal frequency m of Noll's ``index``; m < 0 is a sine.

    Raises:
        ParameterError: ``index`` is below 1.
    """
    require(index >= 1, "Noll index", ">= 1", index)
    n = int((np.sqrt(8 * index - 7) - 1) // 2)
    rest = index - n * (n + 1) // 2 - 1
    m = 2 * ((rest + 1) // 2) if n % 2 == 0 else 2 * (rest // 2) + 1
    return n, m if index % 2 == 0 else -m


def zernike(index: int, rho: Real, theta: Real) -> Real:
    """Zernike polynomial of Noll's ``index``, of unit variance on rho <= 1."""
    n, m = noll(index)
    radial = _radial(n, abs(m), rho)
    if m == 0:
        return float(np.sqrt(n + 1)) * radial
    angular: Real = np.cos(m * theta) if m > 0 else np.sin(-m * theta)
    return float(np.sqrt(2 * (n + 1))) * radial * angular


def _radial(n: int, m: int, rho: Real) -> Real:
    total = np.zeros_like(rho)
    for k in range((n - m) // 2 + 1):
        top = (-1) ** k * factorial(n - k)
        bottom = factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
        total += top / bottom * rho ** (n - 2 * k)
    return total


def aberration(
    grid: Grid, diameter: float, coefficients: Mapping[int, float]
) -> npt.NDArray[np.complex128]:
    """Pupil phase factor exp(i sum c_j Z_j).

    Args:
        grid: The pupil plane.
        diameter: In m, of the disc on which the polynomials are orthonormal.
        coefficients: Noll index -> root mean square in rad.
    """
    require(diameter > 0, "diameter", "> 0 m", diameter)
    y, x = grid.coordinates()
    rho = np.hypot(y, x) / (diameter / 2)
    theta = np.arctan2(y, x)
    wavefront = np.zeros(grid.shape)
    for index, rms in coefficients.items():
        wavefront += rms * zernike(index, rho, theta)
    factor: npt.NDArray[np.complex128] = np.exp(1j * wavefront)
    return factor


def strehl(coefficients: Mapping[int, float]) -> float:
    """Marechal's estimate exp(-sigma^2) of the Strehl ratio; piston and tilt do not count."""
    variance = sum(rms**2 for index, rms in coefficients.items() if index > 3)
    return float(np.exp(-variance))
