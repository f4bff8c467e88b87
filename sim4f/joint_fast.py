"""The fast path of a joint transform correlator: what the first camera adds to the product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgevit.sim4f.counting import normals
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.joint import (
    autocorrelated,
    first_pass_sigma,
    joint_plane,
    require_simple,
    strays,
    weakened,
)
from edgevit.sim4f.light import at_outputs
from edgevit.sim4f.moves import apply
from edgevit.sim4f.program import Optical, frames, sizes

__all__ = ["JointFields"]

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[int]]


class JointFields:
    """Corrects the products of one step; made once a step.

    Args:
        step: The step.
        shapes: Of its tensors.
        effects: Of the device.
        terms: Labels that electronics adds up, in the order of the fields' first axis.

    Raises:
        ParameterError: An effect that is not modeled, or not in closed form.
    """

    def __init__(self, step: Optical, shapes: Shapes, effects: Effects, terms: str) -> None:
        require_simple(step, effects)
        if effects.counts and effects.camera.adc_bits:
            raise ParameterError(
                f"step {step.name!r}: most of a power spectrum is below the converter's step, "
                f"which has no closed form; use the wave path"
            )
        if effects.background or effects.camera.nonuniformity or effects.laser_noise:
            raise ParameterError(
                f"step {step.name!r}: background, gains and laser noise of a first camera "
                f"have no closed form; use the wave path"
            )
        self._step, self._effects, self._terms = step, effects, terms
        self._size = sizes(step, shapes)
        self._shapes = shapes
        self._strays = strays(step)

    def __call__(
        self, x: Array, kernel: Array, product: Array, rng: np.random.Generator
    ) -> Array:
        """The fields ``[samples, terms, *output]`` that the second output plane holds.

        Args:
            x: ``[samples, *source]``, displayed.
            kernel: ``[samples or 1, *kernel]``, displayed beside it.
            product: Cross-correlation at the pixels that are read.
            rng: Of the first camera's noise.
        """
        shown = self._entries(self._step.displayed.moves, x)
        taps = self._entries(self._step.masked.moves, kernel)
        tops = (_largest(shown), _largest(taps))
        found = self._direct(shown, taps, tops) if self._strays else product
        if any(self._effects.shift):
            factor = weakened(self._step, self._effects.shift).real
            found = found * self._spread(np.ones((1, *self._size.values())), factor)
        if self._effects.counts:
            noise = normals(rng, found.size).reshape(found.shape)
            found = found + noise * self._spread(self._sigma(shown, taps, tops))
        return np.asarray(found, product.dtype)

    def _entries(self, moves: Any, tensors: Array) -> Array:
        return np.stack([apply(moves, one) for one in tensors])

    def _sigma(self, shown: Array, taps: Array, tops: tuple[Array, Array]) -> Array:
        """Of each sample and frame: ``[samples, *labels]`` in the order of ``sizes``."""
        x, k = self._step.displayed.labels, self._step.masked.labels
        scaled = [
            (np.abs(a) / top, s) for a, top, s in ((shown, tops[0], x), (taps, tops[1], k))
        ]
        power = sum(self._aligned(np.square(a).sum(axis=(-2, -1)), s) for a, s in scaled)
        sums = sum(self._aligned(a.sum(axis=(-2, -1)), s) for a, s in scaled)
        pixels = self._step.plane[0] * self._step.plane[1]
        brightest = np.maximum(np.square(sums), np.finfo(np.float64).tiny)
        sigma = first_pass_sigma(self._effects, np.asarray(power), brightest, pixels)
        scale = (tops[0] * tops[1]).reshape(-1, *[1] * len(self._size))
        return np.asarray(sigma * scale)

    def _aligned(self, values: Array, labels: str) -> Array:
        """Values of an operand's entries beside the labels that it does not have."""
        order = [label for label in self._size if label in labels]
        moved = values.transpose(0, *(1 + labels.index(label) for label in order))
        shape = [self._size[s] if s in labels else 1 for s in self._size]
        return moved.reshape(len(values), *shape)

    def _spread(self, values: Array, pattern: Array | None = None) -> Array:
        """Values of frames ``[samples, *labels]`` at each output element."""
        return at_outputs(self._step, self._size, self._terms, values, pattern)

    def _direct(self, shown: Array, taps: Array, tops: tuple[Array, Array]) -> Array:
        """Frame by frame, where other terms of the autocorrelation reach what is read."""
        lattice = len(self._step.read.rows), len(self._step.read.columns)
        samples = len(shown)
        every = np.zeros((samples, *self._size.values(), *lattice))
        for frame, at in zip(
            frames(self._step, self._shapes), np.ndindex(*self._ordered()), strict=True
        ):
            here = dict(zip(self._step.order, at, strict=True))
            place = tuple(here[label] for label in self._size)
            for i in range(samples):
                k = i if len(taps) > 1 else 0
                top, other = float(tops[0].flat[i]), float(tops[1].flat[k])
                one = shown[i][frame.displayed] / top
                two = taps[k][frame.masked] / other
                plane = joint_plane(self._step, one.astype(float), two.astype(float))
                every[(i, *place)] = autocorrelated(self._step, plane) * (top * other)
        return self._collected(every)

    def _ordered(self) -> tuple[int, ...]:
        return tuple(self._size[label] for label in self._step.order)

    def _collected(self, every: Array) -> Array:
        """``[samples, *labels, rows, columns]`` to ``[samples, terms, *output]``."""
        wanted = self._terms + self._step.read.labels
        order = [1 + list(self._size).index(label) for label in wanted]
        moved = every.transpose(0, *order, every.ndim - 2, every.ndim - 1)
        kept = moved.shape[1 + len(self._terms) :]
        flat = moved.reshape(len(every), -1, *kept)
        return np.stack(
            [
                np.stack([apply(self._step.read.moves, term) for term in sample])
                for sample in flat
            ]
        )


def _largest(entries: Array) -> Array:
    """Of each sample, kept beside its axes; 1 where all is dark."""
    top = np.abs(entries).max(axis=tuple(range(1, entries.ndim)), keepdims=True)
    return np.asarray(np.where(top > 0, top, 1), np.float64)
