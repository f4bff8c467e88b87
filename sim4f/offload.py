"""Both paths with their planes and products on an accelerator, through the array namespace.

Tensors come from and go back to the host at every step, as the electronic parts run there;
what a frame holds is computed on the accelerator. Noise is drawn on the host from the fields
at the pixels that are read, by the same code and from the same generator as without one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from edgevit.sim4f.arrays import Array, Namespace
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError, require
from edgevit.sim4f.fast import FastProduct, Plan
from edgevit.sim4f.gather import Gather
from edgevit.sim4f.matching import occupancy
from edgevit.sim4f.modulator import passive, realize
from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import read_pixels
from edgevit.sim4f.program import Frame, Operand, Optical, frames
from edgevit.sim4f.signs import PartName, part_of
from edgevit.sim4f.wave import WaveProduct, lens_phases, mask_ramp

__all__ = ["Accelerator", "OffloadedFast", "OffloadedWave"]

At = tuple[int, ...]
# Pixels of the planes that are transformed at once: 0.5 GB of single precision.
BATCH_PIXELS = 1 << 27


@dataclass(frozen=True, eq=False)
class Accelerator:
    """Where arrays live.

    Attributes:
        xp: Array namespace: numpy, or what array_api_compat gives for torch or CuPy.
        device: As the namespace names it; ``None`` for its default.
    """

    xp: Namespace
    device: Any = None

    def up(self, array: np.ndarray[Any, Any]) -> Array:
        """Host to accelerator."""
        host = np.array(array, order="C")
        return self.xp.asarray(host, device=self.device)

    def down(self, array: Array) -> np.ndarray[Any, Any]:
        """Accelerator to host."""
        # torch calls it cpu, CuPy get; numpy has neither.
        move = getattr(array, "cpu", None) or getattr(array, "get", None)
        return np.asarray(array if move is None else move())


@dataclass(frozen=True, eq=False)
class _Take:
    """A ``Gather`` on the accelerator."""

    index: Array
    shape: tuple[int, ...]

    @classmethod
    def of(cls, gather: Gather, at: Accelerator) -> _Take:
        return cls(at.up(gather.indices().reshape(-1)), gather.shape)

    def __call__(self, array: Array, xp: Namespace) -> Array:
        """From each sample, as ``Gather`` does."""
        samples = array.shape[0]
        flat = xp.reshape(array, (samples, -1))
        padded = xp.concat([flat, xp.zeros_like(flat[:, :1])], axis=1)
        # Dark places are -1: the zero behind the end.
        index = xp.where(self.index < 0, self.index + padded.shape[1], self.index)
        return xp.reshape(xp.take(padded, index, axis=1), (samples, *self.shape))


class Device(TypedDict, total=False):
    """What both paths are told of the device, as by ``FastProduct`` and ``WaveProduct``."""

    effects: Effects
    rng: np.random.Generator | None
    full_scales: Mapping[str, float] | None


class OffloadedFast(FastProduct):
    """The fast path, gathers and matrix products on an accelerator.

    Args:
        shapes: Of every tensor and weight.
        at: The accelerator.
        device: See ``Device``.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], at: Accelerator, **device: Unpack[Device]
    ) -> None:
        super().__init__(shapes, **device)
        self._at = at
        self._takes: dict[int, tuple[Gather, _Take]] = {}
        self._stored: dict[tuple[str, PartName], Array] = {}

    def _seen(
        self,
        step: Optical,
        ready: Plan,
        x: np.ndarray[Any, Any],
        kernel: np.ndarray[Any, Any],
        displayed: PartName,
        masked: PartName,
    ) -> np.ndarray[Any, Any]:
        xp = self._at.xp
        left = self._take(ready.displayed)(self._at.up(part_of(x, displayed)), xp)
        right = self._mask(step, ready, kernel, masked)
        return self._at.down(self._take(ready.read)(xp.matmul(left, right), xp))

    def _mask(
        self, step: Optical, ready: Plan, kernel: np.ndarray[Any, Any], masked: PartName
    ) -> Array:
        key = (step.name, masked)
        if key in self._stored:
            return self._stored[key]
        taps = self._displaced(step, part_of(kernel, masked))
        found = self._take(ready.masked)(self._at.up(taps), self._at.xp)
        if step.static:
            self._stored[key] = found
        return found

    def _take(self, gather: Gather) -> _Take:
        # The gather is kept beside its copy: an identity is unique only while it lives.
        if id(gather) not in self._takes:
            self._takes[id(gather)] = (gather, _Take.of(gather, self._at))
        return self._takes[id(gather)][1]


