"""Joint transform correlators: exact, isolated, and the same on both paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UnsupportedModelError
from edgevit.sim4f.camera import Camera
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.joint import joint_plane, lag_pixels, strays
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.moves import apply
from edgevit.sim4f.perturb import peak
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import Optical, frames
from edgevit.sim4f.wave import WaveProduct
from edgevit.targets.optical.account import work
from edgevit.targets.optical.joint import JOINT
from edgevit.targets.optical.planner import Goal, choose
from edgevit.targets.optical.precision import Sight, layer_budget
from edgevit.targets.optical.sites import attention_layers
from edgevit.targets.optical.study import Levels
from tests.targets.optical.layers import FLOAT32, SIGNS, Array, error

PATHS = {"fast": FastProduct, "wave": WaveProduct}
JOINT_ONLY = Goal(dynamic=(JOINT,))


class Made:
    """Scores of an attention of ``heads`` with ``tokens`` and ``width``."""

    def __init__(
        self,
        heads: int = 2,
        tokens: int = 7,
        width: int = 5,
        plane: tuple[int, int] = (30, 24),
        signs: str = "homodyne",
    ) -> None:
        rng = np.random.default_rng(3)
        shape = (1, heads, tokens, width)
        self.x, self.k = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        layer = attention_layers([shape, shape, shape])[0]
        self.step = choose(layer, plane, SIGNS[signs], JOINT_ONLY)
        self.shapes = {"q": shape, "k": shape}
        self.exact = self.x.astype(float) @ self.k.astype(float).swapaxes(-1, -2)

    def run(self, path: str, step: Optical | None = None, **more: Any) -> Array:
        product: Any = PATHS[path](self.shapes, **more)
        found: Array = product(step or self.step, self.x, self.k)
        return found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("signs", SIGNS)
def test_it_is_the_product(signs: str, path: str) -> None:
    made = Made(signs=signs)
    assert made.step.mapping == JOINT
    assert len(list(frames(made.step, made.shapes))) > 2
    assert error(made.run(path), made.exact) < FLOAT32


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 7),
    st.integers(40, 61), st.integers(20, 45),
)  # fmt: skip
def test_random_attentions(heads: int, tokens: int, width: int, rows: int, cols: int) -> None:
    made = Made(heads, tokens, width, (rows, cols))
    assert not strays(made.step)
    for path in PATHS:
        assert error(made.run(path), made.exact) < FLOAT32


def closer(step: Optical) -> Optical:
    return replace(step, joint=(step.joint[0] - 1, step.joint[1]))


def lower(step: Optical) -> Optical:
    rows = replace(step.read.rows, origin=step.read.rows.origin + 1)
    return replace(step, read=replace(step.read, rows=rows))


def right(step: Optical) -> Optical:
    columns = replace(step.read.columns, origin=step.read.columns.origin + 1)
    return replace(step, read=replace(step.read, columns=columns))


def unsigned(step: Optical) -> Optical:
    return replace(step, signs=replace(step.signs, exposures=step.signs.exposures[:-1]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mutant", [closer, lower, right, unsigned])
def test_both_paths_reject(mutant: Any, path: str) -> None:
    made = Made()
    assert error(made.run(path, mutant(made.step)), made.exact) > 1e-2


def test_a_separation_one_pixel_short_is_the_same_error_on_both_paths() -> None:
    """Not only wrong: the fast path holds what the frame really holds."""
    made = Made()
    bad = closer(made.step)
    assert strays(bad)
    fast, wave = (made.run(path, bad) for path in PATHS)
    assert error(fast, wave) < 1e-4


def test_the_second_plane_is_the_autocorrelation() -> None:
    """Straight from the transforms, without the interpreters."""
    made = Made()
    frame = next(iter(frames(made.step, made.shapes)))
    shown = apply(made.step.displayed.moves, made.x.astype(float))[frame.displayed]
    taps = apply(made.step.masked.moves, made.k.astype(float))[frame.masked]
    plane = joint_plane(made.step, shown, taps)
    assert (plane != 0).sum() == (shown != 0).sum() + (taps != 0).sum()
    power = np.abs(np.fft.fft2(plane)) ** 2
    field = np.fft.ifft2(power).real[np.ix_(*lag_pixels(made.step))]
    found = made.run("wave").reshape(-1)
    assert np.abs(field.reshape(-1)[:, None] - found).min(axis=1).max() < 1e-4


@pytest.mark.parametrize("read_noise", [0.0, 40.0])
def test_the_first_camera_adds_the_variance_that_is_predicted(read_noise: float) -> None:
    made = Made(heads=1)
    effects = Effects(photons=2e4, camera=Camera(read_noise=read_noise))
    full = {"scores": float(np.abs(made.exact).max())}
    spread = []
    for seed, path in enumerate(PATHS):
        rng = np.random.default_rng(seed)
        runs = [made.run(path, effects=effects, rng=rng, full_scales=full) for _ in range(150)]
        spread.append(np.std(np.stack(runs) - made.exact))
    # 7,350 samples: 0.8 % of a deviation, of a ratio 1.2 %; four of them.
    assert spread[0] / spread[1] == pytest.approx(1, abs=0.05)
    # Without the first camera's noise it would be far less.
    rng = np.random.default_rng(9)
    mask = replace(made.step, joint=(0, 0))
    less = [
        made.run("fast", mask, effects=effects, rng=rng, full_scales=full) for _ in range(20)
    ]
    assert np.std(np.stack(less) - made.exact) < 0.8 * spread[0]


def test_the_predicted_noise_of_a_layer_has_it() -> None:
    made = Made(heads=1)
    effects = Effects(photons=2e4)
    levels = Levels(
        full=float(np.abs(made.exact).max()),
        rms=float(np.sqrt(np.mean(made.exact**2))),
        top=float(np.abs(made.x).max()),
        shown=float(np.sqrt(np.mean(made.x.astype(float) ** 2))),
        light=float((made.x.astype(float) ** 2).sum()),
    )
    seen = Sight(effects.photons, False, effects.camera, 0, 0.0, (0.0, 0.0))
    top = peak(made.step, made.k, Prepared())
    budget = layer_budget(made.step, made.shapes, levels, top, seen, made.k)
    assert budget.limiting.name == "power spectrum"
    rng = np.random.default_rng(5)
    full = {"scores": levels.full}
    runs = [made.run("wave", effects=effects, rng=rng, full_scales=full) for _ in range(100)]
    noise = np.std(np.stack(runs) - made.exact) / levels.rms
    # Two decibels, as for the other terms.
    assert 20 * np.log10(budget.noise / noise) == pytest.approx(0, abs=2)


def test_a_displaced_power_spectrum_does_the_same_to_both() -> None:
    made = Made()
    effects = Effects(shift=(0.2, 0.1))
    fast, wave = (made.run(path, effects=effects) for path in PATHS)
    assert error(fast, wave) < 1e-5
    assert error(fast, made.exact) > 1e-3


def test_what_is_not_modeled_is_refused() -> None:
    made = Made()
    for path in PATHS:
        with pytest.raises(ParameterError, match="not modeled for joint transforms"):
            made.run(path, effects=Effects(mask=Modulator("double-phase", 64)))
    camera = Camera(full_well=4e3, adc_bits=8)
    with pytest.raises(ParameterError, match="use the wave path"):
        made.run("fast", effects=Effects(photons=1e3, camera=camera))


def test_planes_without_room_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"scores.*no mapping|does not fit"):
        Made(tokens=9, width=5, plane=(3, 6))


def test_a_first_exposure_is_counted() -> None:
    made = Made()
    count = len(list(frames(made.step, made.shapes)))
    done = work(made.step, made.shapes)
    assert done.frames == 3 * count
    assert done.masks == count
    assert done.pixels_out > count * made.step.plane[0] * made.step.plane[1]
