"""The wave path of a joint transform correlator: two transforms and two cameras a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.sim4f.disturb import laser_factors
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.joint import SPAN, joint_plane, lag_pixels, require_simple, weakened
from edgevit.sim4f.light import gains_of
from edgevit.sim4f.program import Optical
from edgevit.sim4f.readout import Counter
from edgevit.sim4f.spectra import half_spectrum, read_half

__all__ = ["JointOptics"]

Array = np.ndarray[Any, Any]


class JointOptics:
    """See ``wave.Optics``; operands are scaled to a modulus of 1 at most.

    Raises:
        ParameterError: An effect that is not modeled.
    """

    def __init__(
        self,
        step: Optical,
        effects: Effects,
        workers: int,
        count: Counter,
        rng: np.random.Generator,
    ) -> None:
        require_simple(step, effects)
        self._rng = rng
        self._step, self._effects = step, effects
        self._workers, self._count = workers, count
        self._rows, self._columns = lag_pixels(step)

    def field(
        self, at: tuple[int, ...], shown: Array, mask_at: tuple[int, ...], taps: Array
    ) -> Array:
        """Field at the read pixels of the second output plane."""
        plane = joint_plane(self._step, shown, taps)
        found = self._exact(plane) if self._effects.plain else self._recorded(plane)
        if any(self._effects.shift):
            found = found * weakened(self._step, self._effects.shift)
        return found

    def _exact(self, plane: Array) -> Array:
        spectrum = half_spectrum(plane, self._workers)
        power = np.asarray(spectrum * spectrum.conj())
        return read_half(power, self._step.plane, self._rows, self._columns, self._workers)

    def _recorded(self, plane: Array) -> Array:
        import scipy.fft

        spectrum = scipy.fft.fft2(plane, workers=self._workers)
        power = spectrum.real**2 + spectrum.imag**2
        if self._effects.laser_noise:
            power *= float(laser_factors(self._effects.laser_noise, 1, self._rng).clip(0)[0])
        shown = self._first_camera(power, plane)
        across = scipy.fft.ifft(shown, axis=1, workers=self._workers)
        lines = scipy.fft.ifft(across[:, self._columns], axis=0, workers=self._workers)
        return np.asarray(lines[self._rows])

    def _first_camera(self, power: Array, plane: Array) -> Array:
        """The power spectrum as it is displayed in turn."""
        effects, camera = self._effects, self._effects.camera
        spread = camera.nonuniformity
        gains = gains_of(self._step.plane, spread, effects.pattern_seed) if spread else None
        if not effects.counts:
            return power if gains is None else np.asarray(power * gains, power.dtype)
        brightest = float(np.abs(plane).sum(dtype=np.float64)) ** 2 or 1.0
        per_unit = SPAN * effects.photons / brightest
        arriving = power * per_unit
        if effects.background:
            arriving = arriving + effects.background
        electrons = self._count(arriving, camera, effects.exposure, gains)
        return np.asarray(electrons / (per_unit * camera.quantum_efficiency))
