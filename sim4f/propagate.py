"""Free space: Fresnel propagation, the band-limited angular spectrum, a thin lens.

For defocus and misplacement; the lens of a 4f system is ``fourier.lens``. The piston
exp(i k z) is dropped everywhere: it is common to the plane, and k z is a million radians.
Phases are built in float64 whatever the precision of the field.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevit.sim4f import sampling
from edgevit.sim4f.arrays import Array, Namespace, fft2, from_host, ifft2
from edgevit.sim4f.errors import require
from edgevit.sim4f.fourier import lens
from edgevit.sim4f.grid import Field, Grid

__all__ = ["angular_spectrum", "fresnel", "fresnel_far", "pad_field", "thin_lens"]

_Complex = npt.NDArray[np.complex128]


def fresnel(field: Field, distance: float, *, xp: Namespace = np, workers: int = 1) -> Field:
    """Fresnel propagation by the transfer function exp(-i pi lam z (fx^2 + fy^2)).

    Goodman, Introduction to Fourier Optics, 3rd ed., eq. 4-21. Same grid; the plane is cyclic.

    Raises:
        SamplingError: lam |z| / N > pitch^2 along an axis.
    """
    for finding in sampling.fresnel_transfer(field.grid, distance):
        finding.require()
    y, x = _origin_frequencies(field.grid)
    mask = np.exp(-1j * np.pi * field.grid.wavelength * distance * (y**2 + x**2))
    return field.with_values(_filtered(field.values, mask, xp, workers))


def fresnel_far(
    field: Field, distance: float, *, xp: Namespace = np, workers: int = 1
) -> Field:
    """Fresnel propagation by one transform, for long distances.

    Goodman, eq. 4-17. The output pitch is lam z / (N pitch).

    Raises:
        SamplingError: pitch^2 > lam z / N along an axis.
        ParameterError: ``distance`` is not positive.
    """
    require(distance > 0, "distance", "> 0 m", distance)
    for finding in sampling.fresnel_impulse(field.grid, distance):
        finding.require()
    inner = from_host(_quadratic(field.grid, distance), field.values, xp=xp)
    # The same scaled DFT as a lens of that focal length, between two quadratic phases.
    out = lens(field.with_values(field.values * inner), distance, xp=xp, workers=workers)
    outer = from_host(_quadratic(out.grid, distance), field.values, xp=xp)
    return out.with_values(out.values * outer)


def angular_spectrum(
    field: Field,
    distance: float,
    *,
    clip: bool = False,
    xp: Namespace = np,
    workers: int = 1,
) -> Field:
    """Exact scalar propagation by the angular spectrum, band-limited; the plane is cyclic.

    Matsushima and Shimobaba, Optics Express 17, 19662 (2009). Frequencies up to and including
    the limit pass, so that at critical sampling the Nyquist row is kept. Evanescent waves are
    removed.

    Args:
        field: Field in the starting plane.
        distance: Metres, negative to go back.
        clip: Allow the limit to cut the band instead of refusing it.
        xp: Array namespace.
        workers: Threads of the transforms (numpy only).

    Raises:
        SamplingError: The limit is below Nyquist and ``clip`` is false.
    """
    for finding in sampling.band_limit(field.grid, distance) if not clip else ():
        finding.require()
    mask = _angular_mask(field.grid, distance)
    return field.with_values(_filtered(field.values, mask, xp, workers))


def _angular_mask(grid: Grid, distance: float) -> _Complex:
    y, x = _origin_frequencies(grid)
    inside = (1 / grid.wavelength) ** 2 - y**2 - x**2
    longitudinal = np.sqrt(np.maximum(inside, 0.0))
    # k_z - k without cancellation: -(fx^2 + fy^2) / (sqrt(1/lam^2 - f^2) + 1/lam).
    phase = -2 * np.pi * distance * (y**2 + x**2) / (longitudinal + 1 / grid.wavelength)
    keep = inside >= 0
    for which, frequency in enumerate((y, x)):
        limit = sampling.limit_frequency(grid, distance, which)
        keep = keep & (np.abs(frequency) <= limit * (1 + 1e-9))
    mask: _Complex = np.where(keep, np.exp(1j * phase), 0.0)
    return mask


def thin_lens(field: Field, focal: float, *, xp: Namespace = np) -> Field:
    """Multiply by the phase exp(-i pi (x^2 + y^2) / (lam f)) of a thin lens (Goodman 5-10).

    Raises:
        SamplingError: The phase is under-sampled at the plane's edge.
    """
    for finding in sampling.thin_lens(field.grid, focal):
        finding.require()
    phase = from_host(_quadratic(field.grid, -focal), field.values, xp=xp)
    return field.with_values(field.values * phase)


def pad_field(field: Field, shape: tuple[int, int], *, xp: Namespace = np) -> Field:
    """The field in a larger plane of zeros, or cut to a smaller one; pixel N // 2 stays."""
    grid = Grid(shape, field.grid.pitch, field.grid.wavelength)
    lead = tuple(field.values.shape[:-2])
    like = field.values
    values = xp.zeros((*lead, *shape), dtype=like.dtype, device=like.device)
    pairs = [_overlap(n, m) for n, m in zip(shape, field.grid.shape, strict=True)]
    to, of = [p[0] for p in pairs], [p[1] for p in pairs]
    values[(..., *to)] = field.values[(..., *of)]
    return Field(values, grid)


def _overlap(wide: int, narrow: int) -> tuple[slice, slice]:
    start = wide // 2 - narrow // 2
    low, high = max(start, 0), min(start + narrow, wide)
    return slice(low, high), slice(low - start, high - start)


def _quadratic(grid: Grid, distance: float) -> _Complex:
    y, x = grid.coordinates()
    phase: _Complex = np.exp(1j * np.pi / (grid.wavelength * distance) * (y**2 + x**2))
    return phase


def _origin_frequencies(grid: Grid) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    y, x = (np.fft.fftfreq(n, p) for n, p in zip(grid.shape, grid.pitch, strict=True))
    return y[:, None], x[None, :]


def _filtered(values: Array, mask: _Complex, xp: Namespace, workers: int) -> Array:
    """Multiply in the frequency domain: the centring cancels, so nothing is rolled."""
    spectrum = fft2(values, xp=xp, workers=workers)
    return ifft2(spectrum * from_host(mask, values, xp=xp), xp=xp, workers=workers)
