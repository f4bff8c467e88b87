"""Rounding of weights in which later ones make good for the error of earlier ones.

For outputs ``y = W x`` the squared error of rounded weights is ``tr(dW H dW^T)`` with
``H = E[x x^T]``. Rounding one column at a time, the best change of the columns that are not
rounded yet is known in closed form from the inverse of H: Hassibi and Stork, "Second order
derivatives for network pruning: Optimal Brain Surgeon" (NIPS 1992); Frantar, Ashkboos,
Hoefler and Alistarh, "GPTQ" (arXiv 2210.17323), eq. 2 and algorithm 1: all rows share one
order, so that one Cholesky factor of the inverse serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgevit.passes.facts import Array

__all__ = [
    "Grid",
    "Order",
    "compensated",
    "damped",
    "diagonal_ridge",
    "expected_error",
    "nearest",
    "refit",
    "search_scales",
]

_BLOCK = 64  # columns whose updates are collected: one matrix product for each block


@dataclass(frozen=True)
class Grid:
    """Where weights may lie: ``scale * code`` with ``low <= code <= high``.

    Attributes:
        scale: Positive, ``[g, o, blocks]``: consecutive inputs share one in equal blocks.
        low: Smallest code.
        high: Largest code.
        levels: The codes there are, ascending; ``None``: every integer of the range.
    """

    scale: Array
    low: int
    high: int
    levels: Array | None = None

    @property
    def dtype(self) -> type[np.signedinteger[Any]]:
        """What codes are stored in."""
        return np.int8 if self.high <= 127 else np.int32

    def rounded(self, units: Array) -> Array:
        """The nearest code of real numbers in units of the scale, as they come."""
        if self.levels is None:
            return np.clip(np.rint(units), self.low, self.high)
        return self.levels[np.searchsorted(self._middles, units)]

    @cached_property
    def _middles(self) -> Array:
        assert self.levels is not None
        return np.asarray((self.levels[1:].astype(np.float64) + self.levels[:-1]) / 2)

    def columns(self, inputs: int) -> Array:
        """The scale of every weight, ``[g, o, inputs]``."""
        return np.repeat(self.scale, inputs // self.scale.shape[2], axis=2)


def nearest(weight: Array, grid: Grid) -> Array:
    """Codes of the nearest points, half to even, ``[g, o, i]``."""
    return grid.rounded(weight / grid.columns(weight.shape[2])).astype(grid.dtype)


def expected_error(weight: Array, codes: Array, grid: Grid, hessian: Array) -> Array:
    """``E |W x - Q x|^2`` of every output, ``[g, o]``.

    Args:
        weight: ``[g, o, i]``.
        codes: ``[g, o, i]``.
        grid: Its scales.
        hessian: ``E[x x^T]`` of each group, ``[g, i, i]``.
    """
    off = weight - codes * grid.columns(weight.shape[2])
    return np.asarray(((off @ hessian) * off).sum(axis=2))


def search_scales(
    weight: Array, importance: Array, bits: int, blocks: int = 1, candidates: int = 60
) -> Grid:
    """Symmetric scales with the least importance-weighted rounding error.

    The largest magnitude of a block shrinks step by step to 0.4 of itself: clipping a few
    outliers can cost less than a coarse grid for all.

    Args:
        weight: ``[g, o, i]``.
        importance: ``E[x^2]`` of every input, ``[g, i]``; non-negative.
        bits: Width of the codes, 2 to 8.
        blocks: Equal parts of the inputs, each with a scale of its own.
        candidates: Number of scales tried.
    """
    high = 2 ** (bits - 1) - 1
    g, o, i = weight.shape
    parts = weight.reshape(g, o, blocks, i // blocks)
    worth = np.broadcast_to(importance[:, None], weight.shape).reshape(parts.shape)
    worth = worth + 1e-6 * importance.mean() + np.finfo(np.float64).tiny
    peak = np.abs(parts).max(axis=3, keepdims=True)
    peak = np.where(peak > 0, peak, 1.0)
    best = np.full(peak.shape, np.inf)
    scale = peak / high
    for ratio in np.linspace(1.0, 0.4, candidates):
        tried = peak * (ratio / high)
        off = parts - tried * np.clip(np.rint(parts / tried), -high, high)
        error = (off * off * worth).sum(axis=3, keepdims=True)
        scale = np.where(error < best, tried, scale)
        best = np.minimum(error, best)
    return Grid(scale[..., 0], -high, high)


@dataclass(frozen=True, eq=False)
class Order:
    """The order in which columns are rounded, and what each hands on to those after it.

    Attributes:
        columns: ``[g, i]``.
        factor: Upper triangular ``U`` with ``U^T U = H^-1`` in that order, ``[g, i, i]``.
    """

    columns: Array
    factor: Array

    @classmethod
    def of(cls, hessian: Array, damping: float) -> Order:
        """Columns with the largest ``H_ii`` first: they have the most others to make good.

        Args:
            hessian: ``E[x x^T]``, ``[g, i, i]``; only its proportions matter.
            damping: Added to the diagonal, as a share of its mean; keeps H invertible where
                inputs are dependent or dead.
        """
        diagonal = np.einsum("gii->gi", hessian)
        columns = np.argsort(-diagonal, axis=1, kind="stable")
        return cls(columns, _inverse_factor(_ordered(hessian, columns), damping))


def compensated(weight: Array, grid: Grid, given: Order) -> Array:
    """Codes of a weight, each column's error carried on to those after it.

    Args:
        weight: ``[g, o, i]``, float64.
        grid: Where the codes lie.
        given: Of the inputs' moments.

    Returns:
        ``[g, o, i]``, of the grid's dtype.
    """
    inputs = weight.shape[2]
    order, factor = given.columns, given.factor
    rest = np.take_along_axis(weight.astype(np.float64), order[:, None], axis=2)
    spread = np.take_along_axis(grid.columns(inputs), order[:, None], axis=2)
    codes = np.empty(rest.shape, grid.dtype)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        part = factor[:, start:stop]
        carried = _round_block(rest, spread, part, codes, start, stop, grid)
        rest[..., stop:] -= carried @ part[..., stop:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes, back[:, None], axis=2)


def _round_block(
    rest: Array, spread: Array, part: Array, codes: Array, start: int, stop: int, grid: Grid
) -> Array:
    """Round the columns of a block in place; what each carries on, ``[g, o, block]``."""
    carried = np.zeros((*rest.shape[:2], stop - start))
    for at in range(start, stop):
        row = part[:, at - start]
        code = grid.rounded(rest[..., at] / spread[..., at])
        codes[..., at] = code
        share = (rest[..., at] - code * spread[..., at]) / row[:, None, at]
        rest[..., at + 1 : stop] -= share[..., None] * row[:, None, at + 1 : stop]
        carried[..., at - start] = share
    return carried


def _ordered(hessian: Array, order: Array) -> Array:
    rows = np.take_along_axis(hessian, order[:, :, None], axis=1)
    return np.take_along_axis(rows, order[:, None], axis=2)


def diagonal_ridge(hessian: Array, share: float) -> Array:
    """That share of each matrix's mean diagonal, on a diagonal: ``[..., i, i]``, float64."""
    size = hessian.shape[-1]
    mean = np.einsum("...ii->...", hessian.astype(np.float64)) / size
    # A group that never sees anything: any positive number leaves plain rounding.
    amount = np.where(mean > 0, share * mean, 1.0)
    return np.asarray(amount[..., None, None] * np.eye(size))


