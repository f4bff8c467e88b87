"""The accelerator model: the release's own figures, limits, and what a mutant changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgevit import accelerator
from edgevit.accelerator import PICOJOULES, Energy, Layer, Words, energy, product_energy

PRODUCTS = {"PVTv2-B0 stage 1 fc1": (3136, 32, 256), "DeiT-Ti fc1": (196, 192, 768)}
MULTIPLY, ADD, SHIFT = (PICOJOULES[name, 32] for name in ("multiply", "add", "shift"))
# What the released code gives when it is run, in microjoules; and with one accounting for all.
RELEASED = {
    "float32": (Words(MULTIPLY, 32, 32), (1341.6, 1234.2)),
    "shift, as released": (Words(SHIFT, 10, 10), (392.9, 356.0)),
    "add, as released": (Words(ADD, 32, 32, local=True), (605.3, 669.8)),
    "shift, equal traffic": (Words(SHIFT, 32, 32), (1249.8, 1131.1)),
    "add, equal traffic": (Words(ADD, 32, 32), (1269.6, 1153.3)),
    "int8": (Words(PICOJOULES["multiply", 8], 8, 8), (316.8, 287.6)),
    "int8 shift": (Words(PICOJOULES["shift", 8], 8, 8), (312.2, 282.5)),
}
# Percent saved at the first shape.
SAVED = {
    "shift, as released": 70.7,
    "add, as released": 54.9,
    "shift, equal traffic": 6.8,
    "add, equal traffic": 5.4,
    "int8": 76.4,
    "int8 shift": 76.7,
}


def total(shape: tuple[int, int, int], words: Words) -> float:
    return product_energy(*shape, words).total


@pytest.mark.parametrize("name", RELEASED)
def test_the_release_is_reproduced(name: str) -> None:
    words, figures = RELEASED[name]
    for shape, figure in zip(PRODUCTS.values(), figures, strict=True):
        assert abs(total(shape, words) - figure) <= 0.05  # the figures' last digit


@pytest.mark.parametrize("name", SAVED)
def test_the_savings_are_reproduced(name: str) -> None:
    shape = PRODUCTS["PVTv2-B0 stage 1 fc1"]
    saved = 1 - total(shape, RELEASED[name][0]) / total(shape, RELEASED["float32"][0])
    assert abs(100 * saved - SAVED[name]) <= 0.05


def test_a_tiling_is_counted_by_hand() -> None:
    """One input, one output channel, one pixel: every word is moved once."""
    found = energy(Layer(1, 1, 1, 1), Words(2.0, 16, 16))
    words = 3 * 200.0 + 2 * 22.2 + 2 * 7.4 + 3.7 + 2 * 3.7 + 7.4
    assert math.isclose(found.traffic, words / 1e6, rel_tol=1e-9)
    assert math.isclose(found.arithmetic, 2e-6, rel_tol=1e-9)


def test_narrow_weights_move_less() -> None:
    shape = (1, 256, 256)  # a token alone: weights are nearly all that moves
    whole, half = (product_energy(*shape, Words(0.2, 8, bits)) for bits in (8, 4))
    assert whole.arithmetic == half.arithmetic
    assert 0.5 < half.traffic / whole.traffic < 0.55


def test_energies_add_up() -> None:
    assert Energy(1, 2) + Energy(3, 4) == Energy(4, 6)
    assert Energy(4, 6).total == 10


def test_a_layer_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match="fits the array"):
        energy(Layer(1, 1, 2, 40000), Words(1.0, 8, 8))


def test_another_constant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_DRAM", 190.0)
    accelerator.energy.cache_clear()
    accelerator.product_energy.cache_clear()
    words, figures = RELEASED["float32"]
    assert abs(total(PRODUCTS["DeiT-Ti fc1"], words) - figures[1]) > 1
    accelerator.energy.cache_clear()
    accelerator.product_energy.cache_clear()


def test_convolutions_share_no_row_of_elements() -> None:
    found = energy(Layer(16, 32, 8, 8, kernel=3), Words(0.2, 8, 8))
    assert np.isfinite(found.total)
    assert found.arithmetic == pytest.approx(16 * 32 * 64 * 9 * 0.2e-6)
