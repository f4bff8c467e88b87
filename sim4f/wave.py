"""The wave path: two Fourier transforms a frame, and every effect.

Ideal masks keep the field real: half spectra, and only lines that hold light are transformed
(the transform of a dark line is dark). A displaced mask or one of coarse levels takes the
whole complex plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from edgevit.sim4f.deform import shown_mask
from edgevit.sim4f.effects import IDEAL, Effects, converted
from edgevit.sim4f.errors import unknown_full_scale
from edgevit.sim4f.grid import Grid, to_origin
from edgevit.sim4f.joint_wave import JointOptics
from edgevit.sim4f.light import light_of_frame, patterns_of
from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import impulse_response, input_plane, read_pixels
from edgevit.sim4f.program import Optical, frames, sizes
from edgevit.sim4f.pupil import aberration
from edgevit.sim4f.readout import Counter, FieldOf, count_exactly, estimate
from edgevit.sim4f.signs import PartName, part_of
from edgevit.sim4f.spectra import half_spectrum, read_half

__all__ = ["WaveProduct", "lens_phases", "mask_ramp"]

Array = np.ndarray[Any, Any]
# Spectra of input planes that are kept for the next mask, in bytes.
KEPT = 1 << 28


class WaveProduct:
    """Multiplies the operands of optical steps, frame by frame.

    Args:
        shapes: Of every tensor and weight.
        effects: Departures from the ideal.
        rng: Of the noise.
        full_scales: See ``fast.FastProduct``.
        dtype: float32, or float64 to judge the other path by.
        workers: Threads of the transforms.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        effects: Effects = IDEAL,
        rng: np.random.Generator | None = None,
        full_scales: Mapping[str, float] | None = None,
        dtype: Any = np.float32,
        workers: int = 1,
    ) -> None:
        self._shapes = shapes
        self._effects = effects
        self._rng = rng or np.random.default_rng(0)
        self._count: Counter = count_exactly(self._rng)
        self._full = dict(full_scales or {})
        self._dtype = np.dtype(dtype)
        self._workers = workers

    def __call__(self, step: Optical, x: Array, kernel: Array) -> Array:
        """The output tensor of a step, without its bias.

        Args:
            step: The step.
            x: What is displayed, of the source's shape; or ``[samples, *shape]``.
            kernel: What is masked; computed kernels have samples if ``x`` has.
        """
        alone = x.ndim == len(self._shapes[step.source])
        shown = converted(
            np.asarray(x[None] if alone else x, self._dtype), self._effects.display_bits
        )
        masked = np.asarray(kernel[None] if alone or step.static else kernel, self._dtype)
        if any(step.joint):
            masked = converted(masked, self._effects.display_bits)
        pairs = {(e.displayed, e.masked) for e in step.signs.exposures}
        fields = {p: self._fields(step, shown, masked, *p) for p in sorted(pairs)}
        full = self._full_scale(step, fields, len(shown))
        summed = np.zeros((len(shown), *_outer(step, sizes(step, self._shapes))), np.float64)
        patterns = patterns_of(step, self._effects)
        for number, frame in enumerate(frames(step, self._shapes)):
            here = _getter({parts: every[number] for parts, every in fields.items()})
            light = light_of_frame(step, self._effects, patterns, len(shown), self._rng)
            found = estimate(step.signs, here, full, self._effects, self._count, light)
            for one, read in zip(summed, found, strict=True):
                one[frame.read] += read
        made = [np.asarray(apply(step.read.moves, one), x.dtype) for one in summed]
        return made[0] if alone else np.stack(made)

    def _full_scale(
        self, step: Optical, fields: Mapping[Any, list[Array]], samples: int
    ) -> float:
        known = self._full.get(step.name)
        if known is not None:
            return known
        if samples > 1 and not self._effects.plain:
            raise unknown_full_scale(step.name, samples)
        first = step.signs.exposures[0]
        every = fields[first.displayed, first.masked]
        return max(float(np.abs(f.real).max(initial=0)) for f in every) or 1.0

    def _fields(
        self, step: Optical, x: Array, kernel: Array, displayed: PartName, masked: PartName
    ) -> list[Array]:
        """The fields at the pixels that are read, of every frame in order.

        A mask is made once for all samples that share it.
        """
        shown = [apply(step.displayed.moves, part_of(one, displayed)) for one in x]
        taps = [apply(step.masked.moves, part_of(one, masked)) for one in kernel]
        optics: _Optics | JointOptics
        tops, others = ([1.0] * len(each) for each in (shown, taps))
        if any(step.joint):
            optics = JointOptics(step, self._effects, self._workers, self._count, self._rng)
            tops, others = ([_largest(one) for one in each] for each in (shown, taps))
        else:
            optics = _Optics(step, self._effects, self._workers)
        own = range(len(shown)) if len(taps) > 1 else [0] * len(shown)
        return [
            np.stack(
                [
                    optics.field(
                        (i, *f.displayed), shown[i][f.displayed] / tops[i],
                        (k, *f.masked), taps[k][f.masked] / others[k],
                    ) * (tops[i] * others[k])
                    for i, k in enumerate(own)
                ]
            )
            for f in frames(step, self._shapes)
        ]  # fmt: skip


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0)) or 1.0