def damped(hessian: Array, share: float) -> Array:
    """With ``diagonal_ridge`` added to it."""
    return np.asarray(hessian + diagonal_ridge(hessian, share))


def _inverse_factor(hessian: Array, damping: float) -> Array:
    """Upper triangular ``U`` with ``U^T U = (H + damping)^-1``, ``[g, i, i]``."""
    wide = hessian.astype(np.float64)
    # From its last column on, H is L L^T; turned round again, L^-1 is U.
    lower = _cholesky(wide[:, ::-1, ::-1], diagonal_ridge(wide, damping))
    return np.ascontiguousarray(_inverse_lower(lower)[:, ::-1, ::-1])


def _cholesky(hessian: Array, ridge: Array, attempts: int = 6) -> Array:
    """Of H and a ridge, or of ten times as much, and so on.

    H is a difference of float32 sums: where the mean is much of the power, roundoff can leave
    it indefinite by more than the damping.
    """
    try:
        return np.asarray(np.linalg.cholesky(hessian + ridge))
    except np.linalg.LinAlgError:
        if attempts == 1:
            raise
        return _cholesky(hessian, 10 * ridge, attempts - 1)


def _inverse_lower(lower: Array) -> Array:
    """Inverse of lower triangular matrices, ``[g, i, i]``.

    By halves, as ``[[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]``: nearly all of
    it are matrix products, a third of what a general inverse takes.
    """
    size = lower.shape[-1]
    if size <= _BLOCK:
        return np.tril(np.linalg.inv(lower))
    at = size // 2
    first, last = _inverse_lower(lower[:, :at, :at]), _inverse_lower(lower[:, at:, at:])
    found = np.zeros_like(lower)
    found[:, :at, :at], found[:, at:, at:] = first, last
    found[:, at:, :at] = -(last @ lower[:, at:, :at]) @ first
    return found


def refit(weight: Array, codes: Array, grid: Grid, hessian: Array) -> Grid:
    """Scales that fit fixed codes best: least squares in the metric of H, one for each row.

    Rows whose best scale would not be positive keep theirs, and so do grids with blocks.
    """
    if grid.scale.shape[2] != 1:
        return grid
    q = codes.astype(np.float64)
    along = q @ hessian
    cross = (along * weight).sum(axis=2)
    power = (along * q).sum(axis=2)
    fitted = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    scale = np.where(fitted > 0, fitted, grid.scale[..., 0])
    return replace(grid, scale=scale[..., None])
