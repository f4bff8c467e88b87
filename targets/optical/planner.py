"""Which mapping a layer gets: the candidates, what each costs, and the choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edgevit.errors import UnsupportedModelError
from edgevit.sim4f.moves import reshape, slice_, transpose
from edgevit.sim4f.program import Optical
from edgevit.sim4f.sensitivity import misplacement_error
from edgevit.sim4f.signs import Signs
from edgevit.targets.optical.joint import JOINT, fewer_groups, joint_transform
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.shared import as_tiles, shared_frames, shared_kernel, tile_of
from edgevit.targets.optical.tiles import Tiling, channel_tile, fold_tokens, tilings

__all__ = ["MAPPINGS", "Candidate", "Goal", "as_patches", "candidates", "choose"]

MAPPINGS = ("channel-tile", "one-shot", "shared-kernel", "valid-tile")
# Columns of tokens that are tried; more columns than this never helped a layer of ours.
MOST_CHUNKS = 12


@dataclass(frozen=True)
class Goal:
    """What a plan is to be good at.

    Attributes:
        mappings: Which may be used.
        dynamic: Which may be used for products of two computed tensors.
        frame_cost: Of a frame: its time or energy, in any unit.
        mask_cost: Of writing a mask, in the same unit.
        floor_db: Least signal-to-noise ratio that misplacement may leave; -inf for any.
        shift: Expected displacement of the mask along y and x, in mask pixels.
    """

    mappings: tuple[str, ...] = MAPPINGS
    dynamic: tuple[str, ...] = MAPPINGS
    frame_cost: float = 1.0
    mask_cost: float = 1e-3
    floor_db: float = -math.inf
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Candidate:
    """A way to compute a layer.

    Attributes:
        mapping: Its name.
        frames: Without the sign factor.
        masks: How many are written.
        build: Makes the step.
    """

    mapping: str
    frames: int
    masks: int
    build: Callable[[Signs], Optical]


def choose(layer: Layer, plane: tuple[int, int], signs: Signs, goal: Goal) -> Optical:
    """The cheapest step that keeps the floor.

    Raises:
        UnsupportedModelError: Nothing fits the plane, or nothing keeps the floor; the message
            has the inequality of the best one.
    """
    found = sorted(
        candidates(layer, plane, goal.mappings if layer.static else goal.dynamic),
        key=lambda c: c.frames * goal.frame_cost + c.masks * goal.mask_cost,
    )
    best = -math.inf
    for candidate in found:
        step = candidate.build(signs)
        ratio = _ratio_db(step, goal)
        if ratio >= goal.floor_db:
            return step
        best = max(best, ratio)
    raise UnsupportedModelError(
        f"layer {layer.name!r}: expected a signal-to-noise ratio >= {goal.floor_db:g} dB with "
        f"the mask off by {goal.shift} px, found {best:.1f} dB at best",
        hint="align the mask better, lower the floor, or allow more mappings: "
        + ", ".join(MAPPINGS),
    )


def _ratio_db(step: Optical, goal: Goal) -> float:
    error = misplacement_error(step, goal.shift)
    return math.inf if error == 0 else -20 * math.log10(error)


def candidates(
    layer: Layer, plane: tuple[int, int], allowed: tuple[str, ...] = MAPPINGS
) -> list[Candidate]:
    """Every candidate that fits.

    Raises:
        UnsupportedModelError: None does.
    """
    found: list[Candidate] = []
    reasons: list[UnsupportedModelError] = []
    makers = [_one_shot, _valid_tile, _channel_tile, _shared]
    for make in [_joint] if allowed == (JOINT,) else makers:
        try:
            found += [c for c in make(layer, plane) if c.mapping in allowed]
        except UnsupportedModelError as e:
            reasons.append(e)
    if found:
        return found
    if reasons:
        raise reasons[0]
    raise UnsupportedModelError(
        f"layer {layer.name!r}: no mapping among {', '.join(allowed)} computes it",
        hint=f"allow more mappings: {', '.join(MAPPINGS)}",
    )


def as_patches(layer: Layer) -> Layer:
    """A convolution of windows that do not overlap as a linear layer over its patches."""
    n, g, i = layer.batch, layer.groups, layer.inputs
    rows, columns = layer.rows, layer.columns
    (h, ky), (w, kx) = (rows.out, rows.kernel), (columns.out, columns.kernel)
    show = (
        slice_(0, n, 0, g, 0, i, 0, h * ky, 0, w * kx),
        reshape(n, g, i, h, ky, w, kx),
        transpose(0, 1, 2, 4, 6, 3, 5),
        reshape(n, g, i * ky * kx, h, w),
    )
    return replace(
        layer,
        inputs=i * ky * kx,
        rows=Window(h),
        columns=Window(w),
        show=(*layer.show, *show),
        mask=(*layer.mask, reshape(g, layer.outputs, i * ky * kx, 1, 1)),
    )


def _linear(layer: Layer) -> Layer | None:
    if layer.pointwise:
        return layer
    return as_patches(layer) if layer.patches else None


def _one_shot(layer: Layer, plane: tuple[int, int]) -> Iterator[Candidate]:
    linear = _linear(layer)
    if linear is None:
        return
    least = math.ceil(linear.tokens / plane[0])
    for chunks in range(least, min(linear.tokens, least + MOST_CHUNKS) + 1):
        folded = fold_tokens(linear, math.ceil(linear.tokens / chunks), 1)
        yield from _tiled(folded, plane, "one-shot")


def _joint(layer: Layer, plane: tuple[int, int]) -> Iterator[Candidate]:
    """Tokens as a column, as for ``one-shot``, with room for the kernel below."""
    least = math.ceil(layer.tokens / plane[0])
    for chunks in range(least, min(layer.tokens, least + MOST_CHUNKS) + 1):
        folded = fold_tokens(layer, math.ceil(layer.tokens / chunks), 1)
        for tiling in tilings(folded, plane):
            fit = fewer_groups(tiling, folded, plane)
            if fit is not None:
                # Every frame's power spectrum is displayed anew.
                frames = fit.frames(folded)
                yield Candidate(JOINT, frames, frames, _joint_builder(folded, plane, fit))


def _joint_builder(
    layer: Layer, plane: tuple[int, int], tiling: Tiling
) -> Callable[[Signs], Optical]:
    return lambda signs: joint_transform(layer, plane, tiling, signs)


def _valid_tile(layer: Layer, plane: tuple[int, int]) -> Iterator[Candidate]:
    linear = _linear(layer)
    tile = None if linear is None else tile_of(linear.inputs, plane)
    if linear is None or tile is None:
        return
    tiled = as_tiles(linear, *tile)
    yield _shared_candidate(tiled, plane, "valid-tile")


def _channel_tile(layer: Layer, plane: tuple[int, int]) -> Iterator[Candidate]:
    yield from _tiled(layer, plane, "channel-tile")


def _shared(layer: Layer, plane: tuple[int, int]) -> Iterator[Candidate]:
    yield _shared_candidate(layer, plane, "shared-kernel")


def _tiled(layer: Layer, plane: tuple[int, int], mapping: str) -> Iterator[Candidate]:
    for tiling in tilings(layer, plane):
        splits = math.ceil(layer.inputs / math.prod(tiling.across))
        masks = layer.groups * splits * tiling.masks(layer)
        yield Candidate(
            mapping, tiling.frames(layer), masks, _builder(layer, plane, tiling, mapping)
        )


def _builder(
    layer: Layer, plane: tuple[int, int], tiling: Tiling, mapping: str
) -> Callable[[Signs], Optical]:
    return lambda signs: channel_tile(layer, plane, tiling, signs, mapping)


def _shared_candidate(layer: Layer, plane: tuple[int, int], mapping: str) -> Candidate:
    masks = layer.groups * layer.inputs * layer.outputs
    return Candidate(
        mapping,
        shared_frames(layer, plane),
        masks,
        lambda signs: shared_kernel(layer, plane, signs, mapping),
    )
