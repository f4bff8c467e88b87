"""What a mapping reads depends on its own pixels only: neither wrap-around nor neighbors."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.sim4f.moves import apply
from edgevit.sim4f.place import impulse_response, input_plane, read_pixels
from edgevit.sim4f.program import Optical, frames
from tests.targets.optical.layers import MAPPED, Array, mapped

# A float64 transform of a plane that holds a hundred times the signal.
ROUNDING = 1e-11


def support(step: Optical) -> Array:
    """Input pixels that a pixel which is read can see through the kernel's lattice."""
    seen = []
    for read, masked, pixels in (
        (step.read.rows, step.masked.rows, step.plane[0]),
        (step.read.columns, step.masked.columns, step.plane[1]),
    ):
        at = (read.coordinates()[:, None] - masked.coordinates()[None, :]) % pixels
        lit = np.zeros(pixels, bool)
        lit[at.reshape(-1)] = True
        seen.append(lit)
    return seen[0][:, None] & seen[1][None, :]


def read(step: Optical, plane: Array, response: Array) -> Array:
    field = np.fft.ifft2(np.fft.fft2(plane) * np.fft.fft2(response)).real
    rows, columns = read_pixels(step)
    return np.asarray(field[np.ix_(rows, columns)])


def first_frame(name: str) -> tuple[Optical, Array, Array]:
    made, step = mapped(name)
    frame = next(iter(frames(step, made.shapes)))
    shown = apply(step.displayed.moves, made.x.astype(float))[frame.displayed]
    taps = apply(step.masked.moves, made.kernel.astype(float))[frame.masked]
    return step, input_plane(step, shown), impulse_response(step, taps)


@pytest.mark.parametrize("name", MAPPED)
def test_every_pixel_outside_of_the_support_may_hold_anything(name: str) -> None:
    step, plane, response = first_frame(name)
    clean = read(step, plane, response)
    outside = ~support(step)
    noise = np.random.default_rng(1).standard_normal(plane.shape) * 100
    found = read(step, np.where(outside, noise, plane), response)
    assert (
        np.abs(found - clean).max() < ROUNDING * np.abs(noise).max() * np.abs(response).sum()
    )


@pytest.mark.parametrize("name", ["channel-tile", "shared-kernel", "strided"])
def test_light_in_the_guard_is_noticed(name: str) -> None:
    step, plane, response = first_frame(name)
    clean = read(step, plane, response)
    guard = np.flatnonzero((support(step) & (plane == 0)).reshape(-1))
    assert guard.size
    lit = plane.copy()
    lit.reshape(-1)[guard] = 1.0
    assert np.abs(read(step, lit, response) - clean).max() > 1e-3 * np.abs(clean).max()


@pytest.mark.parametrize("name", ["valid-tile", "one-shot"])
def test_linear_mappings_need_no_guard(name: str) -> None:
    """Reads that belong to a token see that token's pixels only; none of them is dark."""
    made, step = mapped(name)
    down = (
        step.read.rows.coordinates()[:, None] - step.masked.rows.coordinates()
    ) % step.plane[0]
    assert made.exact.size
    assert set(down.reshape(-1)) >= set(step.displayed.rows.coordinates())
