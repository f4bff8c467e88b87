"""The wave path of a joint transform correlator: two transforms and two cameras a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.sim4f.effects import Effects
from edgevit.sim4f.joint import SPAN, joint_plane, lag_pixels, require_simple, weakened
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

    def __init__(self, step: Optical, effects: Effects, workers: int, count: Counter) -> None:
        require_simple(step, effects)
        self._step, self._effects = step, effects
        self._workers, self._count = workers, count
        self._rows, self._columns = lag_pixels(step)

    def field(
        self, at: tuple[int, ...], shown: Array, mask_at: tuple[int, ...], taps: Array
    ) -> Array:
        """Field at the read pixels of the second output plane."""
        plane = joint_plane(self._step, shown, taps)
        found = self._counted(plane) if self._effects.counts else self._exact(plane)
        if any(self._effects.shift):
            found = found * weakened(self._step, self._effects.shift)
        return found

    def _exact(self, plane: Array) -> Array:
        spectrum = half_spectrum(plane, self._workers)
        power = np.asarray(spectrum * spectrum.conj())
        return read_half(power, self._step.plane, self._rows, self._columns, self._workers)

    def _counted(self, plane: Array) -> Array:
        import scipy.fft

        camera = self._effects.camera
        brightest = float(np.abs(plane).sum(dtype=np.float64)) ** 2 or 1.0
        per_unit = SPAN * self._effects.photons / brightest
        spectrum = scipy.fft.fft2(plane, workers=self._workers)
        power = spectrum.real**2 + spectrum.imag**2
        electrons = self._count(power * per_unit, camera, self._effects.exposure)
        shown = electrons / (per_unit * camera.quantum_efficiency)
        across = scipy.fft.ifft(shown, axis=1, workers=self._workers)
        lines = scipy.fft.ifft(across[:, self._columns], axis=0, workers=self._workers)
        return np.asarray(lines[self._rows])
