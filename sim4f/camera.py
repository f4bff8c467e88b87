"""A camera pixel: photons in, digital numbers out, and the electrons that they stand for.

Model of EMVA 1288 (release 4.0, section 2): Poisson electrons of light and dark current, a
gain of its own for each pixel, normal read noise, an analog-digital converter that spans the
full well. The generator is an argument; without one the camera gives expected values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.errors import ParameterError, SaturationError, require

__all__ = ["PLANCK", "SPEED_OF_LIGHT", "Camera", "Reading", "detect", "gain_map", "photons"]

# Exact by definition of the SI (2019).
PLANCK = 6.62607015e-34
SPEED_OF_LIGHT = 299792458.0

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Camera:
    """A sensor; ``Camera()`` is ideal: every photon counted, nothing added, no limit.

    Attributes:
        quantum_efficiency: Electrons per photon, 0 < qe <= 1.
        full_well: Electrons at which a pixel saturates; inf for none.
        read_noise: Standard deviation of the read-out in electrons.
        dark_current: Electrons per second and pixel.
        adc_bits: Resolution of the converter over the full well; 0 means analog.
        nonuniformity: Standard deviation of the pixels' gains (PRNU), as a ratio.

    Raises:
        ParameterError: A value breaks its inequality.
    """

    quantum_efficiency: float = 1.0
    full_well: float = np.inf
    read_noise: float = 0.0
    dark_current: float = 0.0
    adc_bits: int = 0
    nonuniformity: float = 0.0

    def __post_init__(self) -> None:
        qe = self.quantum_efficiency
        require(0 < qe <= 1, "quantum_efficiency", "0 < qe <= 1", qe)
        require(self.full_well > 0, "full_well", "> 0 electrons", self.full_well)
        noise, dark = self.read_noise, self.dark_current
        require(0 <= noise < np.inf, "read_noise", "0 <= noise < inf electrons", noise)
        require(0 <= dark < np.inf, "dark_current", "0 <= current < inf electrons/s", dark)
        require(0 <= self.adc_bits <= 24, "adc_bits", "0 <= bits <= 24", self.adc_bits)
        prnu = self.nonuniformity
        require(0 <= prnu < 1, "nonuniformity", "0 <= prnu < 1", prnu)
        finite = self.adc_bits == 0 or np.isfinite(self.full_well)
        require(finite, "full_well", "finite (the converter spans it)", self.full_well)

    @property
    def step(self) -> float:
        """Electrons per digital number; 0 for an analog read-out."""
        return self.full_well / (2**self.adc_bits - 1) if self.adc_bits else 0.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What the camera says.

    Attributes:
        electrons: Estimate of the light's electrons: digital number times step, dark mean
            subtracted; float64, of the photons' shape.
        saturated: How many pixels were at the full well.
    """

    electrons: npt.NDArray[np.float64]
    saturated: int


def photons(irradiance: Values, area: float, exposure: float, wavelength: float) -> Values:
    """Photons per pixel: irradiance (W/m^2) * area (m^2) * exposure (s) * lam / (h c)."""
    require(exposure > 0, "exposure", "> 0 s", exposure)
    energy = PLANCK * SPEED_OF_LIGHT / wavelength
    return irradiance * (area * exposure / energy)


def gain_map(
    camera: Camera, shape: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Gain of each pixel relative to the mean, fixed for the life of a sensor."""
    return 1.0 + camera.nonuniformity * rng.standard_normal(shape)


def detect(
    arriving: Values,
    camera: Camera,
    exposure: float,
    rng: np.random.Generator | None,
    *,
    gains: Values | None = None,
    clip: bool = False,
) -> Reading:
    """Expose and read.

    Args:
        arriving: Mean photons per pixel during the exposure, any shape.
        camera: The sensor.
        exposure: Seconds, for the dark current.
        rng: Source of all noise; ``None`` gives expected values, quantized all the same.
        gains: Factor of each pixel, broadcast to ``arriving``; ``None`` for 1.
        clip: Let saturated pixels read the full well instead of refusing them.

    Raises:
        ParameterError: No photon arrives anywhere, or some number is negative or not finite.
        SaturationError: Pixels reach the full well and ``clip`` is false.
    """
    _check(arriving)
    require(exposure > 0, "exposure", "> 0 s", exposure)
    dark = camera.dark_current * exposure
    mean = arriving * camera.quantum_efficiency + dark
    electrons = mean.astype(np.float64) if rng is None else rng.poisson(mean).astype(float)
    if gains is not None:
        electrons = electrons * gains
    full = int(np.count_nonzero(electrons >= camera.full_well))
    if full and not clip:
        raise SaturationError(
            f"full_well: expected electrons < {camera.full_well:g} in every pixel, found "
            f"{electrons.max():.6g} ({full} of {electrons.size} pixels); lower the exposure "
            f"or the laser power, or ask for clipping"
        )
    if rng is not None and camera.read_noise:
        electrons += camera.read_noise * rng.standard_normal(electrons.shape)
    return Reading(_digitize(electrons, camera) - dark, full)


def _check(arriving: Values) -> None:
    require(arriving.size > 0, "photons", "at least one pixel", arriving.shape)
    low, top = float(arriving.min()), float(arriving.max())
    if not (np.isfinite(low) and np.isfinite(top)):
        raise ParameterError("photons: expected finite numbers, found inf or NaN")
    require(low >= 0, "photons", ">= 0 in every pixel", low)
    require(top > 0, "photons", "> 0 in some pixel (no light reaches the camera)", top)


def _digitize(electrons: npt.NDArray[np.float64], camera: Camera) -> npt.NDArray[np.float64]:
    """Round to the converter's codes 0 ... 2^b - 1; an analog read-out is only limited."""
    if camera.adc_bits == 0:
        return np.minimum(electrons, camera.full_well)
    codes = np.clip(np.rint(electrons / camera.step), 0, 2**camera.adc_bits - 1)
    digitized: npt.NDArray[np.float64] = codes * camera.step
    return digitized
