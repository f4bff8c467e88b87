"""The two paths are the same device: equal without noise, equally distributed with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from edgevit.sim4f.camera import Camera
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.program import Optical
from edgevit.sim4f.wave import WaveProduct
from edgevit.targets.optical.planner import Goal, choose
from edgevit.targets.optical.sites import attention_layers
from tests.targets.optical.layers import MAPPED, SIGNS, Array, Case, error, mapped

# A variance estimated from n samples is off by sqrt(2 / n), of a ratio sqrt(4 / n): 1.4 % for
# the short run, for which three of them are allowed; 0.2 % for the long one, for which five.
SHORT, LONG = 20_000, 1_000_000
CAMERA = Camera(quantum_efficiency=0.7, full_well=60_000, read_noise=6.0, adc_bits=12)
# Dim and bright: exact and normal photon statistics of the fast path.
LIGHT = {"dim": 500.0, "bright": 15_000.0}


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("name", MAPPED)
def test_without_noise_they_are_equal(name: str, signs: str) -> None:
    made, step = mapped(name, signs)
    x, k = made.x.astype(float), made.kernel.astype(float)
    fast = FastProduct(made.shapes)(step, x, k)
    wave = WaveProduct(made.shapes, dtype=np.float64)(step, x, k)
    assert error(fast, wave) < 1e-6


@pytest.mark.parametrize("name", ["one-shot", "channel-tile", "valid-tile"])
def test_a_displaced_mask_does_the_same_to_both(name: str) -> None:
    made, step = mapped(name)
    effects = Effects(shift=(0.3, -0.2))
    x, k = made.x.astype(float), made.kernel.astype(float)
    fast = FastProduct(made.shapes, effects)(step, x, k)
    wave = WaveProduct(made.shapes, effects, dtype=np.float64)(step, x, k)
    assert error(fast, wave) < 1e-6
    assert error(fast, made.exact) > 1e-4


def residuals(product: Any, step: Any, made: Any, samples: int) -> Array:
    """Noise of repeated exposures of the same frames."""
    runs = -(-samples // made.exact.size)
    found = np.stack([product(step, made.x, made.kernel) for _ in range(runs)])
    return np.asarray((found - made.exact) / np.abs(made.exact).max())


# Operator class -> light, and signs where they are not homodyne.
CLASSES = {
    "one-shot": ("bright", "homodyne"),
    "channel-tile": ("dim", "homodyne"),
    "valid-tile": ("dim", "homodyne"),
    "depthwise": ("dim", "homodyne"),
    "patches": ("bright", "homodyne"),
    "shared-kernel": ("dim", "homodyne"),
    "attention": ("bright", "homodyne"),
    "channel-tile, amplitude": ("dim", "amplitude"),
    "one-shot, amplitude": ("bright", "amplitude"),
}


def attention() -> tuple[Case, Optical]:
    """The scores of two heads: a computed kernel in the mask."""
    shape = (1, 2, 9, 5)
    x, k = (np.random.default_rng(8).standard_normal((2, *shape))).astype(np.float32)
    layer = attention_layers([shape, shape, shape])[0]
    step = replace(choose(layer, (18, 30), SIGNS["homodyne"], Goal()), name="y", source="x")
    exact = x.astype(float) @ k.astype(float).swapaxes(-1, -2)
    return Case(layer, x, k, exact), step


def both(
    name: str, effects: Effects, samples: int, signs: str = "homodyne"
) -> tuple[Array, Array]:
    made, step = attention() if name == "attention" else mapped(name, signs)
    full = {"y": float(np.abs(made.exact).max())}
    seeds = (np.random.default_rng(s) for s in (11, 12))
    fast = FastProduct(made.shapes, effects, next(seeds), full)
    wave = WaveProduct(made.shapes, effects, next(seeds), full)
    return residuals(fast, step, made, samples), residuals(wave, step, made, samples)


@pytest.mark.parametrize(
    ("samples", "limit"),
    [(SHORT, 0.05), pytest.param(LONG, 0.01, marks=pytest.mark.long)],
)
def test_noise_has_one_distribution(samples: int, limit: float) -> None:
    """Mean and variance (within 1 % in the long run), Kolmogorov-Smirnov with Holm's rule."""
    values = []
    for name, (light, signs) in CLASSES.items():
        effects = Effects(photons=LIGHT[light], camera=CAMERA)
        fast, wave = both(name.partition(",")[0], effects, samples, signs)
        spread = float(wave.std())
        assert spread > 1e-3
        assert abs(fast.mean() - wave.mean()) < limit * spread
        assert abs(fast.var() / wave.var() - 1) < limit
        values.append(stats.ks_2samp(fast.reshape(-1), wave.reshape(-1)).pvalue)
    rejected = [p * (len(values) - i) < 0.01 for i, p in enumerate(sorted(values))]
    assert not any(rejected), values


