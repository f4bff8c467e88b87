"""A plane: its pixels, and the one centring convention of this package.

Pixel n of an axis of N pixels is at coordinate ``(n - N // 2) * pitch``: the optical axis goes
through the *centre of pixel N // 2*, for even and for odd N. So the Fourier transform of a
field and the field have the same convention, and a DFT needs no half-pixel phases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.sim4f.arrays import AXES, Array, Namespace, Real
from edgevit.sim4f.errors import require

__all__ = ["Field", "Grid", "critical_pitch", "from_origin", "power", "to_origin"]


@dataclass(frozen=True)
class Grid:
    """Sampling of a plane.

    Attributes:
        shape: Rows and columns of pixels.
        pitch: Distance of pixel centres in m, along rows (y) and columns (x).
        wavelength: Vacuum wavelength in m.

    Raises:
        ParameterError: A length is not positive and finite, or an axis has no pixel.
    """

    shape: tuple[int, int]
    pitch: tuple[float, float]
    wavelength: float

    def __post_init__(self) -> None:
        for axis, n in zip("yx", self.shape, strict=True):
            require(n >= 1, f"grid pixels along {axis}", "N >= 1", n)
        for axis, p in zip("yx", self.pitch, strict=True):
            require(0 < p < np.inf, f"grid pitch along {axis}", "0 < pitch < inf m", p)
        ok = 0 < self.wavelength < np.inf
        require(ok, "wavelength", "0 < wavelength < inf m", self.wavelength)

    @property
    def extent(self) -> tuple[float, float]:
        """N * pitch in m, along y and x."""
        return self.shape[0] * self.pitch[0], self.shape[1] * self.pitch[1]

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in m^2."""
        return self.pitch[0] * self.pitch[1]

    def axis(self, which: int) -> Real:
        """Coordinates in m along axis 0 (y) or 1 (x)."""
        n = self.shape[which]
        return (np.arange(n, dtype=np.float64) - n // 2) * self.pitch[which]

    def coordinates(self) -> tuple[Real, Real]:
        """``(y, x)`` in m, shaped to broadcast to ``shape``."""
        return self.axis(0)[:, None], self.axis(1)[None, :]

    def behind_lens(self, focal: float) -> Grid:
        """Grid of the back focal plane on which the lens is a DFT: pitch lam f / (N pitch)."""
        require(0 < focal < np.inf, "focal length", "0 < focal < inf m", focal)
        pitch = (self._behind(0, focal), self._behind(1, focal))
        return replace(self, pitch=pitch)

    def _behind(self, which: int, focal: float) -> float:
        return self.wavelength * focal / (self.shape[which] * self.pitch[which])


@dataclass(frozen=True, eq=False)
class Field:
    """Complex amplitude on a grid; |values|^2 * pixel area is power in W.

    Attributes:
        values: (..., rows, columns); leading axes are independent fields (batch).
        grid: Its sampling.
    """

    values: Array
    grid: Grid

    def __post_init__(self) -> None:
        found = tuple(self.values.shape[-2:])
        expected = f"last axes {self.grid.shape}"
        require(found == self.grid.shape, "field shape", expected, found)

    def with_values(self, values: Array) -> Field:
        """The same plane holding other values."""
        return Field(values, self.grid)


def critical_pitch(pixels: int, wavelength: float, focal: float) -> float:
    """Pitch in m at which both focal planes of a lens have the same one: sqrt(lam f / N)."""
    require(pixels >= 1, "pixels", "N >= 1", pixels)
    require(wavelength * focal > 0, "wavelength * focal", "> 0 m^2", wavelength * focal)
    return float(np.sqrt(wavelength * focal / pixels))


def to_origin(values: Array, *, xp: Namespace = np) -> Array:
    """Roll pixel N // 2 to pixel 0, in the last two axes only (never the batch)."""
    shift = tuple(-(n // 2) for n in values.shape[-2:])
    return xp.roll(values, shift, axis=AXES)


def from_origin(values: Array, *, xp: Namespace = np) -> Array:
    """Inverse of ``to_origin``."""
    shift = tuple(n // 2 for n in values.shape[-2:])
    return xp.roll(values, shift, axis=AXES)


def power(field: Field, *, xp: Namespace = np) -> Any:
    """Power of each field of the batch in W, with |E|^2 in W/m^2."""
    return xp.sum(xp.abs(field.values) ** 2, axis=AXES) * field.grid.pixel_area
