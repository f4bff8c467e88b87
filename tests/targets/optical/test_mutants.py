"""Programs that are slightly wrong give numbers that are plainly wrong, on both paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.moves import moved_shape, take
from edgevit.sim4f.program import Optical
from edgevit.sim4f.wave import WaveProduct
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.shared import shared_kernel
from edgevit.targets.optical.tiles import channel_tile, tilings
from tests.targets.optical.layers import MAPPED, SIGNS, Case, error, mapped

PATHS = {"fast": FastProduct, "wave": WaveProduct}
# A mutant must be off by far more than rounding: percents of the largest value.
WRONG = 1e-2
Mutate = Callable[[Case, Optical], Optical]


def read_shifted_down(made: Case, step: Optical) -> Optical:
    rows = replace(step.read.rows, origin=step.read.rows.origin + 1)
    return replace(step, read=replace(step.read, rows=rows))


def read_shifted_right(made: Case, step: Optical) -> Optical:
    columns = replace(step.read.columns, origin=step.read.columns.origin + 1)
    return replace(step, read=replace(step.read, columns=columns))


def sign_frame_dropped(made: Case, step: Optical) -> Optical:
    return replace(step, signs=replace(step.signs, exposures=step.signs.exposures[:-1]))


def masks_swapped(made: Case, step: Optical) -> Optical:
    """The first two masks of the first label that has two."""
    shape = moved_shape(step.masked.moves, made.shapes["k"])
    axis = next(a for a, n in enumerate(shape[: len(step.masked.labels)]) if n > 1)
    order = [1, 0, *range(2, shape[axis])]
    moves = (*step.masked.moves, take(axis, *order))
    return replace(step, masked=replace(step.masked, moves=moves))


def tiles_rolled(made: Case, step: Optical) -> Optical:
    """Input tiles one place further along the first lattice that has two of them."""
    shape = moved_shape(step.displayed.moves, made.shapes["x"])
    for axis, lattice in ((-2, step.displayed.rows), (-1, step.displayed.columns)):
        tiles, size = lattice.axes[0][0], lattice.axes[1][0]
        if tiles > 1:
            order = [(i + size) % (tiles * size) for i in range(tiles * size)]
            moves = (*step.displayed.moves, take(len(shape) + axis, *order))
            return replace(step, displayed=replace(step.displayed, moves=moves))
    order = [(i + 1) % shape[-1] for i in range(shape[-1])]
    moves = (*step.displayed.moves, take(len(shape) - 1, *order))
    return replace(step, displayed=replace(step.displayed, moves=moves))


MUTANTS: dict[str, Mutate] = {
    "read shifted down": read_shifted_down,
    "read shifted right": read_shifted_right,
    "sign frame dropped": sign_frame_dropped,
    "masks swapped": masks_swapped,
    "tiles rolled": tiles_rolled,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("name", MAPPED)
def test_both_paths_reject(name: str, mutant: str, path: str) -> None:
    made, step = mapped(name)
    bad = MUTANTS[mutant](made, step)
    found = PATHS[path](made.shapes)(bad, made.x, made.kernel)
    assert error(found, made.exact) > WRONG


class Short(Window):
    """A window whose tiles stand one pixel too close."""

    @property
    def pitch(self) -> int:
        return int(Window.pitch.__get__(self)) - 1


def narrowed(layer: Layer) -> Layer:
    rows, columns = (
        Short(w.size, w.kernel, w.stride, w.dilation, w.before, w.out)
        for w in (layer.rows, layer.columns)
    )
    return replace(layer, rows=rows, columns=columns)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["channel-tile", "strided", "shared-kernel"])
def test_a_guard_one_pixel_short_is_rejected(name: str, path: str) -> None:
    made, step = mapped(name)
    layer = narrowed(made.layer)
    if name == "shared-kernel":
        bad = shared_kernel(layer, step.plane, SIGNS["homodyne"])
    else:
        tiling = max(tilings(layer, step.plane), key=lambda t: t.groups[0] * t.groups[1])
        bad = channel_tile(layer, step.plane, tiling, SIGNS["homodyne"])
    found = PATHS[path](made.shapes)(bad, made.x, made.kernel)
    assert error(found, made.exact) > WRONG
