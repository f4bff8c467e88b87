"""From fields at the pixels that are read to the product that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
# (first term of Edgeworth's series): 2e-3 here, less than 200,000 samples can show (5e-3 at
# the level of 1 %).
NORMAL_FROM = 1e3
# Pixels that are counted at once: what a dozen temporaries keep in a core's cache.
CHUNK = 1 << 15


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
    fields = {
        parts: np.ascontiguousarray(field_of(*parts))
        for parts in dict.fromkeys((e.displayed, e.masked) for e in signs.exposures)
    }
    first_field = next(iter(fields.values()))
    found = np.empty(first_field.shape, np.real(first_field[..., :0]).dtype)
    flat = {parts: field.reshape(-1) for parts, field in fields.items()}
    for start in range(0, found.size, CHUNK):
        here = slice(start, start + CHUNK)
        some = {parts: field[here] for parts, field in flat.items()}
        found.reshape(-1)[here] = _joined(signs, some, full, effects, count)
    return found


def _joined(
    signs: Signs,
    fields: Mapping[tuple[PartName, PartName], Array],
    full: float,
    effects: Effects,
    count: Counter,
) -> Array:
    """The weighted exposures of some pixels."""
    total: Any = 0.0
    for e in signs.exposures:
        relative = fields[e.displayed, e.masked] * (1 / full) + e.reference
        seen = _seen(relative, effects, count)
        if signs.detector == "amplitude":
            # Noise around zero can be negative; an amplitude is not.
            seen = np.sqrt(np.maximum(seen, 0))
        total = total + (seen if e.weight == 1 else e.weight * seen)
    return np.asarray(total) * (signs.gain * full)


def _seen(relative: Array, effects: Effects, count: Counter) -> Array:
    """Intensity in units of the full scale's, as the camera measures it."""
    flat = np.square(relative) if np.isrealobj(relative) else np.abs(relative) ** 2
    intensity = np.asarray(flat)
    if not effects.counts:
        return intensity
    camera = effects.camera
    electrons = count(intensity * effects.photons, camera, effects.exposure)
    return electrons * (1 / (camera.quantum_efficiency * effects.photons))


def count_exactly(rng: np.random.Generator) -> Counter:
    """Every photon's Poisson statistics."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        return detect(photons.astype(np.float64), camera, exposure, rng, clip=True).electrons

    return count


def count_quickly(rng: np.random.Generator) -> Counter:
    """Normal statistics for bright pixels, exact ones for dim ones."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        dark = camera.dark_current * exposure
        mean = photons * camera.quantum_efficiency
        if dark:
            mean += dark
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        dim = np.flatnonzero(mean < NORMAL_FROM)
        variance = mean + camera.read_noise**2 if camera.read_noise else mean
        electrons = np.sqrt(variance)
        electrons *= noise
        electrons += mean
        if dim.size:
            few = rng.poisson(mean.reshape(-1)[dim]).astype(electrons.dtype)
            few += camera.read_noise * noise.reshape(-1)[dim]
            electrons.reshape(-1)[dim] = few
        digitized = _digitized(electrons, camera)
        return digitized - dark if dark else digitized

    return count


def _digitized(electrons: Array, camera: Camera) -> Array:
    """In place: to the converter's codes, as electrons; the full well is the largest."""
    if camera.adc_bits == 0:
        return np.minimum(electrons, camera.full_well, out=electrons)
    electrons *= 1 / camera.step
    np.rint(electrons, out=electrons)
    np.clip(electrons, 0, 2**camera.adc_bits - 1, out=electrons)
    electrons *= camera.step
    return electrons
