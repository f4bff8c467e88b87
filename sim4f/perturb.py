"""The analytic effect of mask errors on what is read.

A displaced mask multiplies the impulse response by ``exp(2 pi i (ey y / R + ex x / C))``
(shift theorem); behind a reference wave only the real part counts. A mask of finitely many
levels adds an error of zero mean and variance ``s^2`` to every pixel of the Fourier plane,
which reaches every pixel of the output plane with the variance ``s^2 |x|^2 / (R C)``
(Parseval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgevit.sim4f.counting import normals
from edgevit.sim4f.deform import weights_of
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.moves import apply, index_of, moved_shape
from edgevit.sim4f.place import impulse_response
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import Lattice, Optical

__all__ = ["MaskErrors", "centered", "centered_at", "level_error", "narrowed"]
__all__ += ["peak", "taper"]

Array = np.ndarray[Any, Any]
# Masks of a step from which its driver is set up; their peaks differ by a few percent.
MASKS_SEEN = 16


def centered(lattice: Lattice, pixels: int) -> Array:
    """Signed distance of each element from the origin on a torus of ``pixels``."""
    return centered_at(lattice.coordinates(), pixels)


def centered_at(at: Array, pixels: int) -> Array:
    """Signed distance of coordinates from the origin on a torus of ``pixels``."""
    half = pixels // 2
    return (at + half) % pixels - half


def taper(step: Optical, shape: Sequence[int], shift: tuple[float, float]) -> Array:
    """By what a mask displaced by ``shift`` (y, x in mask pixels) weakens a kernel's elements.

    Returns:
        float64 of the kernel tensor's ``shape``.
    """
    turns = [
        e * centered(lattice, n) / n
        for e, lattice, n in zip(
            shift, (step.masked.rows, step.masked.columns), step.plane, strict=True
        )
    ]
    factor = np.cos(2 * np.pi * (turns[0][:, None] + turns[1][None, :]))
    return _of_elements(step, shape, factor)


def _of_elements(step: Optical, shape: Sequence[int], factor: Array) -> Array:
    """Factors ``[rows, columns]`` of a lattice at the kernel's elements."""
    index = index_of(step.masked.moves, shape)
    found = np.ones(int(np.prod(shape)))
    where = index >= 0
    found[index[where]] = np.broadcast_to(factor, index.shape)[where]
    return found.reshape(tuple(shape))


def narrowed(step: Optical, shape: Sequence[int], effects: Effects) -> Array:
    """By what the pixels' width and coupling weaken a kernel's elements.

    Returns:
        float64 of the kernel tensor's ``shape``.
    """
    rows, columns = (
        centered(lattice, n)
        for lattice, n in zip((step.masked.rows, step.masked.columns), step.plane, strict=True)
    )
    return _of_elements(
        step, shape, np.outer(*weights_of(effects, (rows, columns), step.plane))
    )


def level_error(mask: Modulator) -> float:
    """Standard deviation of a Fourier-plane pixel's error, of a mask of modulus at most 1.

    Double phase: two phasors of half weight, each with a phase uniform within a level:
    ``(2 pi / levels)^2 / 24``.

    Raises:
        ParameterError: The modulator has no such closed form; use the wave path.
    """
    if mask.levels == 0:
        return 0.0
    if mask.kind != "double-phase" or mask.table or mask.stroke != 2 * np.pi:
        raise ParameterError(
            f"mask: the fast path knows the error of uniform double-phase levels, found "
            f"{mask.kind!r} with {mask.levels} levels; use the wave path"
        )
    return float(2 * np.pi / mask.levels / np.sqrt(24))


class MaskErrors:
    """Adds the error of a mask's levels to fields; keeps the spectra's peaks."""

    def __init__(self, effects: Effects, prepared: Prepared) -> None:
        self._sigma = level_error(effects.mask) if effects.mask.kind != "ideal" else 0.0
        self._ready = prepared

    @property
    def present(self) -> bool:
        """Masks have errors, each its own: sums of several masks' products add them up."""
        return self._sigma > 0

    def added(
        self,
        step: Optical,
        shapes: Mapping[str, Sequence[int]],
        x: Array,
        kernel: Array,
        field: Array,
        rng: np.random.Generator,
    ) -> Array:
        """The fields with the error of their frames, averaged over the frames of the step.

        Args:
            step: The step.
            shapes: Of its tensors.
            x: ``[samples, *source]``.
            kernel: One kernel; of computed ones, the first sample's.
            field: ``[samples, ...]`` at the pixels that are read.
            rng: Of the errors.
        """
        if not self._sigma:
            return field
        light = np.square(x, dtype=np.float64).sum(axis=tuple(range(1, x.ndim)))
        light /= _entries(step, shapes[step.source]) * step.plane[0] * step.plane[1]
        spread = self._sigma * peak(step, kernel, self._ready) * np.sqrt(light)
        noise = normals(rng, field.size).reshape(len(field), -1)
        noise *= spread.astype(np.float32)[:, None]
        return field + noise.reshape(field.shape)


def peak(step: Optical, kernel: Array, prepared: Prepared) -> float:
    """Root mean square over masks of the largest modulus of the transfer function.

    Found once, from ``MASKS_SEEN`` masks at most: for a computed kernel from an example, as a
    driver with a fixed full scale is set up once.
    """
    peaks = prepared.peaks
    if step.name not in peaks:
        moved = apply(step.masked.moves, prepared.examples.get(step.name, kernel))
        masks = moved.reshape(-1, *moved.shape[-2:])
        some = masks[:: -(-len(masks) // MASKS_SEEN)]
        tops = [np.abs(_spectrum(step, one)).max() for one in some]
        peaks[step.name] = float(np.sqrt(np.mean(np.square(tops))))
    return peaks[step.name]


def _entries(step: Optical, shape: Sequence[int]) -> int:
    return max(1, int(np.prod(moved_shape(step.displayed.moves, shape)[:-2])))


def _spectrum(step: Optical, one: Array) -> Array:
    import scipy.fft

    return np.asarray(scipy.fft.rfft2(impulse_response(step, one.astype(np.float32))))
