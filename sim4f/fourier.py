"""An ideal Fourier lens, and a 4f system of two of them.

Real Fourier lenses are corrected systems: "thin lens plus exact propagation" is the wrong
model at fine pitch. From the front to the back focal plane a lens is (Goodman, Introduction to
Fourier Optics, 3rd ed., section 5.2.2, piston dropped)

    E2(x, y) = 1 / (i lam f) * integral E1(xi, eta) exp(-2 pi i (x xi + y eta) / (lam f)),

on the grid ``behind_lens`` one scaled DFT. Two lenses transform twice: the image is inverted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Array, Namespace, fft2, from_host
from edgevit.sim4f.errors import require
from edgevit.sim4f.grid import Field, Grid, from_origin, to_origin

__all__ = ["four_f", "invert", "lens", "lens_onto"]


def lens(field: Field, focal: float, *, xp: Namespace = np, workers: int = 1) -> Field:
    """Field in the back focal plane, on the grid that makes the lens one DFT.

    Args:
        field: (..., rows, columns) complex, in the front focal plane.
        focal: Focal length in m.
        xp: Array namespace.
        workers: Threads of the transform (numpy only).
    """
    grid = field.grid.behind_lens(focal)
    scale = field.grid.pixel_area / (1j * field.grid.wavelength * focal)
    spectrum = fft2(to_origin(field.values, xp=xp), xp=xp, workers=workers)
    return Field(from_origin(spectrum, xp=xp) * scale, grid)


def lens_onto(field: Field, focal: float, grid: Grid, *, xp: Namespace = np) -> Field:
    """Field in the back focal plane, sampled on any grid.

    The sum over input pixels is taken as two matrix products (Soummer et al., Opt. Express
    15, 15935 (2007)): N M operations a line instead of N log N, but the output may have any
    pitch and size. Past half the replica period lam f / pitch it holds replicas.

    Args:
        field: (..., rows, columns) complex.
        focal: Focal length in m.
        grid: Wanted sampling of the back focal plane.
        xp: Array namespace.
    """
    require(0 < focal < np.inf, "focal length", "0 < focal < inf m", focal)
    same = grid.wavelength == field.grid.wavelength
    require(
        same, "wavelength of the output grid", f"{field.grid.wavelength} m", grid.wavelength
    )
    left, right = (_kernel(field.grid, grid, which, focal) for which in (0, 1))
    scale = field.grid.pixel_area / (1j * grid.wavelength * focal)
    left = from_host(left * scale, field.values, xp=xp)
    right = from_host(np.ascontiguousarray(right.T), field.values, xp=xp)
    return Field(xp.matmul(xp.matmul(left, field.values), right), grid)


def _kernel(source: Grid, target: Grid, which: int, focal: float) -> npt.NDArray[Any]:
    phase = np.outer(target.axis(which), source.axis(which)) / (source.wavelength * focal)
    kernel: npt.NDArray[Any] = np.exp(-2j * np.pi * phase)
    return kernel


def four_f(
    field: Field,
    mask: Array,
    f1: float,
    f2: float,
    *,
    xp: Namespace = np,
    workers: int = 1,
) -> Field:
    """Output plane of lens f1, a mask in the common focal plane, lens f2.

    The output is inverted, magnified by -f2 / f1, and multiplied by -f1 / f2: with a mask of
    ones, E3(x) = -(f1 / f2) E1(-x f1 / f2).

    Args:
        field: (..., rows, columns) complex, in the input plane.
        mask: Complex transmission, broadcast to the field; |mask| <= 1 in a passive system.
        f1: Focal length of the first lens in m.
        f2: Focal length of the second lens in m.
        xp: Array namespace.
        workers: Threads of the transforms (numpy only).
    """
    fourier = lens(field, f1, xp=xp, workers=workers)
    return lens(fourier.with_values(fourier.values * mask), f2, xp=xp, workers=workers)


def invert(values: Array, *, xp: Namespace = np) -> Array:
    """Turn a plane by 180 degrees about pixel N // 2, cyclically: n becomes 2 (N // 2) - n.

    For even N the first row and column stay where they are: pixel 0 has no mirror image on
    the grid, and a DFT taken twice keeps it.
    """
    flipped = xp.flip(values, axis=(-2, -1))
    shift = tuple(1 - n % 2 for n in values.shape[-2:])
    return xp.roll(flipped, shift, axis=(-2, -1))
