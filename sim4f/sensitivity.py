"""How much a displaced mask disturbs a step: what alignment its mapping needs."""

from __future__ import annotations

import numpy as np

from edgevit.sim4f.joint import weakened
from edgevit.sim4f.perturb import centered
from edgevit.sim4f.program import Optical

__all__ = ["misplacement_error"]


def misplacement_error(step: Optical, shift: tuple[float, float]) -> float:
    """Relative root-mean-square error of uncorrelated products under a displaced mask.

    A tap at ``q`` is weakened to ``cos(2 pi (ey qy / R + ex qx / C))``; the error is the mean
    over all taps. For one axis and taps over ``k`` pixels it is to lowest order
    ``(pi e k / N)^2 / (2 sqrt 5)``.

    Args:
        step: Its kernel lattice decides.
        shift: Displacement along y and x, in mask pixels.
    """
    if any(step.joint):
        return float(np.sqrt(np.mean(np.abs(1 - weakened(step, shift).real) ** 2)))
    turns = [
        e * centered(lattice, n) / n
        for e, lattice, n in zip(
            shift, (step.masked.rows, step.masked.columns), step.plane, strict=True
        )
    ]
    kept = np.cos(2 * np.pi * (turns[0][:, None] + turns[1][None, :]))
    return float(np.sqrt(np.mean((1 - kept) ** 2)))
