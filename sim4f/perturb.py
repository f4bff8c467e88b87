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

from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.moves import apply, index_of, moved_shape
from edgevit.sim4f.place import impulse_response
from edgevit.sim4f.program import Lattice, Optical

__all__ = ["MaskErrors", "centered", "level_error", "tapered"]

Array = np.ndarray[Any, Any]


def centered(lattice: Lattice, pixels: int) -> Array:
    """Signed distance of each element from the origin on a torus of ``pixels``."""
    half = pixels // 2
    return (lattice.coordinates() + half) % pixels - half


def tapered(step: Optical, kernel: Array, shift: tuple[float, float]) -> Array:
    """A kernel tensor as a mask displaced by ``shift`` (y, x in mask pixels) shows it."""
    if not any(shift):
        return kernel
    turns = [
        e * centered(lattice, n) / n
        for e, lattice, n in zip(
            shift, (step.masked.rows, step.masked.columns), step.plane, strict=True
        )
    ]
    factor = np.cos(2 * np.pi * (turns[0][:, None] + turns[1][None, :]))
    index = index_of(step.masked.moves, kernel.shape)
    found = np.ones(kernel.size)
    where = index >= 0
    found[index[where]] = np.broadcast_to(factor, index.shape)[where]
    return np.asarray(kernel * found.reshape(kernel.shape), kernel.dtype)


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

    def __init__(self, effects: Effects) -> None:
        self._sigma = level_error(effects.mask) if effects.mask.kind != "ideal" else 0.0
        self._peaks: dict[str, float] = {}

    def added(
        self,
        step: Optical,
        shapes: Mapping[str, Sequence[int]],
        x: Array,
        kernel: Array,
        field: Array,
        rng: np.random.Generator,
    ) -> Array:
        """The field with the error of its frames, averaged over the frames of the step."""
        if not self._sigma:
            return field
        shown = np.square(x.astype(np.float64)).sum() / _entries(step, x.shape)
        peak = self._peak(step, kernel)
        spread = self._sigma * peak * np.sqrt(shown / (step.plane[0] * step.plane[1]))
        noise = rng.standard_normal(field.shape, dtype=np.float32)
        return field + noise * np.float32(spread)

    def _peak(self, step: Optical, kernel: Array) -> float:
        """Root mean square over masks of the largest modulus of the transfer function.

        Found once: for a computed kernel in the first run, as a driver with a fixed full
        scale is set up once.
        """
        if step.name in self._peaks:
            return self._peaks[step.name]
        moved = apply(step.masked.moves, kernel)
        masks = moved.reshape(-1, *moved.shape[-2:])
        tops = [np.abs(_spectrum(step, one)).max() for one in masks]
        found = float(np.sqrt(np.mean(np.square(tops))))
        self._peaks[step.name] = found
        return found


def _entries(step: Optical, shape: Sequence[int]) -> int:
    return max(1, int(np.prod(moved_shape(step.displayed.moves, shape)[:-2])))


def _spectrum(step: Optical, one: Array) -> Array:
    import scipy.fft

    return np.asarray(scipy.fft.rfft2(impulse_response(step, one.astype(np.float32))))
