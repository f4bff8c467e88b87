"""Paths on an accelerator: the same numbers as on the host, noise included.

Here the accelerator's namespace is numpy; ``tests/optics/test_namespace.py`` takes torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.sim4f.camera import Camera
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.offload import Accelerator, OffloadedFast, OffloadedWave
from edgevit.sim4f.wave import WaveProduct
from tests.targets.optical.layers import FLOAT32, MAPPED, SIGNS, error, mapped

AT = Accelerator(np)
CAMERA = Camera(quantum_efficiency=0.7, full_well=60_000, read_noise=6.0, adc_bits=12)
DEVICES = {
    "displaced": Effects(shift=(0.3, -0.2)),
    "levels": Effects(mask=Modulator("double-phase", 64), shift=(0.1, 0.0)),
    "defocus": Effects(aberration=((4, 0.1),)),
}


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("name", MAPPED)
def test_both_paths_are_exact(name: str, signs: str) -> None:
    made, step = mapped(name, signs)
    fast = OffloadedFast(made.shapes, AT)(step, made.x, made.kernel)
    # Three frames at once: the last batch is a short one.
    pixels = 3 * step.plane[0] * step.plane[1]
    wave = OffloadedWave(made.shapes, AT, batch_pixels=pixels)(step, made.x, made.kernel)
    assert error(fast, made.exact) < FLOAT32
    assert error(wave, made.exact) < FLOAT32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["one-shot", "valid-tile", "depthwise"])
def test_effects_are_those_of_the_host(name: str, device: str) -> None:
    made, step = mapped(name)
    x, k = made.x.astype(float), made.kernel.astype(float)
    effects = DEVICES[device]

    def seeded() -> np.random.Generator:
        return np.random.default_rng(5)

    host: Any = WaveProduct(made.shapes, effects, seeded(), dtype=np.float64)
    there: Any = OffloadedWave(
        made.shapes, AT, effects=effects, rng=seeded(), dtype=np.float64
    )
    assert error(there(step, x, k), host(step, x, k)) < 1e-9
    if device == "defocus":
        return
    host = FastProduct(made.shapes, effects, seeded())
    there = OffloadedFast(made.shapes, AT, effects=effects, rng=seeded())
    assert error(there(step, x, k), host(step, x, k)) < 1e-9


@pytest.mark.parametrize("path", ["fast", "wave"])
def test_noise_is_as_large_as_on_the_host(path: str) -> None:
    made, step = mapped("valid-tile")
    effects = Effects(photons=500.0, camera=CAMERA)
    full = {"y": float(np.abs(made.exact).max())}
    rngs = [np.random.default_rng(seed) for seed in (1, 2)]
    host: Any = {"fast": FastProduct, "wave": WaveProduct}[path]
    there: Any = {"fast": OffloadedFast, "wave": OffloadedWave}[path]
    products = (
        host(made.shapes, effects, rngs[0], full),
        there(made.shapes, AT, effects=effects, rng=rngs[1], full_scales=full),
    )
    spread = [
        np.std([p(step, made.x, made.kernel) - made.exact for _ in range(20)])
        for p in products
    ]
    # 5,400 numbers each: a ratio of standard deviations is off by 1.4 %.
    assert spread[1] > 0
    assert 0.93 < spread[1] / spread[0] < 1.07


def test_a_read_out_that_is_off_gives_wrong_numbers() -> None:
    """The comparison above can fail: nothing is taken from the exact product."""
    made, step = mapped("valid-tile")
    moved = replace(step.read, rows=replace(step.read.rows, origin=step.read.rows.origin + 1))
    wrong = replace(step, read=moved)
    for product in (OffloadedFast(made.shapes, AT), OffloadedWave(made.shapes, AT)):
        assert error(product(wrong, made.x, made.kernel), made.exact) > 0.1


def test_input_outside_of_the_plane_is_refused() -> None:
    made, step = mapped("valid-tile")
    far = replace(step.displayed.rows, origin=step.plane[0])
    wrong = replace(step, displayed=replace(step.displayed, rows=far))
    for product in (OffloadedFast(made.shapes, AT), OffloadedWave(made.shapes, AT)):
        with pytest.raises(ParameterError, match="input lattice"):
            product(wrong, made.x, made.kernel)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("kind", [OffloadedFast, OffloadedWave])
def test_samples_go_together(kind: Any, static: bool) -> None:
    made, step = mapped("one-shot")
    step = replace(step, static=static)
    x, k = np.stack([made.x, -2 * made.x]), np.stack([made.kernel, 3 * made.kernel])
    found = kind(made.shapes, AT)(step, x, made.kernel if static else k)
    assert error(found, np.stack([made.exact, (-2 if static else -6) * made.exact])) < FLOAT32


def test_joint_transforms_are_for_the_host() -> None:
    made, step = mapped("valid-tile")
    wave = OffloadedWave(made.shapes, AT)
    with pytest.raises(ParameterError, match="joint transform correlator"):
        wave(replace(step, joint=(0, 5)), made.x, made.kernel)
