"""Sign schemes: which exposures make one signed product, and how they are put together.

A camera sees intensities. What it counts of a frame's real field ``E`` and a reference ``r``
is ``(E + s r)^2``; a scheme is a list of exposures with the parts of the operands that each
shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["AMPLITUDE", "HOMODYNE", "SCHEMES", "Exposure", "Signs", "part_of"]

PartName = Literal["signed", "positive", "negative"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Exposure:
    """One exposure of a frame.

    Attributes:
        displayed: Part of the displayed operand.
        masked: Part of the kernel.
        reference: Amplitude of the reference wave, in units of the step's full scale.
        weight: With which the read-out enters the sum.
    """

    displayed: PartName
    masked: PartName
    reference: float
    weight: float


@dataclass(frozen=True)
class Signs:
    """A sign scheme.

    Attributes:
        name: For reports.
        detector: ``intensity``: the sum of weighted intensities times ``gain`` over the full
            scale; ``amplitude``: the sum of weighted square roots times ``gain``.
        exposures: Of each frame.
        gain: See ``detector``.
    """

    name: str
    detector: Literal["intensity", "amplitude"]
    exposures: tuple[Exposure, ...]
    gain: float

    @property
    def linear(self) -> bool:
        """Intensities add up to a multiple of the field, whatever the field is.

        Every exposure shows the same parts, and the squares of field and reference cancel.
        """
        parts = {(e.displayed, e.masked) for e in self.exposures}
        squares = sum(e.weight for e in self.exposures)
        offset = sum(e.weight * e.reference**2 for e in self.exposures)
        return self.detector == "intensity" and len(parts) == 1 and squares == offset == 0

    @property
    def slope(self) -> float:
        """The multiple, for a ``linear`` scheme; 1 if the scheme is right."""
        return 2 * self.gain * sum(e.weight * e.reference for e in self.exposures)


# (E + r)^2 - (E - r)^2 = 4 E r: signed operands, a phase-stable reference.
HOMODYNE = Signs(
    "homodyne",
    "intensity",
    (Exposure("signed", "signed", 1.0, 1.0), Exposure("signed", "signed", -1.0, -1.0)),
    0.25,
)
# Four products of non-negative parts, each the square root of its intensity.
AMPLITUDE = Signs(
    "amplitude",
    "amplitude",
    (
        Exposure("positive", "positive", 0.0, 1.0),
        Exposure("positive", "negative", 0.0, -1.0),
        Exposure("negative", "positive", 0.0, -1.0),
        Exposure("negative", "negative", 0.0, 1.0),
    ),
    1.0,
)
SCHEMES = {scheme.name: scheme for scheme in (HOMODYNE, AMPLITUDE)}


def part_of(array: Array, part: PartName) -> Array:
    """``signed`` as it is; the ``positive`` part; the ``negative`` part made positive."""
    if part == "signed":
        return array
    return np.maximum(array if part == "positive" else -array, 0)