def _getter(fields: Mapping[tuple[PartName, PartName], Array]) -> FieldOf:
    return lambda displayed, masked: fields[displayed, masked]


def _outer(step: Optical, size: Mapping[str, int]) -> tuple[int, ...]:
    kept = tuple(size[label] for label in step.read.labels)
    return (*kept, len(step.read.rows), len(step.read.columns))


class _Optics:
    """Two lenses and a mask, for the frames of one step; keeps the last spectra."""

    def __init__(self, step: Optical, effects: Effects, workers: int) -> None:
        self._step, self._effects, self._workers = step, effects, workers
        self._real = effects.exact_mask
        self._rows, self._columns = read_pixels(step)
        self._shown: dict[tuple[int, ...], Array] = {}
        self._mask: tuple[tuple[int, ...], Array, float] | None = None

    def field(
        self, at: tuple[int, ...], shown: Array, mask_at: tuple[int, ...], taps: Array
    ) -> Array:
        """Field at the read pixels, in units of the exact product."""
        light = self._spectrum(at, shown)
        mask, top = self._transfer(mask_at, taps)
        passed = light * mask
        if self._real:
            found = read_half(
                passed, self._step.plane, self._rows, self._columns, self._workers
            )
        else:
            found = self._read_whole(passed)
        return found if top == 1.0 else found * found.dtype.type(top)

    def _spectrum(self, at: tuple[int, ...], shown: Array) -> Array:
        if at not in self._shown:
            made = self._transform(input_plane(self._step, shown))
            if len(self._shown) >= max(1, KEPT // made.nbytes):
                del self._shown[next(iter(self._shown))]
            self._shown[at] = made
        return self._shown[at]

    def _transform(self, plane: Array) -> Array:
        import scipy.fft

        if self._real:
            return half_spectrum(plane, self._workers)
        return np.asarray(scipy.fft.fft2(plane, workers=self._workers))

    def _transfer(self, at: tuple[int, ...], taps: Array) -> tuple[Array, float]:
        if self._mask is None or self._mask[0] != at:
            self._mask = (at, *self._shape_mask(impulse_response(self._step, taps)))
        return self._mask[1], self._mask[2]

    def _shape_mask(self, response: Array) -> tuple[Array, float]:
        """What the modulator shows, and the factor by which it is too dim."""
        if self._real:
            return self._transform(response), 1.0
        ramp = mask_ramp(self._effects.shift, self._step.plane, response.dtype)
        spectrum = self._transform(response * ramp)
        lenses = lens_phases(self._step.plane, self._effects.aberration, spectrum.dtype)
        shown, top = shown_mask(spectrum, self._effects, self._workers)
        return shown * lenses, top

    def _read_whole(self, spectrum: Array) -> Array:
        import scipy.fft

        across = scipy.fft.ifft(spectrum, axis=1, workers=self._workers, overwrite_x=True)
        lines = scipy.fft.ifft(across[:, self._columns], axis=0, workers=self._workers)
        return np.asarray(lines[self._rows])


def mask_ramp(shift: tuple[float, float], plane: tuple[int, int], dtype: Any) -> Array:
    """Factor of an impulse response whose mask is displaced: shift theorem.

    Args:
        shift: Along y and x, in mask pixels.
        plane: Rows and columns.
        dtype: Of the response.
    """
    if not any(shift):
        return np.ones((1, 1), dtype)
    turns = [e * _around(n) / n for e, n in zip(shift, plane, strict=True)]
    ramp = np.exp(2j * np.pi * (turns[0][:, None] + turns[1][None, :]))
    return np.asarray(ramp, np.complex64 if dtype == np.float32 else np.complex128)


@lru_cache(maxsize=2)
def lens_phases(
    plane: tuple[int, int], terms: tuple[tuple[int, float], ...], dtype: Any
) -> Array:
    """Phase factor of the lenses in the mask's plane, zero frequency first."""
    if not terms:
        return np.ones((1, 1), dtype)
    unit = Grid(plane, (1 / plane[0], 1 / plane[1]), 1.0)
    return np.asarray(to_origin(aberration(unit, 1.0, dict(terms))), dtype)


def _around(pixels: int) -> Array:
    half = pixels // 2
    return (np.arange(pixels) + half) % pixels - half
