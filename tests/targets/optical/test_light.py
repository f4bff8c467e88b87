"""Stray light, speckle, gains and laser noise: both paths against closed forms by hand.

A homodyne pair reads ``(full / 4) ((e + 1)^2 - (e - 1)^2)`` for a field ``e`` in full scales;
what disturbs an exposure enters one of the two squares. Depthwise frames have one term an
output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevit.sim4f import light, readout
from edgevit.sim4f.camera import Camera
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.moves import apply
from edgevit.sim4f.program import Optical, frames, sizes
from edgevit.sim4f.readout import count_exactly, count_quickly, estimate
from edgevit.sim4f.signs import Exposure, Signs
from edgevit.sim4f.wave import WaveProduct
from tests.targets.optical.layers import Array, Case, error, mapped

PATHS: dict[str, Any] = {"fast": FastProduct, "wave": WaveProduct}
FULL = 7.0
FLOAT32 = 1e-5


def run(path: str, effects: Effects, seed: int = 0, name: str = "depthwise") -> Array:
    made, step = mapped(name)
    product = PATHS[path](made.shapes, effects, np.random.default_rng(seed), {"y": FULL})
    return np.asarray(product(step, made.x, made.kernel), float)


def at_elements(step: Optical, plane: Array) -> Array:
    """What stands on the pixel that each output element is read from."""
    rows, columns = (
        lattice.coordinates() % n
        for lattice, n in zip((step.read.rows, step.read.columns), step.plane, strict=True)
    )
    seen = plane[np.ix_(rows, columns)]
    whole = _whole(step, mapped("depthwise")[0])
    return apply(step.read.moves, np.broadcast_to(seen, whole))


def normals(kind: int, plane: tuple[int, int], *lead: int) -> Array:
    return np.random.default_rng([0, kind]).standard_normal((*lead, *plane))


def gain_error(path: str) -> float:
    made, step = mapped("depthwise")
    found = run(path, Effects(camera=Camera(nonuniformity=0.05)))
    gains = 1 + 0.05 * normals(0, step.plane)
    return error(found, made.exact * at_elements(step, gains))


def speckle_error(path: str) -> float:
    made, step = mapped("depthwise")
    found = run(path, Effects(speckle=1e-2))
    real = normals(1, step.plane, 2)[0] * np.sqrt(1e-2 / 2)
    return error(found, made.exact + FULL * at_elements(step, real))


def squares(made: Case) -> tuple[Array, Array]:
    e = made.exact / FULL
    return (e + 1) ** 2, (e - 1) ** 2


def laser_misfit(path: str) -> float:
    """What two factors a frame leave of the residuals, over their size."""
    made, step = mapped("depthwise")
    apart = (run(path, Effects(laser_noise=0.03)) - made.exact) / (FULL / 4)
    shape = _whole(step, made)
    index = apply(step.read.moves, np.arange(int(np.prod(shape))).reshape(shape))
    left = 0.0
    for frame in frames(step, made.shapes):
        here = np.isin(index, np.arange(int(np.prod(shape))).reshape(shape)[frame.read])
        columns = np.stack([square[here] for square in squares(made)], axis=1)
        fitted = columns @ np.linalg.lstsq(columns, apart[here])[0]
        left += float(np.square(apart[here] - fitted).sum())
    return float(np.sqrt(left / np.square(apart).sum()))


def _whole(step: Optical, made: Case) -> tuple[int, ...]:
    size = sizes(step, made.shapes)
    kept = tuple(size[label] for label in step.read.labels)
    return (*kept, len(step.read.rows), len(step.read.columns))


@pytest.mark.parametrize("path", PATHS)
def test_gains_multiply_pixel_by_pixel(path: str) -> None:
    assert gain_error(path) < FLOAT32


@pytest.mark.parametrize("path", PATHS)
def test_speckle_adds_its_real_part(path: str) -> None:
    assert speckle_error(path) < FLOAT32


@pytest.mark.parametrize("path", PATHS)
def test_the_laser_is_one_factor_an_exposure(path: str) -> None:
    assert laser_misfit(path) < 1e-4


@pytest.mark.parametrize("path", PATHS)
def test_laser_noise_has_its_variance(path: str) -> None:
    """``(full rin / 4)^2 ((e + 1)^4 + (e - 1)^4)``; 24 exposures x 200 runs give 2 %."""
    made, step = mapped("depthwise")
    product = PATHS[path](
        made.shapes, Effects(laser_noise=0.03), np.random.default_rng(5), {"y": FULL}
    )
    found = np.stack([product(step, made.x, made.kernel) for _ in range(200)])
    plus, minus = squares(made)
    sigma = FULL / 4 * 0.03 * np.sqrt(plus**2 + minus**2)
    assert np.var((found - made.exact) / sigma) == pytest.approx(1, abs=0.08)


ONE = Signs("one", "intensity", (Exposure("signed", "signed", 1.0, 1.0),), 1.0)
COUNTERS: dict[str, Callable[..., Any]] = {"fast": count_quickly, "wave": count_exactly}


def counted(path: str, effects: Effects) -> Array:
    field = np.full(40_000, 0.3, np.float32)
    count = COUNTERS[path](np.random.default_rng(2))
    return np.asarray(estimate(ONE, lambda *_: field, 1.0, effects, count), float)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("photons", [40.0, 4e4])
def test_stray_light_adds_its_mean_and_its_shot_noise(path: str, photons: float) -> None:
    """Counts of mean and variance ``qe (P (e + 1)^2 + b)``: 4 standard errors each."""
    qe, stray = 0.6, photons
    effects = Effects(photons, Camera(quantum_efficiency=qe), background=stray)
    electrons = counted(path, effects) * qe * photons
    mean = qe * (photons * 1.3**2 + stray)
    assert electrons.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / 40_000))
    assert electrons.var() == pytest.approx(mean, rel=4 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize("path", PATHS)
def test_a_homodyne_pair_keeps_only_the_noise_of_stray_light(path: str) -> None:
    made, step = mapped("depthwise")
    effects = Effects(photons=50.0, background=400.0)
    product = PATHS[path](made.shapes, effects, np.random.default_rng(6), {"y": FULL})
    found = np.stack([product(step, made.x, made.kernel) for _ in range(30)])
    plus, minus = squares(made)
    sigma = FULL / 4 / 50 * np.sqrt(50 * (plus + minus) + 2 * 400)
    scaled = (found - made.exact) / sigma
    assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)
    assert scaled.var() == pytest.approx(1, rel=5 * np.sqrt(2 / scaled.size))


@pytest.mark.parametrize("path", PATHS)
def test_gains_come_before_the_read_noise(path: str) -> None:
    """Electrons ``g N + read``: variance ``g^2 mean + read^2``."""
    camera = Camera(read_noise=30.0, nonuniformity=0.1)
    field = np.zeros(40_000, np.float32)
    count = COUNTERS[path](np.random.default_rng(3))
    lit = readout.Light(gains=np.array(2.0))
    found = estimate(ONE, lambda *_: field, 1.0, Effects(400.0, camera), count, lit) * 400.0
    assert found.mean() == pytest.approx(800, abs=4 * 50 / 200)
    assert found.var() == pytest.approx(4 * 400 + 900, rel=4 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pattern", ["gains", "speckle"])
def test_a_pattern_one_pixel_off_is_noticed(
    path: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"gains": "gains_of", "speckle": "speckle_of"}[pattern]
    right: Any = getattr(light, name)
    monkeypatch.setattr(light, name, lambda *given: np.roll(right(*given), 1, axis=1))
    wrong = {"gains": gain_error, "speckle": speckle_error}[pattern](path)
    assert wrong > 100 * FLOAT32


@pytest.mark.parametrize("path", PATHS)
def test_laser_noise_of_every_pixel_by_itself_is_noticed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = mapped("depthwise")
    rng = np.random.default_rng(4)

    def mutant(*_: Any) -> Any:
        return readout.Light(tuple(1 + 0.03 * rng.standard_normal(shapes[path]) for _ in "12"))

    shape = (1, 1, *made.exact.shape)
    _, step = mapped("depthwise")
    shapes = {"fast": shape, "wave": (1, len(step.read.rows), len(step.read.columns))}
    monkeypatch.setattr("edgevit.sim4f.fast.light_of_step", mutant)
    monkeypatch.setattr("edgevit.sim4f.wave.light_of_frame", mutant)
    assert laser_misfit(path) > 0.1


@pytest.mark.parametrize("path", PATHS)
def test_stray_light_without_its_noise_is_noticed(path: str) -> None:
    """The mutant adds b to what was counted."""
    counts = counted(path, Effects(40.0)) * 40.0 + 40.0
    mean = 40 * 1.3**2 + 40
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / 40_000)
    assert abs(counts.var() / mean - 1) > 0.2


def test_both_paths_have_the_same_patterns_of_every_mapping() -> None:
    effects = Effects(camera=Camera(nonuniformity=0.05), speckle=1e-3, pattern_seed=3)
    for name in ("one-shot", "valid-tile", "channel-tile", "strided", "patches"):
        fast, wave = (run(path, effects, name=name) for path in PATHS)
        assert error(fast, wave) < FLOAT32
        other = run("fast", Effects(speckle=1e-3, pattern_seed=4), name=name)
        assert error(fast, other) > 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"background": -1.0},
            r"background: expected 0 <= background <= 1e\+18 photons, found",
        ),
        ({"background": 5.0}, "background: expected finite photons beside it, found inf"),
        ({"speckle": -0.1}, "speckle: expected 0 <= speckle < inf full scales, found -0.1"),
        ({"speckle": float("nan")}, "speckle: expected 0 <="),
        (
            {"laser_noise": 0.2},
            "laser_noise: expected 0 <= laser_noise < 0.2 .a ratio., found",
        ),
        ({"pattern_seed": -1}, "pattern_seed: expected >= 0, found -1"),
    ],
)
def test_impossible_light_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Effects(**given)
