"""Disturbances of light before the camera: laser noise, flicker, a coherent background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.errors import require

__all__ = ["background", "flicker", "laser_factors"]


def laser_factors(rin: float, frames: int, rng: np.random.Generator) -> Real:
    """Power of each frame relative to the mean: relative intensity noise, common to a frame.

    Args:
        rin: Standard deviation of the power over frames, as a ratio.
        frames: How many.
        rng: Source of the noise.

    Raises:
        ParameterError: ``rin`` is not in [0, 0.2): a normal model would allow negative power.
    """
    require(0 <= rin < 0.2, "rin", "0 <= rin < 0.2", rin)
    return 1.0 + rin * rng.standard_normal(frames)


def flicker(
    shape: tuple[int, int], sigma: float, rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    """Phase factor of a liquid-crystal panel whose drive ripples: one phase for the panel.

    Args:
        shape: Rows and columns.
        sigma: Standard deviation in rad.
        rng: Source of the noise.
    """
    require(sigma >= 0, "flicker", ">= 0 rad", sigma)
    return np.full(shape, np.exp(1j * sigma * rng.standard_normal()))


def background(
    shape: tuple[int, int], mean: float, rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    """Static speckle: a circular complex Gaussian field to be added to the amplitude.

    Its intensity is exponentially distributed (Goodman, Speckle Phenomena in Optics, 3.2).
    Draw it once for a system: it does not change from frame to frame.

    Args:
        shape: Rows and columns of the camera plane.
        mean: Mean intensity, in the units of |field|^2.
        rng: Source of the pattern.
    """
    require(mean >= 0, "background", ">= 0 W/m^2", mean)
    parts = rng.standard_normal((2, *shape)) * np.sqrt(mean / 2)
    field: npt.NDArray[np.complex128] = parts[0] + 1j * parts[1]
    return field
