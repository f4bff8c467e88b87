"""New weights for a layer whose inputs or weights are rounded, by least squares.

With ``t`` the true input and ``x`` the one that the quantized network gives, the weights that
bring ``W' x`` closest to ``W t`` are ``W' = W (T + l) (H + l)^-1`` with ``H = E[x x^T]``,
``T = E[t x^T]`` and a ridge ``l`` that keeps them near W where data says little. They are then
rounded with compensation (``compensated_rounding``), and what is left on average goes into the
bias: Nagel et al., arXiv 1906.04721, section 4.2 (bias correction).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.compensated_rounding import (
    Grid,
    Order,
    compensated,
    damped,
    diagonal_ridge,
    expected_error,
    nearest,
    refit,
    search_scales,
)
from edgevit.passes.facts import Array
from edgevit.passes.second_moments import Moments
from edgevit.passes.two_sided_rounding import rounded_together

# Sums are float32: a variance below this share of the power says little beside their roundoff,
# and weights refitted to it are at times 50 times as far off as those that are not.
_ROUNDOFF = 2.0**-14
# Rows of one sample depend on each other: directions that data has not seen are not free.
_SCARCE = 20.0

__all__ = [
    "Reconstruction",
    "Settings",
    "held",
    "normal_equations",
    "reconstruct",
    "refitted",
    "ridge_of",
]


@dataclass(frozen=True)
class Settings:
    """How weights are rebuilt.

    Attributes:
        bits: Width of weight codes.
        blocks: Length of the blocks of inputs that share a scale; 0 for one scale a channel.
        compensate: Whether later columns make good for earlier ones; else the nearest code.
        damping: Ridge of the rounding, as a share of the mean of H's diagonal.
        ridge: Ridge of the least squares, likewise; negative: weights are not refitted.
        together: Ridge of outputs that make good for each other, likewise of G's.
    """

    bits: int
    blocks: int
    compensate: bool
    damping: float
    ridge: float
    together: float = 0.1


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What takes the place of a layer's weights.

    Attributes:
        codes: int8 ``[g, o, i]``.
        grid: What they mean.
        shift: To be added to the bias, float64 ``[C_out]``.
        before: Expected squared error of plain rounding at the output, over its power.
        after: The same of this reconstruction.
    """

    codes: Array
    grid: Grid
    shift: Array
    before: float
    after: float


def reconstruct(
    layer: ChannelLayer, seen: Moments, settings: Settings, worth: Array | None = None
) -> Reconstruction:
    """Codes, scales and bias shift of one layer.

    Args:
        layer: Its weights.
        seen: Moments of its input; at least one row.
        settings: How.
        worth: ``E[g g^T]`` of gradients at its outputs, ``[o, o]``: outputs make good for each
            other's errors (``two_sided_rounding``); ``None``, or a layer of several groups:
            each for itself.
    """
    weight = layer.matrix().astype(np.float64)
    hessian, cross = normal_equations(seen, centered=layer.bias is not None)
    count = _count(weight.shape[2], settings.blocks)
    diagonal = np.einsum("gii->gi", hessian)
    plain = search_scales(weight, np.ones_like(diagonal), settings.bits, count)
    target = weight
    if seen.cross is not None and settings.ridge >= 0:
        target = refitted(weight, hessian, cross, settings.ridge, seen.rows)
    ridge = ridge_of(settings.damping, target.shape[2], seen.rows)
    order = Order.of(hessian, ridge) if settings.compensate else None
    codes, grid = _rounded(target, hessian, order, count, settings.bits)
    if worth is not None and order is not None and len(target) == 1:
        inputs = order, damped(hessian[0], ridge)
        weighed = damped(worth, settings.together)
        codes = rounded_together(target, codes, grid, inputs, weighed)
    made = codes * grid.columns(weight.shape[2])
    mean, aim = seen.mean / seen.rows, seen.target / seen.rows
    shift = np.einsum("goi,gi->go", weight, aim) - np.einsum("goi,gi->go", made, mean)
    power = float(((weight @ hessian) * weight).sum()) or 1.0
    before = expected_error(weight, nearest(weight, plain), plain, hessian).sum() / power
    after = expected_error(target, codes, grid, hessian).sum() / power
    return Reconstruction(codes, grid, shift.reshape(-1), float(before), float(after))


def held(made: Reconstruction, least: float) -> Reconstruction:
    """The same weights where no scale is below ``least``: see ``QuantScheme.least_scale``."""
    if (made.grid.scale >= least).all():
        return made
    grid = replace(made.grid, scale=np.maximum(made.grid.scale, least))
    weight = made.codes * made.grid.columns(made.codes.shape[2])
    return replace(made, codes=nearest(weight, grid), grid=grid)


def normal_equations(seen: Moments, centered: bool) -> tuple[Array, Array]:
    """``E[x x^T]`` and ``E[t x^T]``; without the means where a bias takes care of them.

    Inputs that are constant on all rows, one row included, are then left with zeros.
    """
    hessian = seen.hessian.astype(np.float64) / seen.rows
    cross = hessian if seen.cross is None else seen.cross.astype(np.float64) / seen.rows
    if not centered:
        return hessian, cross
    mean, aim = seen.mean / seen.rows, seen.target / seen.rows
    power = np.einsum("gii->gi", hessian)
    hessian = hessian - mean[:, :, None] * mean[:, None]
    varies = np.einsum("gii->gi", hessian) > _ROUNDOFF * power
    hessian = hessian * varies[:, :, None] * varies[:, None]
    if seen.cross is None:
        return hessian, hessian
    return hessian, (cross - aim[:, :, None] * mean[:, None]) * varies[:, None]


def ridge_of(share: float, inputs: int, rows: int) -> float:
    """A ridge as a share of the diagonal: more where there are few rows for the inputs."""
    return share * (1 + _SCARCE * inputs / rows)


def _count(inputs: int, block: int) -> int:
    """Blocks of at most ``block`` inputs, all of one length."""
    if not block or block >= inputs:
        return 1
    length = next(b for b in range(block, 0, -1) if inputs % b == 0)
    return inputs // length


def _rounded(
    target: Array, hessian: Array, order: Order | None, count: int, bits: int
) -> tuple[Array, Grid]:
    """Codes with the smaller expected error of the two scale searches, plain and weighted."""
    diagonal = np.einsum("gii->gi", hessian)
    found = []
    for importance in (np.ones_like(diagonal), diagonal):
        grid = search_scales(target, importance, bits, count)
        codes = nearest(target, grid) if order is None else compensated(target, grid, order)
        grid = refit(target, codes, grid, hessian)
        found.append((expected_error(target, codes, grid, hessian), codes, grid))
    (first, codes_a, a), (second, codes_b, b) = found
    better = (second < first)[..., None]
    scale = np.where(better, b.scale, a.scale)
    return np.where(better, codes_b, codes_a), Grid(scale, a.low, a.high)


def refitted(weight: Array, hessian: Array, cross: Array, ridge: float, rows: int) -> Array:
    """``W (T + l) (H + l)^-1``; the ridge grows where there are few rows for the inputs."""
    added = diagonal_ridge(hessian, ridge_of(ridge, hessian.shape[-1], rows))
    right = np.linalg.solve(
        hessian + added, (cross + added).swapaxes(1, 2) @ weight.swapaxes(1, 2)
    )
    return np.ascontiguousarray(right.swapaxes(1, 2))