def test_other_light_is_noticed() -> None:
    fast, _ = both("valid-tile", Effects(photons=LIGHT["dim"], camera=CAMERA), SHORT)
    _, wave = both("valid-tile", Effects(photons=LIGHT["dim"] / 1.3, camera=CAMERA), SHORT)
    assert abs(fast.var() / wave.var() - 1) > 0.05


@pytest.mark.parametrize("name", ["one-shot", "channel-tile"])
def test_levels_of_the_mask_add_the_variance_that_is_predicted(name: str) -> None:
    """Errors are fixed for a mask; over many masks they have the analytic variance."""
    made, step = mapped(name)
    effects = Effects(mask=Modulator("double-phase", 64))
    rng = np.random.default_rng(3)
    found: dict[str, list[Array]] = {"fast": [], "wave": []}
    for _ in range(60):
        k = np.asarray(rng.standard_normal(made.kernel.shape), np.float32)
        exact = WaveProduct(made.shapes)(step, made.x, k)
        found["wave"].append(WaveProduct(made.shapes, effects)(step, made.x, k) - exact)
        fast = FastProduct(made.shapes, effects, rng)
        found["fast"].append(fast(step, made.x, k) - exact)
    ratio = np.std(found["fast"]) / np.std(found["wave"])
    # A hundred masks of independent errors: a few percent of a standard deviation.
    assert 0.9 < ratio < 1.1


def test_light_without_photons_is_refused() -> None:
    with pytest.raises(ValueError, match="photons: expected > 0"):
        Effects(photons=0)


def test_aberration_is_for_the_wave_path() -> None:
    """Weak defocus disturbs to first order in its phase; the fast path refuses it."""
    made, step = mapped("one-shot")
    found = []
    for rms in (0.05, 0.1):
        effects = Effects(aberration=((4, rms),))
        wave = WaveProduct(made.shapes, effects)(step, made.x, made.kernel)
        found.append(error(wave, made.exact))
    assert 1e-4 < found[0] < found[1]
    with pytest.raises(ValueError, match="use the wave path"):
        FastProduct(made.shapes, Effects(aberration=((4, 0.1),)))


def test_tilt_of_the_lenses_moves_the_picture() -> None:
    """An independent oracle: Zernike 3 (tilt along y) is a shift of what is read."""
    made, step = mapped("valid-tile")
    rows = step.plane[0]
    # Z3 = 2 rho sin(theta) = 2 (2 v) for v in -1/2 .. 1/2; one pixel is 2 pi v.
    one_pixel = ((3, 2 * np.pi / 4),)
    moved = replace(step.read, rows=replace(step.read.rows, origin=step.read.rows.origin - 1))
    shifted = replace(step, read=moved)
    found = WaveProduct(made.shapes, Effects(aberration=one_pixel))(
        shifted, made.x, made.kernel
    )
    assert rows > 1
    assert error(found, made.exact) < 1e-4
