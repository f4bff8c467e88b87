"""The conditions under which a sampled field says what the continuous one does.

Each function gives ``Finding``s: the inequality, its two sides and whether it holds.
Propagators refuse what violates theirs; reports print them. Sources: Voelz and Roggemann,
Applied Optics 48, 6132 (2009) for the Fresnel criteria; Matsushima and Shimobaba, Optics
Express 17, 19662 (2009) for the band limit.
"""

from __future__ import annotations

import numpy as np

from edgevit.sim4f.errors import Finding
from edgevit.sim4f.grid import Grid

__all__ = [
    "band_coverage",
    "band_limit",
    "field_coverage",
    "fresnel_impulse",
    "fresnel_transfer",
    "lens_aperture",
    "limit_frequency",
    "thin_lens",
]


def fresnel_transfer(grid: Grid, distance: float) -> tuple[Finding, Finding]:
    """The Fresnel transfer function is sampled without aliases: lam |z| / N <= pitch^2."""
    y, x = (_fresnel(grid, distance, which, transfer=True) for which in (0, 1))
    return y, x


def fresnel_impulse(grid: Grid, distance: float) -> tuple[Finding, Finding]:
    """The Fresnel impulse response is sampled without aliases: pitch^2 <= lam |z| / N."""
    y, x = (_fresnel(grid, distance, which, transfer=False) for which in (0, 1))
    return y, x


def _fresnel(grid: Grid, distance: float, which: int, *, transfer: bool) -> Finding:
    chirp = grid.wavelength * abs(distance) / grid.shape[which]
    square = grid.pitch[which] ** 2
    symbols = ("lam |z| / N", "pitch^2")
    left, right = (chirp, square) if transfer else (square, chirp)
    text = " <= ".join(symbols if transfer else symbols[::-1])
    form = "transfer function" if transfer else "impulse response"
    return Finding(
        name=f"Fresnel {form} along {'yx'[which]}",
        inequality=text,
        left=left,
        right=right,
        unit="m^2",
        advice="pad the plane or use the other form" if transfer else "use the transfer form",
    )


def limit_frequency(grid: Grid, distance: float, which: int) -> float:
    """Highest frequency in 1/m whose angular-spectrum phase is sampled without aliases."""
    slope = 2 * distance / grid.extent[which]
    return float(1.0 / (grid.wavelength * np.hypot(slope, 1.0)))


def band_limit(grid: Grid, distance: float) -> tuple[Finding, Finding]:
    """The band limit of the angular spectrum clips nothing: Nyquist <= f_lim."""
    y, x = (_band(grid, distance, which) for which in (0, 1))
    return y, x


def _band(grid: Grid, distance: float, which: int) -> Finding:
    return Finding(
        name=f"angular spectrum along {'yx'[which]}",
        inequality="1 / (2 pitch) <= 1 / (lam sqrt((2 z / (N pitch))^2 + 1))",
        left=0.5 / grid.pitch[which],
        right=limit_frequency(grid, distance, which),
        unit="1/m",
        advice="pad the plane, or allow the band to be clipped",
    )


def thin_lens(grid: Grid, focal: float) -> tuple[Finding, Finding]:
    """The quadratic phase is sampled at the edge: N pitch / 2 <= lam |f| / (2 pitch)."""
    y, x = (_thin(grid, focal, which) for which in (0, 1))
    return y, x


def _thin(grid: Grid, focal: float, which: int) -> Finding:
    return Finding(
        name=f"thin lens along {'yx'[which]}",
        inequality="N pitch / 2 <= lam |f| / (2 pitch)",
        left=grid.extent[which] / 2,
        right=grid.wavelength * abs(focal) / (2 * grid.pitch[which]),
        unit="m",
        advice="use a finer pitch, a smaller plane or a longer focal length",
    )


def band_coverage(source: Grid, mask: Grid, focal: float) -> tuple[Finding, Finding]:
    """The mask reaches over the band of the input: lam f / p1 <= N2 p2."""
    y, x = (_coverage(source, mask, focal, which) for which in (0, 1))
    return y, x


def _coverage(source: Grid, mask: Grid, focal: float, which: int) -> Finding:
    return Finding(
        name=f"band coverage along {'yx'[which]}",
        inequality="lam f / p1 <= N2 p2",
        left=source.wavelength * focal / source.pitch[which],
        right=mask.extent[which],
        unit="m",
        advice="the mask clips the band: use a shorter focal length or more mask pixels",
    )


def field_coverage(source: Grid, mask: Grid, focal: float) -> tuple[Finding, Finding]:
    """A mask pixel resolves the whole input plane: N1 p1 <= lam f / p2."""
    y, x = (_resolved(source, mask, focal, which) for which in (0, 1))
    return y, x


def _resolved(source: Grid, mask: Grid, focal: float, which: int) -> Finding:
    return Finding(
        name=f"field coverage along {'yx'[which]}",
        inequality="N1 p1 <= lam f / p2",
        left=source.extent[which],
        right=source.wavelength * focal / mask.pitch[which],
        unit="m",
        advice="the mask's replicas overlap: use a longer focal length or finer mask pixels",
    )


def lens_aperture(source: Grid, focal: float, diameter: float) -> tuple[Finding, Finding]:
    """No vignetting: N1 p1 + lam f / p1 <= D along each axis."""
    y, x = (_aperture(source, focal, diameter, which) for which in (0, 1))
    return y, x


def _aperture(source: Grid, focal: float, diameter: float, which: int) -> Finding:
    band = source.wavelength * focal / source.pitch[which]
    return Finding(
        name=f"lens aperture along {'yx'[which]}",
        inequality="N1 p1 + lam f / p1 <= D",
        left=source.extent[which] + band,
        right=diameter,
        unit="m",
        advice="use a larger lens, a smaller input plane or a coarser pitch",
    )