class OffloadedWave(WaveProduct):
    """The wave path, planes and transforms on an accelerator, many frames at once.

    Args:
        shapes: Of every tensor and weight.
        at: The accelerator.
        dtype: As of ``WaveProduct``.
        batch_pixels: Pixels transformed at once, of masks as of input planes.
        device: See ``Device``.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        at: Accelerator,
        dtype: Any = np.float32,
        batch_pixels: int = BATCH_PIXELS,
        **device: Unpack[Device],
    ) -> None:
        require(batch_pixels >= 1, "batch_pixels", ">= 1", batch_pixels)
        super().__init__(shapes, dtype=dtype, **device)
        if self._effects.deformed or self._effects.crosstalk:
            raise ParameterError(
                "fill_factor, crosstalk, rotation, magnification: not modeled on an "
                "accelerator; run the program by WaveProduct on the host"
            )
        self._at, self._pixels = at, batch_pixels

    def _fields(
        self,
        step: Optical,
        x: np.ndarray[Any, Any],
        kernel: np.ndarray[Any, Any],
        displayed: PartName,
        masked: PartName,
    ) -> list[np.ndarray[Any, Any]]:
        if any(step.joint):
            raise ParameterError(
                f"step {step.name!r}: expected a mask, found a joint transform correlator; "
                f"run it by WaveProduct on the host"
            )
        size = max(1, self._pixels // (step.plane[0] * step.plane[1]))
        samples = []
        for i, one in enumerate(x):
            own = kernel[i if len(kernel) > 1 else 0]
            shown = apply(step.displayed.moves, part_of(one, displayed))
            taps = apply(step.masked.moves, part_of(own, masked))
            optics = _Optics(step, self._effects, self._at)
            every = frames(step, self._shapes)
            found: list[np.ndarray[Any, Any]] = []
            while some := list(itertools.islice(every, size)):
                found.extend(optics.fields(some, shown, taps))
            samples.append(found)
        return [np.stack(frame) for frame in zip(*samples, strict=True)]


class _Optics:
    """Two lenses and a mask for batches of frames of one step; keeps the last input planes."""

    def __init__(self, step: Optical, effects: Effects, at: Accelerator) -> None:
        self._step, self._effects, self._at = step, effects, at
        self._real = effects.exact_mask
        for lattice, n in zip(
            (step.displayed.rows, step.displayed.columns), step.plane, strict=True
        ):
            occupancy(lattice, n)
        rows, columns = read_pixels(step)
        self._rows, self._columns = at.up(rows), at.up(columns)
        self._lit: tuple[tuple[At, ...], Array] | None = None

    def fields(
        self, some: Sequence[Frame], shown: np.ndarray[Any, Any], taps: np.ndarray[Any, Any]
    ) -> list[np.ndarray[Any, Any]]:
        """The field at the read pixels of each frame, in units of the exact product."""
        xp = self._at.xp
        entries, light_of = _distinct([f.displayed for f in some])
        masks, mask_of = _distinct([f.masked for f in some])
        light = self._light(entries, np.stack([shown[e] for e in entries]))
        passed = self._transfer(np.stack([taps[m] for m in masks]))
        light = xp.take(light, self._at.up(light_of), axis=0)
        if not np.array_equal(mask_of, np.arange(len(masks))):
            passed = xp.take(passed, self._at.up(mask_of), axis=0)
        return list(self._at.down(self._read(light * passed)))

    def _light(self, entries: tuple[At, ...], shown: np.ndarray[Any, Any]) -> Array:
        if self._lit is None or self._lit[0] != entries:
            plane = self._planes(self._step.displayed, shown)
            self._lit = (entries, self._transform(plane))
        return self._lit[1]

    def _transfer(self, taps: np.ndarray[Any, Any]) -> Array:
        response = self._planes(self._step.masked, taps)
        if self._real:
            return self._transform(response)
        xp = self._at.xp
        ramp = self._at.up(mask_ramp(self._effects.shift, self._step.plane, taps.dtype))
        spectra = self._transform(response * ramp)
        lenses = lens_phases(
            self._step.plane, self._effects.aberration, _complex_of(taps.dtype)
        )
        if self._effects.mask.kind != "ideal":
            spectra = xp.stack([self._shown(spectra[i, ...]) for i in range(len(taps))])
        return spectra * self._at.up(lenses)

    def _shown(self, spectrum: Array) -> Array:
        """What the modulator shows, at the brightness of the exact mask."""
        xp = self._at.xp
        if not bool(xp.any(spectrum != 0)):
            return spectrum
        wanted, top = passive(spectrum, xp=xp)
        return realize(self._effects.mask, wanted, xp=xp) * top

    def _planes(self, operand: Operand, entries: np.ndarray[Any, Any]) -> Array:
        """Elements ``[n, rows, columns]`` on planes ``[n, R, C]``, added where they meet."""
        xp, plane = self._at.xp, self._step.plane
        rows, row_of = np.unique(operand.rows.coordinates() % plane[0], return_inverse=True)
        columns, column_of = np.unique(
            operand.columns.coordinates() % plane[1], return_inverse=True
        )
        held = np.zeros((len(entries), len(rows), len(columns)), entries.dtype)
        place = np.ix_(row_of, column_of)
        for there, one in zip(held, entries, strict=True):
            np.add.at(there, place, one)
        pixels = (rows[:, None] * plane[1] + columns[None, :]).reshape(-1)
        ready = self._at.up(held.reshape(len(entries), -1))
        flat = xp.zeros(
            (len(entries), plane[0] * plane[1]), dtype=ready.dtype, device=self._at.device
        )
        flat[:, self._at.up(pixels)] = ready
        return xp.reshape(flat, (len(entries), *plane))

    def _transform(self, planes: Array) -> Array:
        xp = self._at.xp
        if self._real:
            return xp.fft.rfftn(planes, axes=(-2, -1))
        return xp.fft.fftn(planes, axes=(-2, -1))

    def _read(self, spectra: Array) -> Array:
        xp = self._at.xp
        lines = xp.take(xp.fft.ifft(spectra, axis=-2), self._rows, axis=-2)
        if self._real:
            across = xp.fft.irfft(lines, n=self._step.plane[1], axis=-1)
        else:
            across = xp.fft.ifft(lines, axis=-1)
        return xp.take(across, self._columns, axis=-1)


def _distinct(entries: Sequence[At]) -> tuple[tuple[At, ...], np.ndarray[Any, Any]]:
    """Each entry once in order of appearance, and which one each place holds."""
    places = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    return tuple(places), np.array([places[entry] for entry in entries], np.int64)


def _complex_of(dtype: Any) -> Any:
    return np.complex64 if dtype == np.float32 else np.complex128
