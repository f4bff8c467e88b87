"""Planes that are not where they should be: shifted, scaled, rotated.

Everything is band-limited interpolation of a sampled plane, without splines: a shift is a
phase ramp in the other domain, a scale a DFT at scaled frequencies, a rotation three shears
(Unser, Thevenaz and Yaroslavsky, IEEE Trans. Image Processing 4, 1371 (1995)).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from edgevit.sim4f.arrays import Array, Namespace, Real, fft2, from_host, ifft2
from edgevit.sim4f.errors import require

__all__ = ["displaced_transfer", "ramp", "rotate", "shift_error", "shift_plane"]

_Complex = npt.NDArray[np.complex128]


def ramp(shape: tuple[int, int], shift: tuple[float, float]) -> _Complex:
    """What a mask shifted by ``shift`` mask pixels does to its impulse response.

    The response at the origin convention (tap n wraps at N / 2) is multiplied by
    exp(2 pi i shift n / N) along each axis.

    Args:
        shape: Rows and columns of the plane.
        shift: Mask pixels along y and x.
    """
    y, x = (
        np.exp(2j * np.pi * s * np.fft.fftfreq(n)) for n, s in zip(shape, shift, strict=True)
    )
    return np.outer(y, x)


def shift_plane(
    values: Array, shift: tuple[float, float], *, xp: Namespace = np, workers: int = 1
) -> Array:
    """A complex plane moved by fractions of pixels, cyclic: n goes to n + shift."""
    shape = (int(values.shape[-2]), int(values.shape[-1]))
    phase = from_host(np.conj(ramp(shape, shift)), values, xp=xp)
    return ifft2(fft2(values, xp=xp, workers=workers) * phase, xp=xp, workers=workers)


def shift_error(shift: float, kernel: int, plane: int) -> float:
    """Relative error (real part) that a mask shift along one axis makes, for flat taps.

    The ramp's second-order term over centred taps: (2 pi eps / N)^2 / 2 times the root of the
    mean of n^4 = (k^2 - 1)(3 k^2 - 7) / 240; for many taps (pi eps k / N)^2 / (2 sqrt 5).

    Args:
        shift: eps, in mask pixels.
        kernel: k, taps along the axis.
        plane: N, pixels along the axis.
    """
    fourth = (kernel**2 - 1) * (3 * kernel**2 - 7) / 240
    return float((2 * np.pi * shift / plane) ** 2 / 2 * np.sqrt(fourth))


def displaced_transfer(
    kernel: npt.NDArray[Any],
    shape: tuple[int, int],
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    origin: tuple[int, int] = (0, 0),
) -> _Complex:
    """The mask that light really meets, if the mask is shifted and scaled about the axis.

    The DFT of the kernel at frequencies (k / scale - shift / scale): a mask magnified by
    ``scale`` shows at pixel k what belongs to pixel k / scale. Two matrix products, exact.

    Args:
        kernel: (..., h, w) taps; tap (i, j) at plane pixel origin + (i, j).
        shape: Rows and columns of the plane.
        shift: Mask pixels along y and x.
        scale: Magnification of the mask along y and x (wavelength drift: 1 + d lam / lam).
        origin: Plane pixel of tap (0, 0), may be negative.

    Returns:
        (..., rows, columns), first pixel = zero frequency.
    """
    for axis, s in zip("yx", scale, strict=True):
        require(s > 0, f"mask scale along {axis}", "> 0", s)
    left, right = (
        _matrix(shape[i], kernel.shape[i - 2], shift[i], scale[i], origin[i]) for i in (0, 1)
    )
    mask: _Complex = left @ kernel @ right.T
    return mask


# Every mask of a plane that is magnified alike meets the same two.
@lru_cache(maxsize=2)
def _matrix(n: int, taps: int, shift: float, scale: float, origin: int) -> _Complex:
    frequency = (np.fft.fftfreq(n) * n - shift) / (scale * n)
    return np.exp(-2j * np.pi * np.outer(frequency, origin + np.arange(taps)))


def rotate(values: npt.NDArray[Any], angle: float) -> _Complex:
    """A plane turned by ``angle`` rad about pixel N // 2, from x towards y; cyclic.

    Three shears, each a one-dimensional shift of lines by phase ramps; unitary. Meant for the
    small angles of misalignment.

    Args:
        values: (..., rows, columns), square pixels.
        angle: rad, |angle| <= pi / 4 (beyond it, shears wrap around).
    """
    require(abs(angle) <= np.pi / 4, "angle", "|angle| <= pi / 4 rad", angle)
    rows, columns = values.shape[-2:]
    y = np.arange(rows) - rows // 2
    x = np.arange(columns) - columns // 2
    first, second = -np.tan(angle / 2), np.sin(angle)
    turned = _shear(values, first * y, axis=-1)
    turned = _shear(turned, second * x, axis=-2)
    return _shear(turned, first * y, axis=-1)


def _shear(values: npt.NDArray[Any], shifts: Real, axis: int) -> _Complex:
    """Move each line along ``axis`` by its entry of ``shifts`` (pixels)."""
    frequency = np.fft.fftfreq(values.shape[axis])
    across = np.outer(shifts, frequency) if axis == -1 else np.outer(frequency, shifts)
    spectrum = scipy.fft.fft(values, axis=axis)
    moved: _Complex = scipy.fft.ifft(spectrum * np.exp(-2j * np.pi * across), axis=axis)
    return moved
