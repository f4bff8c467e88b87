"""Random numbers of many camera pixels at once: normal deviates and photon counts.

A simulated network draws hundreds of thousands of counts an image, so that the generator's own
loops decide how long a study takes. Here whole arrays go through a few vector operations:
normal deviates by Box and Muller (Ann. Math. Stat. 29, 1958), counts by the Cornish-Fisher
expansion of the inverse of Poisson's distribution function (Giles, ACM TOMS 42, 2016, eq. 7),
dim ones by walking up the distribution function. Equal seeds give equal numbers on one
machine; on another processor the last bit of a logarithm may differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgevit.sim4f.camera import Camera

__all__ = ["counts", "dim_counts", "electrons", "normals"]

Array = np.ndarray[Any, Any]
# Above this mean a Poisson count is drawn from the normal distribution of the same mean and
# variance. The largest difference of the two distribution functions is 1 / (6 sqrt(2 pi mean))
# (first term of Edgeworth's series): 2e-3 here, less than 200,000 samples can show (5e-3 at
# the level of 1 %).
NORMAL_FROM = 1e3
# From this mean on the expansion's distribution function is off by less than 4e-4.
EXPANDED_FROM = 8.0
# So many dim pixels are worth a walk through vector operations.
WALKED_FROM = 1000


def normals(rng: np.random.Generator, size: int) -> Array:
    """Standard normal deviates, float32 ``[size]``; none is beyond 6.8 (1e-11 would be)."""
    half = (size + 1) // 2
    bits = rng.integers(0, 2**64 - 1, half, dtype=np.uint64, endpoint=True)
    first, second = bits.view(np.uint32).reshape(2, half)
    radius = first.astype(np.float32)
    # In (0, 1]: the logarithm of zero is never taken.
    radius += np.float32(0.5)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = second.astype(np.float32)
    angle *= np.float32(2 * np.pi * 2.0**-32)
    made = np.empty((2, half), np.float32)
    np.cos(angle, out=made[0])
    np.sin(angle, out=made[1])
    made *= radius
    return np.asarray(made.reshape(-1)[:size])


def counts(mean: Array, deviates: Array) -> Array:
    """Poisson counts of means of at least ``EXPANDED_FROM``, one for each normal deviate.

    ``floor(m + sqrt(m) z + 1/3 + z^2/6 - (z/36 + z^3/72) / sqrt(m))``.
    """
    root = np.sqrt(mean)
    square = deviates * deviates
    found = square * np.float32(-1 / 72)
    found -= np.float32(1 / 36)
    found *= deviates
    found /= root
    square *= np.float32(1 / 6)
    found += square
    root *= deviates
    found += root
    found += mean
    found += np.float32(1 / 3)
    return np.floor(found, out=found)


def dim_counts(mean: Array, uniform: Array) -> Array:
    """Poisson counts of small means: the terms that ``uniform`` exceeds, counted."""
    term = np.exp(-mean)
    below = term.copy()
    found = np.zeros(mean.shape, np.float32)
    top = float(mean.max(initial=0))
    # Beyond six deviations and six more is less than a float32 can tell from 1.
    for k in range(1, int(top + 6 * top**0.5) + 7):
        more = uniform > below
        if not more.any():
            break
        found += more
        term *= mean
        term *= np.float32(1 / k)
        below += term
    return found


def electrons(
    mean: Array, camera: Camera, rng: np.random.Generator, gains: Array | None = None
) -> Array:
    """Electrons of light and dark current with read noise, not yet digitized.

    Args:
        mean: Expected electrons, float32 or float64 ``[pixels]``.
        camera: Its read noise.
        rng: Of both noises.
        gains: Of the pixels, before the read noise; ``None`` for 1.
    """
    if gains is not None:
        found = electrons(mean, replace(camera, read_noise=0.0), rng) * gains
        if camera.read_noise:
            found += found.dtype.type(camera.read_noise) * normals(rng, mean.size)
        return np.asarray(found)
    few = np.flatnonzero(mean < NORMAL_FROM)
    if few.size == mean.size:
        return _counted(mean.astype(np.float32), camera.read_noise, rng).astype(mean.dtype)
    variance = mean + mean.dtype.type(camera.read_noise**2) if camera.read_noise else mean
    found = np.sqrt(variance)
    found *= normals(rng, mean.size)
    found += mean
    if few.size:
        found[few] = _counted(mean[few].astype(np.float32), camera.read_noise, rng)
    return np.asarray(found)


def _counted(mean: Array, read_noise: float, rng: np.random.Generator) -> Array:
    """Whole photons, and read noise."""
    dim = mean < EXPANDED_FROM
    few = mean[dim]
    found = counts(np.maximum(mean, EXPANDED_FROM), normals(rng, mean.size))
    if few.size > WALKED_FROM:
        found[dim] = dim_counts(few, rng.random(few.size, dtype=np.float32))
    else:
        found[dim] = rng.poisson(few)
    if read_noise:
        found += np.float32(read_noise) * normals(rng, mean.size)
    return found
