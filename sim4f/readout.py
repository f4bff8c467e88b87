"""From fields at the pixels that are read to the product that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.counting import electrons
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.signs import PartName, Signs

__all__ = ["Counter", "FieldOf", "Light", "count_exactly", "count_quickly", "estimate"]

Array = np.ndarray[Any, Any]
FieldOf = Callable[[PartName, PartName], Array]
# Pixels that are counted at once: what a dozen temporaries keep in a core's cache.
CHUNK = 1 << 15


class Counter(Protocol):
    """Photons at the pixels, camera, exposure in s, gains -> electrons; draws its noise."""

    def __call__(
        self, photons: Array, camera: Camera, exposure: float, gains: Array | None = None, /
    ) -> Array:
        """Electrons at each pixel, dark mean subtracted."""
        ...


@dataclass(frozen=True, eq=False)
class Light:
    """What is not the same for all pixels and exposures; arrays broadcast to the fields.

    Attributes:
        powers: Of each exposure relative to the mean; none if they do not vary.
        gains: Of the pixels, relative to the mean.
        speckle: Coherent field on the pixels, in full scales.
    """

    powers: tuple[Array, ...] = ()
    gains: Array | None = None
    speckle: Array | None = None

    def flat(self, shape: tuple[int, ...], dtype: Any) -> Light:
        """Of fields of ``shape``, one after another, real numbers in ``dtype``."""

        def spread(values: Array) -> Array:
            wide = np.complex64 if dtype == np.float32 else np.complex128
            kind = wide if np.iscomplexobj(values) else dtype
            return np.broadcast_to(values.astype(kind), shape).reshape(-1)

        gains, speckle = (None if v is None else spread(v) for v in (self.gains, self.speckle))
        return Light(tuple(spread(p) for p in self.powers), gains, speckle)

    def part(self, here: slice) -> Light:
        """Of some pixels of flat fields."""
        gains, speckle = (None if v is None else v[here] for v in (self.gains, self.speckle))
        return Light(tuple(p[here] for p in self.powers), gains, speckle)


STEADY = Light()


def estimate(
    signs: Signs,
    field_of: FieldOf,
    full: float,
    effects: Effects,
    count: Counter,
    light: Light | None = None,
) -> Array:
    """The product at each pixel.

    Args:
        signs: The exposures.
        field_of: Parts of the operands -> field at the pixels, real or complex.
        full: The step's full scale: amplitude of the reference, and the field that gives
            ``effects.photons`` photons. Above 0.
        effects: Of the camera.
        count: How electrons are drawn.
        light: What varies over pixels and exposures.
    """
    if signs.linear and effects.plain:
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
    lit = STEADY if light is None else light.flat(found.shape, found.dtype)
    for start in range(0, found.size, CHUNK):
        here = slice(start, start + CHUNK)
        some = {parts: field[here] for parts, field in flat.items()}
        found.reshape(-1)[here] = _joined(signs, some, full, effects, count, lit.part(here))
    return found


def _joined(
    signs: Signs,
    fields: Mapping[tuple[PartName, PartName], Array],
    full: float,
    effects: Effects,
    count: Counter,
    light: Light,
) -> Array:
    """The weighted exposures of some pixels."""
    total: Any = 0.0
    for number, e in enumerate(signs.exposures):
        relative = fields[e.displayed, e.masked] * (1 / full) + e.reference
        if light.speckle is not None:
            relative = relative + light.speckle
        power = light.powers[number] if light.powers else None
        seen = _seen(relative, effects, count, power, light.gains)
        if signs.detector == "amplitude":
            # Noise around zero can be negative; an amplitude is not.
            seen = np.sqrt(np.maximum(seen, 0))
        total = total + (seen if e.weight == 1 else e.weight * seen)
    return np.asarray(total) * (signs.gain * full)


def _seen(
    relative: Array,
    effects: Effects,
    count: Counter,
    power: Array | None,
    gains: Array | None,
) -> Array:
    """Intensity in units of the full scale's, as the camera measures it."""
    flat = np.square(relative) if np.isrealobj(relative) else np.abs(relative) ** 2
    intensity = np.asarray(flat)
    if power is not None:
        # A normal model allows negative power five deviations away; there is none.
        intensity *= np.maximum(power, 0)
    if not effects.counts:
        return intensity if gains is None else intensity * gains
    camera = effects.camera
    intensity *= effects.photons
    if effects.background:
        intensity += intensity.dtype.type(effects.background)
    seen = count(intensity, camera, effects.exposure, gains)
    seen *= 1 / (camera.quantum_efficiency * effects.photons)
    return seen


def count_exactly(rng: np.random.Generator) -> Counter:
    """Every photon's Poisson statistics."""

    def count(
        photons: Array, camera: Camera, exposure: float, gains: Array | None = None
    ) -> Array:
        arriving = photons.astype(np.float64)
        return detect(arriving, camera, exposure, rng, gains=gains, clip=True).electrons

    return count


def count_quickly(rng: np.random.Generator) -> Counter:
    """The same statistics by vector operations on whole arrays (``counting``)."""

    def count(
        photons: Array, camera: Camera, exposure: float, gains: Array | None = None
    ) -> Array:
        dark = camera.dark_current * exposure
        mean = photons * photons.dtype.type(camera.quantum_efficiency)
        if dark:
            mean += photons.dtype.type(dark)
        digitized = _digitized(electrons(mean, camera, rng, gains), camera)
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
