"""What lies between a modulator's pixels: dead area, crosstalk, and its far field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Array, Namespace, Real, fft2, from_host, ifft2
from edgevit.sim4f.errors import require
from edgevit.sim4f.grid import Field, Grid

__all__ = ["active_width", "crosstalk", "display", "envelope"]


def active_width(fill_factor: float) -> float:
    """Width of a square active area as a ratio of the pitch: sqrt(fill factor)."""
    require(0 < fill_factor <= 1, "fill_factor", "0 < fill factor <= 1", fill_factor)
    return float(np.sqrt(fill_factor))


def display(
    field: Field, oversample: int, fill_factor: float, dead: complex, *, xp: Namespace = np
) -> Field:
    """The light behind real pixels: an active square each, and ``dead`` around it.

    Args:
        field: One value a pixel, unit illumination.
        oversample: Sub-pixels a pixel and axis, odd: one of them is the pixel's centre.
        fill_factor: Active share of the pixel's area.
        dead: Transmission (or reflectivity) of the rest; 0 for an opaque frame.
        xp: Array namespace.

    Raises:
        ParameterError: An even number of sub-pixels, or an impossible fill factor.
    """
    odd = oversample >= 3 and oversample % 2 == 1
    require(odd, "oversample", "odd and >= 3 sub-pixels", oversample)
    line = _coverage(oversample, active_width(fill_factor))
    rows, columns = field.grid.shape
    cover = np.tile(np.outer(line, line), (rows, columns))
    fine = xp.repeat(xp.repeat(field.values, oversample, axis=-2), oversample, axis=-1)
    weight = from_host(cover, field.values, xp=xp)
    values = fine * weight + dead * (1 - weight)
    # In an even plane pixel N // 2 begins at the middle of the fine plane, not centred on it.
    pitch = (field.grid.pitch[0] / oversample, field.grid.pitch[1] / oversample)
    shape = (rows * oversample, columns * oversample)
    roll = tuple(_offset(n, oversample) for n in field.grid.shape)
    values = xp.roll(values, roll, axis=(-2, -1)) if any(roll) else values
    return Field(values, Grid(shape, pitch, field.grid.wavelength))


def _offset(pixels: int, oversample: int) -> int:
    """Sub-pixels between where pixel N // 2 lands and the centre of the fine plane."""
    return pixels * oversample // 2 - (pixels // 2 * oversample + oversample // 2)


def _coverage(oversample: int, width: float) -> Real:
    """Active share of each sub-pixel of a pixel that is active in its middle ``width``."""
    edges = (np.arange(oversample + 1) - oversample / 2) / oversample
    inside = np.clip(edges, -width / 2, width / 2)
    return np.diff(inside) * oversample


def envelope(grid: Grid, focal: float, pitch: tuple[float, float], fill_factor: float) -> Real:
    """Amplitude in the focal plane of one active pixel relative to its centre: two sincs.

    Args:
        grid: Focal plane behind the lens.
        focal: Of the lens in m.
        pitch: Of the modulator's pixels in m.
        fill_factor: Active share of the pixel's area.
    """
    width = active_width(fill_factor)
    scale = grid.wavelength * focal
    y, x = (np.sinc(grid.axis(i) * pitch[i] * width / scale) for i in (0, 1))
    return np.outer(y, x)


def crosstalk(phase: Array, sigma: float, *, xp: Namespace = np, workers: int = 1) -> Array:
    """Phase (or drive) blurred by a Gaussian of ``sigma`` pixels; the plane is cyclic.

    Fringing fields couple neighbours (Moser et al., Optics Express 27, 25046 (2019)). What is
    blurred is what is driven, so a wrapped phase shows its fly-back at each 2 pi step.

    Args:
        phase: (..., rows, columns) real, in rad.
        sigma: Standard deviation of the coupling in pixels.
        xp: Array namespace.
        workers: Threads of the transforms (numpy only).
    """
    require(sigma >= 0, "crosstalk sigma", ">= 0 px", sigma)
    if sigma == 0:
        return phase
    lines = [_gauss(int(n), sigma) for n in phase.shape[-2:]]
    mask = from_host(np.outer(*lines), phase, xp=xp)
    return xp.real(ifft2(fft2(phase, xp=xp, workers=workers) * mask, xp=xp, workers=workers))


def _gauss(n: int, sigma: float) -> npt.NDArray[np.float64]:
    frequency = np.fft.fftfreq(n)
    line: npt.NDArray[np.float64] = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    return line
