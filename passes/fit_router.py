"""A router without training: which tokens gain most from the multiplication expert.

The squared error of the shift expert is a quadratic form of the token for one layer, and
nearly one behind an activation: ``score(x) = x . a + x^2 . b`` is its ridge regression on
calibration tokens, linear and square parts alike. All are centered first: a constant in the
score changes no order, and a channel that is constant must get no weight at all. Targets are
the error, its root or its logarithm: what ranks best on parts of the data that it was not
fitted on is taken, as is the ridge. Everything is decided on calibration data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgevit.passes.facts import Array

__all__ = ["Router", "captured", "fit"]

FOLDS = 4
RIDGES = (1e-3, 1e-1, 10.0)
# Wider tokens get no square part: a solve of twice the width costs eight times as much.
WIDEST = 512
_TARGETS: dict[str, Callable[[Array], Array]] = {
    "error": np.asarray,
    # Below zero where the multiplication expert is the worse one: there is nothing to gain.
    "root": lambda e: np.sqrt(np.maximum(e, 0)),
    "logarithm": lambda e: _log(np.maximum(e, 0)),
}


@dataclass(frozen=True, eq=False)
class Router:
    """``score(x) = x . linear + x^2 . square``.

    Attributes:
        linear: float32 ``[d]``.
        square: float32 ``[d]``, or ``None``.
        held_out: Share of the error that it captured on parts it was not fitted on.
    """

    linear: Array
    square: Array | None
    held_out: float

    def score(self, x: Array) -> Array:
        """Of tokens ``[n, d]``."""
        found = x @ self.linear
        return found if self.square is None else found + np.square(x) @ self.square


def captured(score: Array, error: Array, share: float) -> float:
    """Part of all error at the ``share`` of tokens with the largest scores, 0..1."""
    count = round(share * len(error))
    chosen = np.argsort(-score, kind="stable")[:count]
    total = float(error.sum())
    return float(error[chosen].sum()) / total if total > 0 else share


def fit(x: Array, error: Array, samples: Array, share: float) -> Router:
    """The router that ranks best on held-out samples, fitted again on all of them.

    Args:
        x: Tokens ``[n, d]``.
        error: What is gained at each token by multiplying, ``[n]``.
        samples: Which sample a token is of, ``[n]``: folds do not divide samples.
        share: Of tokens that will multiply.
    """
    features = _features(x)
    width = x.shape[1]
    fold = samples % min(FOLDS, len(np.unique(samples)))
    best = (-1.0, "error", RIDGES[0])
    for target, ridge, score in _tried(features, error, fold):
        part = captured(score, error, share)
        if part > best[0]:
            best = (part, target, ridge)
    held_out, target, ridge = best
    slope = _solve(features, (_TARGETS[target](error),), (ridge,))[0][0]
    square = slope[width:].astype(np.float32) if len(slope) > width else None
    return Router(slope[:width].astype(np.float32), square, held_out)


def _features(x: Array) -> Array:
    linear = x.astype(np.float64)
    parts = [linear, np.square(linear)] if x.shape[1] <= WIDEST else [linear]
    return np.concatenate(parts, axis=1)


def _log(error: Array) -> Array:
    return np.asarray(np.log(error + 1e-3 * error.mean() + 1e-30))


def _solve(
    features: Array, targets: Sequence[Array], ridges: tuple[float, ...]
) -> list[list[Array]]:
    """Of each target, by each ridge in units of every feature's own variance, the slopes."""
    off = features - features.mean(0)
    gram = off.T @ off / len(off)
    variance = np.diag(gram).copy()
    variance += 1e-12 + 1e-9 * variance.max()
    damped = [gram + np.diag(r * variance) for r in ridges]
    crosses = [off.T @ (t - t.mean()) / len(off) for t in targets]
    return [[np.linalg.solve(a, cross) for a in damped] for cross in crosses]


def _tried(features: Array, error: Array, fold: Array) -> list[tuple[str, float, Array]]:
    """Scores on held-out folds, for every target and ridge."""
    found = {(t, r): np.zeros(len(error)) for t in _TARGETS for r in RIDGES}
    for part in np.unique(fold):
        held, kept = fold == part, fold != part
        if not kept.any():  # one sample: nothing can be held out
            held, kept = np.ones_like(held), held
        targets = [of(error[kept]) for of in _TARGETS.values()]
        solved = _solve(features[kept], targets, RIDGES)
        for target, by_ridge in zip(_TARGETS, solved, strict=True):
            for ridge, weights in zip(RIDGES, by_ridge, strict=True):
                found[target, ridge][held] = _ranked(features[held] @ weights)
    return [(target, ridge, score) for (target, ridge), score in found.items()]


def _ranked(score: Array) -> Array:
    """Ranks 0..1: folds are fitted apart, so that only the order within one counts."""
    order = np.empty(len(score))
    order[np.argsort(score, kind="stable")] = np.arange(len(score))
    return order / max(len(score) - 1, 1)
