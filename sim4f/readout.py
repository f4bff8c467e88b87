"""From fields at the pixels that are read to the product that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.signs import PartName, Signs

__all__ = ["Counter", "FieldOf", "count_exactly", "count_quickly", "estimate"]

Array = np.ndarray[Any, Any]
# Photons at the pixels, camera, exposure in s -> electrons; draws its own noise.
Counter = Callable[[Array, Camera, float], Array]
FieldOf = Callable[[PartName, PartName], Array]
# Above this mean a Poisson count is drawn from the normal distribution of the same mean and
# variance. The largest difference of the two distribution functions is 1 / (6 sqrt(2 pi mean))
# (first term of Edgeworth's series): 7e-4 here, below what 200,000 samples can show (4e-3).
NORMAL_FROM = 1e4


def estimate(
    signs: Signs, field_of: FieldOf, full: float, effects: Effects, count: Counter
) -> Array:
    """The product at each pixel.

    Args:
        signs: The exposures.
        field_of: Parts of the operands -> field at the pixels, real or complex.
        full: The step's full scale: amplitude of the reference, and the field that gives
            ``effects.photons`` photons. Above 0.
        effects: Of the camera.
        count: How electrons are drawn.
    """
    if signs.linear and not effects.counts:
        first = signs.exposures[0]
        exact = np.real(field_of(first.displayed, first.masked))
        return exact if signs.slope == 1 else exact * exact.dtype.type(signs.slope)
    fields: dict[tuple[PartName, PartName], Array] = {}
    total: Any = 0.0
    for e in signs.exposures:
        parts = (e.displayed, e.masked)
        if parts not in fields:
            fields[parts] = field_of(*parts)
        relative = fields[parts] / full + e.reference
        seen = _seen(relative, effects, count)
        total = total + e.weight * (np.sqrt(seen) if signs.detector == "amplitude" else seen)
    found: Array = np.asarray(total) * (signs.gain * full)
    return found


def _seen(relative: Array, effects: Effects, count: Counter) -> Array:
    """Intensity in units of the full scale's, as the camera measures it."""
    intensity = np.abs(relative) ** 2
    if not effects.counts:
        return intensity
    camera = effects.camera
    electrons = count(intensity * effects.photons, camera, effects.exposure)
    measured = electrons / (camera.quantum_efficiency * effects.photons)
    # A root needs what cannot be negative; noise around zero can be.
    return np.maximum(measured, 0) if np.any(measured < 0) else measured


def count_exactly(rng: np.random.Generator) -> Counter:
    """Every photon's Poisson statistics."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        return detect(photons.astype(np.float64), camera, exposure, rng, clip=True).electrons

    return count


def count_quickly(rng: np.random.Generator) -> Counter:
    """Normal statistics for bright pixels, exact ones if any pixel is dim."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        dark = np.float32(camera.dark_current * exposure)
        mean = photons * np.float32(camera.quantum_efficiency) + dark
        dim = mean < NORMAL_FROM
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        electrons = mean + np.sqrt(mean) * noise
        if dim.any():
            electrons[dim] = rng.poisson(mean[dim])
        if camera.read_noise:
            more = rng.standard_normal(mean.shape, dtype=np.float32)
            electrons += np.float32(camera.read_noise) * more
        return _digitized(electrons, camera) - dark

    return count


def _digitized(electrons: Array, camera: Camera) -> Array:
    if camera.adc_bits == 0:
        return np.minimum(electrons, np.float32(camera.full_well))
    codes = np.clip(np.rint(electrons / np.float32(camera.step)), 0, 2**camera.adc_bits - 1)
    return codes * np.float32(camera.step)
