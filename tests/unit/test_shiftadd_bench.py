"""Closeness of outputs, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quantization.cases import TEST_SEED, choose
from benchmarks.quantization.development import SEED
from benchmarks.shiftadd.fidelity import divergence, other_samples, probabilities


def test_probabilities_stay_and_logits_become_some() -> None:
    given = np.array([[0.25, 0.75]])
    assert np.array_equal(probabilities(given), given)
    assert np.allclose(probabilities(np.log([[1.0, 3.0]]) + 900), given, rtol=1e-12)


def test_divergence_is_that_of_two_coins() -> None:
    fair, loaded = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    assert divergence([fair], [fair]) == 0
    # 0.5 log 2 + 0.5 log(2/3); the floor of 1e-9 moves it by less than 1e-8
    assert divergence([fair], [loaded]) == pytest.approx(0.5 * np.log(4 / 3), abs=1e-8)
    assert divergence([loaded], [fair]) != pytest.approx(0.5 * np.log(4 / 3), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "seed"), [("ppocrv4", SEED), ("ppocrv4", TEST_SEED), ("fashion_vit", 111)]
)
def test_nothing_is_calibrated_on_what_judges_it(name: str, seed: int) -> None:
    (case,) = choose([name])
    with pytest.raises(ValueError, match=f"of seed {seed}"):
        other_samples(case, seed)
