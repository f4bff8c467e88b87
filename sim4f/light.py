"""What differs from pixel to pixel of a camera, and from exposure to exposure of its light.

Gains and coherent background (speckle) are fixed for a device: both paths draw them for the
whole sensor from ``Effects.pattern_seed`` and look up the pixels that they read. The laser's
power is drawn anew for every exposure of every frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from edgevit.sim4f.camera import Camera, gain_map
from edgevit.sim4f.disturb import background, laser_factors
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.joint import lag_pixels
from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import read_pixels
from edgevit.sim4f.program import Optical
from edgevit.sim4f.readout import Light

__all__ = [
    "at_outputs",
    "gains_of",
    "light_of_frame",
    "light_of_step",
    "patterns_of",
    "speckle_of",
]

Array = np.ndarray[Any, Any]
Patterns = tuple[Array | None, Array | None]
# Patterns are independent of each other, whatever the seed: second entry of theirs.
GAINS, SPECKLE = 0, 1


@lru_cache(maxsize=2)
def gains_of(plane: tuple[int, int], nonuniformity: float, seed: int) -> Array:
    """Gain of every pixel of a sensor relative to the mean, float64 ``[R, C]``."""
    rng = np.random.default_rng([seed, GAINS])
    return gain_map(Camera(nonuniformity=nonuniformity), plane, rng)


@lru_cache(maxsize=2)
def speckle_of(plane: tuple[int, int], mean: float, seed: int) -> Array:
    """Coherent background on every pixel, complex128 ``[R, C]``, in full scales."""
    return background(plane, mean, np.random.default_rng([seed, SPECKLE]))


def patterns_of(step: Optical, effects: Effects) -> Patterns:
    """Gains and speckle at the pixels that frames of a step read, ``[rows, columns]``."""
    gains = speckle = None
    if effects.steady:
        return gains, speckle
    pixels = np.ix_(*(lag_pixels(step) if any(step.joint) else read_pixels(step)))
    if effects.camera.nonuniformity:
        every = gains_of(step.plane, effects.camera.nonuniformity, effects.pattern_seed)
        gains = every[pixels]
    if effects.speckle:
        speckle = speckle_of(step.plane, effects.speckle, effects.pattern_seed)[pixels]
    return gains, speckle


def light_of_frame(
    step: Optical, effects: Effects, patterns: Patterns, samples: int, rng: np.random.Generator
) -> Light | None:
    """Of the exposures of one frame, for fields ``[samples, rows, columns]``.

    Args:
        step: The step.
        effects: Of the device.
        patterns: Of the step.
        samples: How many are exposed.
        rng: Of the laser.
    """
    if effects.steady:
        return None
    powers = tuple(
        laser_factors(effects.laser_noise, samples, rng).reshape(-1, 1, 1)
        for _ in step.signs.exposures
        if effects.laser_noise
    )
    return Light(powers, *patterns)


def light_of_step(
    step: Optical,
    size: Mapping[str, int],
    terms: str,
    effects: Effects,
    samples: int,
    rng: np.random.Generator,
) -> Light | None:
    """Of the exposures of all frames, for fields ``[samples, terms, *output]``.

    Args:
        step: The step.
        size: Of its labels.
        terms: Labels that electronics adds up, in the order of the fields' first axis.
        effects: Of the device.
        samples: How many are exposed.
        rng: Of the laser.
    """
    if effects.steady:
        return None
    one = np.ones((1, *[1] * len(size)))
    gains, speckle = (
        None if pattern is None else at_outputs(step, size, terms, one, pattern)
        for pattern in patterns_of(step, effects)
    )
    shape = (samples, *size.values())
    powers = tuple(
        at_outputs(
            step,
            size,
            terms,
            laser_factors(effects.laser_noise, int(np.prod(shape)), rng).reshape(shape),
        )
        for _ in step.signs.exposures
        if effects.laser_noise
    )
    return Light(powers, gains, speckle)


def at_outputs(
    step: Optical,
    size: Mapping[str, int],
    terms: str,
    values: Array,
    pattern: Array | None = None,
) -> Array:
    """Values of frames times a pattern of pixels, at each output element.

    Args:
        step: The step.
        size: Of its labels.
        terms: Labels of the electronic sum.
        values: ``[samples, *labels]`` in the order of ``size``; axes of 1 are repeated.
        pattern: ``[rows, columns]`` of the read-out; ``None`` for 1.

    Returns:
        ``[samples, terms, *output]``.
    """
    wanted = terms + step.read.labels
    order = [1 + list(size).index(label) for label in wanted]
    whole = np.broadcast_to(values, (len(values), *size.values()))
    moved = whole.transpose(0, *order)
    kept = moved.shape[1 + len(terms) :]
    lattice = len(step.read.rows), len(step.read.columns)
    factor = np.ones(lattice) if pattern is None else pattern
    flat = moved.reshape(len(values), -1, *kept, 1, 1) * factor
    return _arranged(step, flat)


def _arranged(step: Optical, flat: Sequence[Array]) -> Array:
    return np.stack(
        [np.stack([apply(step.read.moves, term) for term in sample]) for sample in flat]
    )
