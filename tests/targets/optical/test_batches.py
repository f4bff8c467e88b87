"""Samples that run together do not see each other, on either path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.modulator import Modulator
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.wave import WaveProduct
from tests.targets.optical.layers import FLOAT32, MAPPED, error, mapped

PATHS = {"fast": FastProduct, "wave": WaveProduct}
FULL = {"y": 100.0}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("name", MAPPED)
def test_each_sample_is_as_if_alone(name: str, static: bool, path: str) -> None:
    made, step = mapped(name)
    step = replace(step, static=static)
    effects = Effects(display_bits=6, shift=(0.1, 0.2))
    rng = np.random.default_rng(4)
    # Very different sizes: a scale that samples shared would show.
    x = np.stack([made.x, 100 * rng.permutation(made.x.reshape(-1)).reshape(made.x.shape)])
    k = np.stack([made.kernel, made.kernel[..., ::-1, ::-1] * 3])
    together = PATHS[path](made.shapes, effects)(step, x, made.kernel if static else k)
    for i in range(2):
        mine = made.kernel if static else k[i]
        alone = PATHS[path](made.shapes, effects)(step, x[i], mine)
        assert error(together[i], alone) < FLOAT32


@pytest.mark.parametrize("path", PATHS)
def test_the_order_of_samples_is_kept(path: str) -> None:
    made, step = mapped("one-shot")
    x = np.stack([made.x * scale for scale in (1, -2, 3)])
    found = PATHS[path](made.shapes)(step, x, made.kernel)
    for sample, scale in zip(found, (1, -2, 3), strict=True):
        assert error(sample, made.exact * scale) < FLOAT32


@pytest.mark.parametrize("path", PATHS)
def test_no_automatic_exposure_for_several_samples(path: str) -> None:
    made, step = mapped("valid-tile")
    x = np.stack([made.x, made.x])
    product: Any = PATHS[path](made.shapes, Effects(photons=100.0))
    with pytest.raises(ParameterError, match="expected a known full scale for 2 samples"):
        product(step, x, made.kernel)
    product = PATHS[path](made.shapes, Effects(photons=100.0), full_scales=FULL)
    assert product(step, x, made.kernel).shape == (2, *made.exact.shape)


def test_errors_of_the_mask_follow_each_samples_light() -> None:
    made, step = mapped("one-shot")
    effects = Effects(mask=Modulator("double-phase", 16))
    x = np.stack([made.x, 10 * made.x])
    exact = FastProduct(made.shapes)(step, x, made.kernel)
    rng = np.random.default_rng(2)
    product = FastProduct(made.shapes, effects, rng)
    off = np.stack([product(step, x, made.kernel) - exact for _ in range(20)])
    dim, bright = np.moveaxis(off, 1, 0).reshape(2, -1).std(axis=1)
    assert bright / dim == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("name", MAPPED)
def test_devices_share_what_is_prepared(name: str) -> None:
    """Whatever ran before with the same preparation: sums merged, apart, or displaced."""
    made, step = mapped(name)
    prepared = Prepared()
    some = (Effects(), Effects(photons=1e4), Effects(shift=(0.3, 0.1)), Effects(photons=1e4))
    for effects in some:
        rngs = [np.random.default_rng(6) for _ in range(2)]
        shared, own = (
            FastProduct(made.shapes, effects, rng, FULL, kept)
            for rng, kept in zip(rngs, (prepared, None), strict=True)
        )
        assert np.array_equal(
            shared(step, made.x, made.kernel), own(step, made.x, made.kernel)
        )
