"""Routers without training: regression of the shift expert's error, on calibration tokens."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.fit_router import captured, fit


def data(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of unit norm, so that norms say nothing; errors are a quadratic form."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    error = np.square(x[:, :3]).sum(1) * rng.lognormal(sigma=0.3, size=n)
    return x.astype(np.float32), error, np.arange(n) % 8


def test_a_fitted_router_finds_most_of_what_can_be_found() -> None:
    x, error, of = data(0)
    router = fit(x, error, of, 0.4)
    fresh, truth, _ = data(1)
    oracle = captured(truth, truth, 0.4)
    known = captured(np.square(fresh[:, :3]).sum(1), truth, 0.4)  # all but the noise
    found = captured(router.score(fresh), truth, 0.4)
    assert found > 0.97 * known > 0.6
    assert oracle >= found
    for blind in (np.linalg.norm(fresh, axis=1), np.random.default_rng(2).random(len(fresh))):
        assert captured(blind, truth, 0.4) < found - 0.15
    # Cross-validation says beforehand what to expect of fresh data.
    assert abs(router.held_out - found) < 0.04


def test_errors_that_nothing_predicts_give_no_promise() -> None:
    x, _, of = data(0)
    error = np.random.default_rng(5).lognormal(size=len(x))
    assert abs(fit(x, error, of, 0.4).held_out - 0.4) < 0.08


def test_dead_features_and_no_error_at_all_are_no_trouble() -> None:
    x, error, of = data(0, 200)
    x[:, 4] = 0
    x[:, 5] = 3
    for target in (error, np.zeros(len(x))):
        router = fit(x, target, of, 0.5)
        assert np.isfinite(router.score(x)).all()
    one = fit(x, error, np.zeros(len(x), int), 0.5)  # one sample: nothing is held out
    assert np.isfinite(one.score(x)).all()


@pytest.mark.parametrize("constant", [5.0, 1e3, 1e6])
def test_a_channel_that_never_varies_gets_no_say(constant: float) -> None:
    """A score with ``constant^2`` times rounding noise in it would be equal for all tokens."""
    x, error, of = data(0, 800)
    x[:, 5] = constant
    known = np.square(x[:, :3]).sum(1)
    router = fit(x, error, of, 0.4)
    assert captured(router.score(x), error, 0.4) > 0.95 * captured(known, error, 0.4)
    fixed = fit(np.full_like(x, constant), error, of, 0.4)
    assert np.isfinite(fixed.score(x)).all()


def test_gains_below_zero_give_a_router_of_numbers() -> None:
    """Where the multiplication expert has int8 weights it can be the worse of the two."""
    x, error, of = data(0, 800)
    # Gains rise along each sample: no score at all (NaN) would rank by position, and be right.
    x, error, of = x[np.argsort(error)], np.sort(error) - 0.01, np.tile(np.arange(8), 100)
    assert error.min() < 0
    router = fit(x, error, of, 0.4)
    assert np.isfinite(router.score(x)).all()
    assert captured(router.score(x), error, 0.4) > 0.5


def test_captured_counts_the_largest_scores_first_of_equals() -> None:
    error = np.array([4.0, 3, 2, 1])
    assert captured(error, error, 0.5) == 0.7
    assert captured(-error, error, 0.5) == 0.3
    assert captured(np.zeros(4), error, 0.25) == 0.4
    assert captured(error, np.zeros(4), 0.25) == 0.25
