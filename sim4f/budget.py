"""How many photons, and what limits the precision of a layer.

All noises are relative to the root mean square of the wanted output y, so that they add as
squares; the largest is the limiting term. ENOB = (SNR - 1.76 dB) / 6.02 dB (IEEE Std 1241).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgevit.sim4f.arrays import Array, Namespace
from edgevit.sim4f.camera import PLANCK, SPEED_OF_LIGHT, Camera
from edgevit.sim4f.errors import require

__all__ = [
    "Budget",
    "Term",
    "averages_for",
    "detection_terms",
    "enob",
    "input_term",
    "mask_efficiency",
    "mask_phase_term",
    "photons_per_pixel",
]


@dataclass(frozen=True)
class Term:
    """One source of error.

    Attributes:
        name: For people.
        noise: Standard deviation relative to the rms of y; 0 if absent.
    """

    name: str
    noise: float

    @property
    def snr_db(self) -> float | None:
        """-20 log10 of the noise; ``None`` if there is none."""
        return -20 * float(np.log10(self.noise)) if self.noise > 0 else None


@dataclass(frozen=True)
class Budget:
    """Independent error terms of a layer, in the order in which light meets them."""

    terms: tuple[Term, ...]

    @property
    def noise(self) -> float:
        """Root of the sum of squares."""
        return float(np.sqrt(sum(t.noise**2 for t in self.terms)))

    @property
    def snr_db(self) -> float | None:
        """Of all terms together; ``None`` if nothing disturbs."""
        return Term("all", self.noise).snr_db

    @property
    def limiting(self) -> Term:
        """The largest term."""
        return max(self.terms, key=lambda t: t.noise)

    def waterfall(self) -> tuple[tuple[str, float | None], ...]:
        """SNR in dB after each term, cumulated."""
        sums = np.sqrt(np.cumsum([t.noise**2 for t in self.terms]))
        pairs = zip(self.terms, sums, strict=True)
        return tuple((t.name, Term(t.name, float(s)).snr_db) for t, s in pairs)


def enob(snr_db: float) -> float:
    """Effective bits of a signal-to-noise ratio in dB."""
    return (snr_db - 1.76) / 6.02


def averages_for(snr_db: float, wanted_db: float) -> int:
    """Exposures to average: noise falls as 1 / sqrt(n), a bit costs four."""
    return max(1, int(np.ceil(10 ** ((wanted_db - snr_db) / 10) - 1e-9)))


def photons_per_pixel(
    power: float, exposure: float, efficiency: float, wavelength: float, pixels: int
) -> float:
    """Mean photons a pixel: P t eta lam / (h c N).

    Args:
        power: Of the laser in W.
        exposure: In s.
        efficiency: Of the whole way to the camera.
        wavelength: In m.
        pixels: Over which the light is spread.
    """
    require(power > 0, "laser power", "> 0 W", power)
    require(exposure > 0, "exposure", "> 0 s", exposure)
    require(0 < efficiency <= 1, "efficiency", "0 < efficiency <= 1", efficiency)
    require(pixels >= 1, "pixels", ">= 1", pixels)
    energy = PLANCK * SPEED_OF_LIGHT / wavelength
    return power * exposure * efficiency / (energy * pixels)


def mask_efficiency(spectrum: Array, mask: Array, *, xp: Namespace = np) -> float:
    """Share of the light in the Fourier plane that passes: sum |X M|^2 / sum |X|^2.

    Both are whole spectra (not halves); ``mask`` is the passive one, |M| <= 1.
    """
    arriving = float(xp.sum(xp.abs(spectrum) ** 2))
    require(arriving > 0, "light in the Fourier plane", "> 0", arriving)
    return float(xp.sum(xp.abs(spectrum * mask) ** 2)) / arriving


def detection_terms(
    camera: Camera,
    peak: float,
    crest: float,
    scheme: Literal["homodyne", "split"],
) -> tuple[Term, ...]:
    """Shot, read and converter noise of one signed value from two exposures.

    Homodyne with the pedestal r = y_max: the brightest pixel collects (2 y_max)^2 electrons,
    and a count's deviation s becomes s sqrt(2) / (4 r). Split: y_max^2 electrons, and s
    becomes s sqrt(2) / (2 y) at y = rms, to first order.

    Args:
        camera: The sensor.
        peak: Electrons of the brightest pixel, at most the full well.
        crest: max |y| / rms y of the wanted output, at least 1.
        scheme: Sign scheme.

    Raises:
        ParameterError: ``peak`` is above the full well or not positive.
    """
    require(0 < peak <= camera.full_well, "peak electrons", "0 < peak <= full_well", peak)
    require(crest >= 1, "crest", "max |y| / rms y >= 1", crest)
    homodyne = scheme == "homodyne"
    top = np.sqrt(peak) / 2 if homodyne else np.sqrt(peak)
    rms = top / crest
    per_count = np.sqrt(2) / (4 * top) if homodyne else np.sqrt(2) / (2 * rms)
    shot = np.sqrt(2 * (rms**2 + top**2)) / (4 * top) if homodyne else np.sqrt(0.5)
    read = camera.read_noise * per_count
    converter = camera.step / np.sqrt(12) * per_count
    return (
        Term("shot noise", float(shot / rms)),
        Term("read noise", float(read / rms)),
        Term("ADC", float(converter / rms)),
    )


def mask_phase_term(levels: int) -> Term:
    """Uniform phase error of a step 2 pi / levels: rms 2 pi / (levels sqrt(12))."""
    noise = 2 * np.pi / (levels * np.sqrt(12)) if levels else 0.0
    return Term("mask phase levels", float(noise))


def input_term(levels: int, crest: float) -> Term:
    """Rounding of inputs to uniform levels up to their maximum: crest / ((L - 1) sqrt(12))."""
    noise = crest / ((levels - 1) * np.sqrt(12)) if levels else 0.0
    return Term("input levels", float(noise))
