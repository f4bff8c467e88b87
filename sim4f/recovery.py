"""Signed numbers through a square-law detector.

A camera counts |y|^2. Four ways back to y, where ``y`` is in units of sqrt(electrons):

- *split*: kernel (and input) in positive and negative parts, one frame each, square roots
  subtracted. Needs y >= 0 in each frame.
- *homodyne*: two frames with a reference r in phase, (|y + r|^2 - |y - r|^2) / (4 r) = y.
- *four-step*: references r, i r, -r, -i r give the complex y.
- *offset*: a constant b makes the input non-negative; b * sum(kernel) is subtracted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.errors import require

__all__ = [
    "FRAMES",
    "amplitude",
    "four_step_join",
    "four_step_light",
    "homodyne_join",
    "homodyne_light",
    "homodyne_sigma",
    "offset_for",
    "offset_remove",
    "split",
    "split_join",
    "split_sigma",
]

# Frames per signed product; ``split`` of a signed input too takes 4.
FRAMES = {"none": 1, "split": 2, "split-both": 4, "homodyne": 2, "offset": 2, "four-step": 4}

Values = npt.NDArray[Any]


def split(values: Values) -> tuple[Values, Values]:
    """``(positive, negative)`` parts, both >= 0, with values = positive - negative."""
    return np.maximum(values, 0), np.maximum(-values, 0)


def amplitude(electrons: Values) -> Values:
    """Square root of counts; noise can make a count negative, and a light amplitude is not."""
    return np.sqrt(np.maximum(electrons, 0))


def split_join(positive: Values, negative: Values) -> Values:
    """The signed y from the electrons of the two frames: sqrt(positive) - sqrt(negative)."""
    return amplitude(positive) - amplitude(negative)


def split_sigma() -> float:
    """Shot-noise deviation of ``split_join`` for many electrons: sqrt(1/4 + 1/4)."""
    return float(np.sqrt(0.5))


def homodyne_light(y: Values, reference: float) -> tuple[Values, Values]:
    """Mean electrons of the two frames: |y + r|^2 and |y - r|^2; ``y`` may be complex."""
    require(reference > 0, "reference", "> 0 sqrt(electrons)", reference)
    return np.abs(y + reference) ** 2, np.abs(y - reference) ** 2


def homodyne_join(plus: Values, minus: Values, reference: float) -> Values:
    """The real part of y from the electrons of the two frames: (plus - minus) / (4 r)."""
    require(reference > 0, "reference", "> 0 sqrt(electrons)", reference)
    return (plus - minus) / (4 * reference)


def four_step_light(y: Values, reference: float) -> tuple[Values, ...]:
    """Mean electrons of the four frames |y + r i^k|^2, k = 0 ... 3."""
    require(reference > 0, "reference", "> 0 sqrt(electrons)", reference)
    return tuple(np.abs(y + reference * step) ** 2 for step in (1, 1j, -1, -1j))


def four_step_join(frames: tuple[Values, ...], reference: float) -> Values:
    """The complex y: ((I0 - I2) + i (I1 - I3)) / (4 r)."""
    require(reference > 0, "reference", "> 0 sqrt(electrons)", reference)
    require(len(frames) == 4, "frames", "four", len(frames))
    return ((frames[0] - frames[2]) + 1j * (frames[1] - frames[3])) / (4 * reference)


def homodyne_sigma(y: Real, reference: float) -> Real:
    """Shot-noise deviation of ``homodyne_join``: sqrt(2 (y^2 + r^2)) / (4 r)."""
    require(reference > 0, "reference", "> 0 sqrt(electrons)", reference)
    return np.sqrt(2 * (np.square(y) + reference**2)) / (4 * reference)


def offset_for(values: Values) -> float:
    """The smallest b >= 0 with values + b >= 0."""
    return max(0.0, -float(values.min()))


def offset_remove(y: Values, offset: float, kernel_sum: Values | float) -> Values:
    """The y of the original input: y' - b * sum(kernel), the sum over the taps that saw b."""
    return y - offset * kernel_sum
