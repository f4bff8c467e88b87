"""Weights of one layer as sums of shifts, or as integers by the very same method.

Every form is a grid of codes with a scale for each output channel. The codes are chosen with
compensation (``compensated_rounding``), then improved one at a time (``coordinate_descent``);
the scales are those of a few candidates that leave the least error of the layer's output.
Scales of shifts are powers of two, ``y = 2^e sum of (sign << s) x``, unless they may be free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgevit.errors import UsageError
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.compensated_rounding import (
    Grid,
    Order,
    compensated,
    damped,
    expected_error,
    nearest,
    refit,
    search_scales,
)
from edgevit.passes.coordinate_descent import descend
from edgevit.passes.facts import Array
from edgevit.passes.reconstruct_weights import normal_equations, refitted, ridge_of
from edgevit.passes.second_moments import Moments
from edgevit.passes.two_sided_rounding import rounded_together
from edgevit.quantization import SMALLEST_SCALE
from edgevit.shift_codes import MOST_TERMS, levels

__all__ = [
    "Form",
    "How",
    "Rounded",
    "compensated_grid",
    "form_of",
    "round_layer",
    "shift_grid",
]

# Exponents below the one that holds the largest weight: clipping it refines all others.
_FINER = (0, 1)
# Free scales: parts of an octave that are tried.
_PARTS = 8
_LEAST_EXPONENT = int(np.ceil(np.log2(SMALLEST_SCALE)))


@dataclass(frozen=True)
class Form:
    """What a weight may be.

    Attributes:
        terms: Shift terms, 1 to 3; 0: a plain integer.
        bits: Of one weight, as packed.
        wide: Whether terms have 15 octaves instead of 7.
        free: Whether scales need not be powers of two.
    """

    terms: int
    bits: int
    wide: bool = False
    free: bool = False

    def __str__(self) -> str:
        if not self.terms:
            return f"int{self.bits}"
        return f"{self.terms} term{'s' if self.terms > 1 else ''}"


def form_of(text: str, wide: bool, free: bool, where: str) -> Form:
    """The form that ``"1"`` to ``"3"`` (shift terms) or ``"int2"`` to ``"int8"`` name.

    Raises:
        UsageError: No form is called that.
    """
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_TERMS:
        return Form(int(text), int(text) * (5 if wide else 4), wide, free)
    bits = text.removeprefix("int")
    if text.startswith("int") and bits.isascii() and bits.isdigit() and 2 <= int(bits) <= 8:
        return Form(0, int(bits), free=True)
    raise UsageError(
        f"{where}: {text!r} is no form of weights",
        hint=f"1 to {MOST_TERMS} are shift terms, int2 to int8 are integers",
    )


@dataclass(frozen=True)
class How:
    """How codes are chosen.

    Attributes:
        damping: Ridge of the rounding, as a share of the mean of H's diagonal.
        ridge: Ridge of refitting weights to rounded inputs; negative: they are not refitted.
        sweeps: Rounds of coordinate descent; one where outputs are rounded together.
        compensate: Whether errors are made good for at all; else every code is the nearest.
        least: Smallest scale that the artifact can hold: see ``QuantScheme.least_scale``.
        aim: Whether the bias makes up for the input's error on average, besides the codes'.
        together: Ridge of output channels that make good for each other, as a share of the
            mean of G's diagonal.
    """

    damping: float = 0.01
    ridge: float = 0.01
    sweeps: int = 3
    compensate: bool = True
    least: float = 0.0
    aim: bool = False
    together: float = 0.1


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer's new weights.

    Attributes:
        codes: ``[g, o, i]``.
        grid: What they mean.
        shift: To be added to the bias, float64 ``[C_out]``.
        before: Expected squared error of the output with nearest codes, over its power.
        after: The same of these codes.
        clipped: Share of weights beyond the grid's reach.
    """

    codes: Array
    grid: Grid
    shift: Array
    before: float
    after: float
    clipped: float

    @property
    def scale(self) -> Array:
        """One for each output channel, float32 ``[C_out]``."""
        return self.grid.scale.reshape(-1).astype(np.float32)


def shift_grid(peak: Array, form: Form, finer: float = 0.0) -> Grid:
    """Scales that reach the largest weights, or that times ``2^-finer``.

    Args:
        peak: Largest magnitude of each output channel, ``[g, o, 1]``; a channel of zeros has
            scale 1.
        form: Of shift terms.
        finer: Octaves by which the grid is finer, and clips.
    """
    known = levels(form.terms, form.wide)
    high = int(known[-1])
    safe = np.where(peak > 0, peak, float(high))
    exponent = np.log2(safe / high)
    exponent = (exponent if form.free else np.ceil(exponent)) - finer
    exponent = np.maximum(exponent, _LEAST_EXPONENT)
    return Grid(2.0**exponent, -high, high, known)


def _grids(target: Array, form: Form, importance: Array, least: float) -> Iterator[Grid]:
    """Candidates; ``importance``: ``E[x^2]`` of every input, ``[g, i]``."""
    for grid in _free_grids(target, form, importance):
        yield _held(grid, least)


def _held(grid: Grid, least: float) -> Grid:
    """No scale below ``least``, nor below the power of two above it where powers they are."""
    if grid.levels is not None and least > 0:
        least = float(2.0 ** np.ceil(np.log2(least)))
    return replace(grid, scale=np.maximum(grid.scale, least))


