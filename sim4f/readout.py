"""From fields at the pixels that are read to the product that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.counting import electrons
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.signs import PartName, Signs

__all__ = ["Counter", "FieldOf", "count_exactly", "count_quickly", "estimate"]

Array = np.ndarray[Any, Any]
# Photons at the pixels, camera, exposure in s -> electrons; draws its own noise.
Counter = Callable[[Array, Camera, float], Array]
FieldOf = Callable[[PartName, PartName], Array]
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
    intensity *= effects.photons
    seen = count(intensity, camera, effects.exposure)
    seen *= 1 / (camera.quantum_efficiency * effects.photons)
    return seen


def count_exactly(rng: np.random.Generator) -> Counter:
    """Every photon's Poisson statistics."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        return detect(photons.astype(np.float64), camera, exposure, rng, clip=True).electrons

    return count


def count_quickly(rng: np.random.Generator) -> Counter:
    """The same statistics by vector operations on whole arrays (``counting``)."""

    def count(photons: Array, camera: Camera, exposure: float) -> Array:
        dark = camera.dark_current * exposure
        mean = photons * photons.dtype.type(camera.quantum_efficiency)
        if dark:
            mean += photons.dtype.type(dark)
        digitized = _digitized(electrons(mean, camera, rng), camera)
        return digitized - photons.dtype.type(dark) if dark else digitized

    return count


def _digitized(found: Array, camera: Camera) -> Array:
    """In place: to the converter's codes, as electrons; the full well is the largest."""
    if camera.adc_bits == 0:
        finite = np.isfinite(camera.full_well)
        return np.minimum(found, camera.full_well, out=found) if finite else found
    found *= 1 / camera.step
    np.rint(found, out=found)
    np.clip(found, 0, 2**camera.adc_bits - 1, out=found)
    found *= camera.step
    return found
