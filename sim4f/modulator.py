"""What a modulator's pixel can show of a value that is wanted there.

A modulator is data; ``realize`` gives, pixel by pixel, the complex transmission that it shows.
What happens between pixels (fill factor, crosstalk) is in ``pixels``; crosstalk is here too
where it couples what is driven rather than what is transmitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Array, Namespace, from_host
from edgevit.sim4f.errors import ParameterError, require
from edgevit.sim4f.pixels import crosstalk as blurred

__all__ = ["Kind", "Modulator", "double_phase", "nearest_level", "passive", "realize"]

Kind = Literal["ideal", "complex", "double-phase", "phase", "amplitude", "binary"]
# A passive pixel cannot amplify; the slack is the rounding of a float32 normalization.
_ONE = 1.0 + 1e-5


@dataclass(frozen=True)
class Modulator:
    """What one pixel can show.

    Attributes:
        kind: ``ideal`` (any transmission), ``complex`` (amplitude and phase, each with
            ``levels``), ``double-phase`` (two phase pixels a value, ideal low-pass),
            ``phase`` (modulus 1), ``amplitude`` (real, 0 to 1), ``binary`` (0 or 1).
        levels: Number of levels of amplitude and of phase; 0 means continuous.
        table: Level -> amplitude in [0, 1], or phase as a part of ``stroke``, increasing. The
            driver knows it and takes the nearest entry. Empty: uniform levels.
        stroke: Phase in rad of table entry 1. Without a table, the phase that the driver
            believes to be 2 pi: anything else is an error of calibration.
        amplitude_levels: Amplitude levels of ``complex`` if other than ``levels``.

    Raises:
        ParameterError: A value breaks its inequality.
    """

    kind: Kind
    levels: int = 0
    table: tuple[float, ...] = ()
    stroke: float = 2 * np.pi
    amplitude_levels: int = 0

    def __post_init__(self) -> None:
        require(self.levels == 0 or self.levels >= 2, "levels", "0 or >= 2", self.levels)
        more = self.amplitude_levels
        require(more == 0 or more >= 2, "amplitude_levels", "0 or >= 2", more)
        require(0 < self.stroke <= 4 * np.pi, "stroke", "0 < stroke <= 4 pi", self.stroke)
        if self.table:
            n = len(self.table)
            require(n == self.levels, "table entries", f"levels = {self.levels}", n)
            ok = all(0 <= t <= 1 for t in self.table)
            require(ok, "table", "0 <= entry <= 1", self.table)
            turn = self.stroke <= 2 * np.pi
            require(turn, "stroke", "<= 2 pi with a table", self.stroke)
            rising = all(np.diff(self.table) > 0)
            require(rising, "table", "strictly increasing entries", self.table)


def realize(
    modulator: Modulator, wanted: Array, *, xp: Namespace = np, crosstalk: float = 0.0
) -> Array:
    """The transmission that the modulator shows for ``wanted``.

    Args:
        modulator: The device.
        wanted: Transmission; complex, or real where the kind is ``amplitude`` or ``binary``.
        xp: Array namespace.
        crosstalk: Standard deviation in pixels of the Gaussian by which neighbours couple, in
            what the pixels are driven with: amplitude, and phase from 0 to 2 pi.

    Raises:
        ParameterError: |wanted| > 1 (nothing amplifies), or a value that the kind has not
            (negative or complex on an amplitude modulator).
    """
    if modulator.kind == "ideal":
        return wanted
    top = float(xp.max(xp.abs(wanted)))
    require(top <= _ONE, "transmission", "|t| <= 1 (passive modulator)", top)
    if modulator.kind in ("amplitude", "binary"):
        return blurred(_real(modulator, wanted, xp), crosstalk, xp=xp)
    if modulator.kind == "phase":
        return xp.exp(1j * _driven(modulator, _angle(wanted, xp), crosstalk, xp))
    if modulator.kind == "double-phase":
        first, second = double_phase(wanted, xp=xp)
        pair = (xp.exp(1j * _driven(modulator, p, crosstalk, xp)) for p in (first, second))
        return sum(pair) * 0.5
    amplitude = _amplitude(modulator, xp.clip(xp.abs(wanted), 0.0, 1.0), xp)
    amplitude = blurred(amplitude, crosstalk, xp=xp)
    return amplitude * xp.exp(1j * _driven(modulator, _angle(wanted, xp), crosstalk, xp))


def _driven(modulator: Modulator, angle: Array, crosstalk: float, xp: Namespace) -> Array:
    """Phase shown; with crosstalk that of drives between 0 and 2 pi, coupled."""
    shown = _phase(modulator, angle, xp)
    if not crosstalk:
        return shown
    return blurred(xp.remainder(shown, 2 * np.pi), crosstalk, xp=xp)


def double_phase(wanted: Array, *, xp: Namespace = np) -> tuple[Array, Array]:
    """Two phases in rad whose phasors' mean is ``wanted``, |wanted| <= 1.

    A exp(i p) = (exp(i (p + acos A)) + exp(i (p - acos A))) / 2 (Hsueh and Sawchuk, Applied
    Optics 17, 3874 (1978)).
    """
    angle = _angle(wanted, xp)
    half = xp.acos(xp.clip(xp.abs(wanted), 0.0, 1.0))
    return angle + half, angle - half


def passive(spectrum: Array, *, xp: Namespace = np) -> tuple[Array, float]:
    """A transfer function divided by its largest modulus, and that modulus.

    Raises:
        ParameterError: The spectrum is zero everywhere: no light would pass.
    """
    top = float(xp.max(xp.abs(spectrum)))
    require(0 < top < np.inf, "max |transfer function|", "0 < max < inf", top)
    return spectrum / top, top


def nearest_level(values: Array, table: npt.NDArray[np.float64], *, xp: Namespace) -> Array:
    """Index of the nearest entry of the increasing ``table``; halves go up."""
    middles = from_host((table[1:] + table[:-1]) * 0.5, values, xp=xp)
    return xp.searchsorted(middles, values, side="right")


def _angle(values: Array, xp: Namespace) -> Array:
    if not xp.isdtype(values.dtype, "complex floating"):
        return xp.where(values < 0, values * 0 + np.pi, values * 0)
    return xp.atan2(xp.imag(values), xp.real(values))


def _real(modulator: Modulator, wanted: Array, xp: Namespace) -> Array:
    if xp.isdtype(wanted.dtype, "complex floating"):
        raise ParameterError(
            f"transmission of {modulator.kind} pixels: expected real values, found complex"
        )
    low = float(xp.min(wanted))
    require(low >= 0, "transmission", f"t >= 0 ({modulator.kind} pixels)", low)
    if modulator.kind == "binary":
        return xp.astype(wanted >= 0.5, wanted.dtype)
    return _amplitude(modulator, xp.clip(wanted, 0.0, 1.0), xp)


def _amplitude(modulator: Modulator, amplitude: Array, xp: Namespace) -> Array:
    if modulator.table and modulator.kind == "amplitude":
        table = np.asarray(modulator.table)
        index = nearest_level(amplitude, table, xp=xp)
        return _look_up(table, index, amplitude, xp)
    levels = modulator.amplitude_levels or modulator.levels
    if levels == 0:
        return amplitude
    return xp.round(amplitude * (levels - 1)) / (levels - 1)


def _phase(modulator: Modulator, angle: Array, xp: Namespace) -> Array:
    """Phase shown for a wanted one: levels are k / levels of 2 pi, stretched by the stroke."""
    stretch = modulator.stroke / (2 * np.pi)
    if modulator.levels == 0:
        return angle * stretch
    if not modulator.table:
        step = 2 * np.pi / modulator.levels
        # Without the remainder a stretched stroke would depend on the branch of the angle.
        code = xp.remainder(xp.round(angle / step), modulator.levels)
        return code * (step * stretch)
    return _tabled_phase(modulator, angle, xp)


def _tabled_phase(modulator: Modulator, angle: Array, xp: Namespace) -> Array:
    """The table's nearest phase on the circle, where 2 pi above the first is the first."""
    phases = np.asarray(modulator.table) * modulator.stroke
    around = np.append(phases, phases[0] + 2 * np.pi)
    wrapped = xp.remainder(angle - phases[0], 2 * np.pi) + phases[0]
    index = nearest_level(wrapped, around, xp=xp) % len(phases)
    return _look_up(phases, index, angle, xp)


def _look_up(
    table: npt.NDArray[np.float64], index: Array, like: Array, xp: Namespace
) -> Array:
    taken = xp.take(from_host(table, like, xp=xp), xp.reshape(index, (-1,)))
    return xp.reshape(taken, index.shape)