def _free_grids(target: Array, form: Form, importance: Array) -> Iterator[Grid]:
    if not form.terms:
        for worth in (np.ones_like(importance), importance):
            yield search_scales(target, worth, form.bits)
        return
    peak = np.abs(target).max(axis=2, keepdims=True)
    if not form.free:
        yield from (shift_grid(peak, form, finer) for finer in _FINER)
        return
    for worth in (np.ones_like(importance), importance):
        tried = [shift_grid(peak, form, part / _PARTS) for part in range(-4, 12)]
        errors = [_weighted(target, g, worth) for g in tried]
        best = np.argmin(np.stack(errors), axis=0)
        scales = np.stack([g.scale for g in tried])
        yield replace(tried[0], scale=np.take_along_axis(scales, best[None], axis=0)[0])


def _weighted(target: Array, grid: Grid, importance: Array) -> Array:
    off = target - grid.scale * grid.rounded(target / grid.scale)
    return np.asarray((off * off * importance[:, None]).sum(axis=2, keepdims=True))


def round_layer(
    layer: ChannelLayer,
    seen: Moments | None,
    form: Form,
    how: How,
    worth: Array | None = None,
) -> Rounded:
    """Codes, scales and bias shift of one layer.

    Args:
        layer: Its weights; finite.
        seen: Moments of its input; ``None``: nothing is known, and every code is the nearest.
        form: What weights may be.
        how: Settings.
        worth: ``E[g g^T]`` of gradients at its outputs, ``[o, o]``: channels make good for
            each other's errors (``two_sided_rounding``); ``None``, or a layer of several
            groups: each for itself.
    """
    weight = layer.matrix().astype(np.float64)
    groups, outputs, inputs = weight.shape
    if seen is None:
        codes, grid = _nearest(weight, form, np.ones((groups, inputs)), how.least)
        error = float(np.square(weight - codes * grid.columns(inputs)).sum())
        error /= float(np.square(weight).sum()) or 1.0
        shift = np.zeros(groups * outputs)
        return Rounded(codes, grid, shift, error, error, _clipped(weight, grid))
    hessian, cross = normal_equations(seen, centered=layer.bias is not None)
    target = weight
    if seen.cross is not None and how.ridge >= 0 and how.compensate:
        target = refitted(weight, hessian, cross, how.ridge, seen.rows)
    diagonal = np.einsum("gii->gi", hessian)
    plain, plain_grid = _nearest(weight, form, diagonal, how.least)
    codes, grid = plain, plain_grid
    if how.compensate:
        damping = ridge_of(how.damping, inputs, seen.rows)
        how = replace(how, damping=damping)
        codes, grid = _chosen(target, hessian, form, how, worth if groups == 1 else None)
    made = codes * grid.columns(inputs)
    mean = seen.mean / seen.rows
    aim = seen.target / seen.rows if how.aim else mean
    shift = np.einsum("goi,gi->go", weight, aim) - np.einsum("goi,gi->go", made, mean)
    power = float(((weight @ hessian) * weight).sum()) or 1.0
    before = float(expected_error(weight, plain, plain_grid, hessian).sum()) / power
    after = float(expected_error(target, codes, grid, hessian).sum()) / power
    return Rounded(codes, grid, shift.reshape(-1), before, after, _clipped(target, grid))


def _clipped(weight: Array, grid: Grid) -> float:
    return float(np.mean(np.abs(weight) > (grid.high + 0.5) * grid.scale))


def _nearest(weight: Array, form: Form, importance: Array, least: float) -> tuple[Array, Grid]:
    grid = next(_grids(weight, form, importance, least))
    return nearest(weight, grid), grid


def _chosen(
    target: Array, hessian: Array, form: Form, how: How, worth: Array | None
) -> tuple[Array, Grid]:
    """The best candidate of every output channel, coordinate descent, then all together."""
    order, ridged = Order.of(hessian, how.damping), damped(hessian, how.damping)
    codes, grid = compensated_grid(target, hessian, order, form, how.least)
    codes = descend(target, codes, grid, ridged, how.sweeps)
    if form.free:
        grid = _held(refit(target, codes, grid, hessian), how.least)
        codes = descend(target, codes, grid, ridged, 1)
    if worth is not None:
        inputs, weighed = (order, ridged[0]), damped(worth, how.together)
        codes = rounded_together(target, codes, grid, inputs, weighed)
    return codes.astype(grid.dtype), grid


def compensated_grid(
    target: Array, hessian: Array, order: Order, form: Form, least: float
) -> tuple[Array, Grid]:
    """Of every output channel the candidate with the least error of its result.

    Args:
        target: Weights, ``[g, o, i]``, float64.
        hessian: ``E[x x^T]`` of each group, ``[g, i, i]``.
        order: Of the same.
        form: What weights may be.
        least: As in ``How``.

    Returns:
        Codes ``[g, o, i]`` and the grid they lie on.
    """
    diagonal = np.einsum("gii->gi", hessian)
    best: tuple[Array, Array, Array] | None = None
    for grid in _grids(target, form, diagonal, least):
        codes = compensated(target, grid, order)
        fitted = refit(target, codes, grid, hessian) if form.free else grid
        fitted = _held(fitted, least)
        error = expected_error(target, codes, fitted, hessian)[..., None]
        if best is None:
            best = (error, codes, fitted.scale)
            continue
        better = error < best[0]
        pairs = zip((error, codes, fitted.scale), best, strict=True)
        new, held, scale = (np.where(better, a, b) for a, b in pairs)
        best = (new, held, scale)
    assert best is not None
    return best[1], replace(grid, scale=best[2])
