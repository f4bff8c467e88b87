"""Codes improved one at a time until no single change helps.

With ``G = (W - Q) H`` the error ``tr((W - Q) H (W - Q)^T)`` is least in one weight, all others
as they are, at ``q + G / H_jj``: its nearest code takes the place of the old one. No step adds
error, so the codes are at least as good as those it starts from (Behdin, Acharya, Gupta, Song,
Zhu, Keerthi and Mazumder, "QuantEase", arXiv 2309.01885).
"""

from __future__ import annotations

import numpy as np

from edgevit.passes.compensated_rounding import Grid
from edgevit.passes.facts import Array

__all__ = ["descend"]


def descend(weight: Array, codes: Array, grid: Grid, hessian: Array, sweeps: int) -> Array:
    """Sweep over all columns, at most so often; all rows at once.

    Args:
        weight: ``[g, o, i]``.
        codes: Where it starts, ``[g, o, i]``.
        grid: Where codes lie; its scales stay.
        hessian: ``E[x x^T]``, damped, ``[g, i, i]``.
        sweeps: Rounds at most.

    Returns:
        Codes of the grid's dtype.
    """
    inputs = weight.shape[2]
    diagonal = np.einsum("gii->gi", hessian)
    spread = grid.columns(inputs)
    found = codes.astype(np.float64)
    for _ in range(sweeps):
        changed = False
        # Afresh every round: running sums of differences would drift.
        pull = (weight - found * spread) @ hessian
        for at in range(inputs):
            live = diagonal[:, at, None] > 0
            step = np.divide(
                pull[..., at], diagonal[:, at, None] * spread[..., at],
                out=np.zeros(pull.shape[:2]), where=live,
            )  # fmt: skip
            moved = grid.rounded(found[..., at] + step) - found[..., at]
            rows = np.nonzero(np.where(live, moved, 0))
            if not len(rows[0]):
                continue
            changed = True
            change = moved[rows]
            g, o = rows
            found[g, o, at] += change
            pull[rows] -= (change * spread[g, o, at])[:, None] * hessian[g, at]
        if not changed:
            break
    return found.astype(grid.dtype)
