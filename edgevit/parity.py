"""Metrics of agreement between a reference and a candidate, and the gates on them.

Every limit is explicit; a metric that a gate names must exist. NaN and infinity never reach
a report: an exact match has no finite decibel figure and is said to be exact instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import InternalError

__all__ = [
    "HIGHER_IS_BETTER",
    "Figure",
    "Gate",
    "Metrics",
    "compare",
    "joined",
    "judge",
    "top1",
]

Array = np.ndarray[Any, Any]
_JUDGED = frozenset({"max_rel", "psnr_db", "sqnr_db", "cosine"})
HIGHER_IS_BETTER = frozenset({"psnr_db", "sqnr_db", "cosine", "top1_agreement", "task"})


@dataclass(frozen=True)
class Metrics:
    """How far a candidate is from the reference, over all elements given.

    ``max_rel`` = max|y-r| / max|r|; ``psnr_db`` = 10 log10(max|r|^2 / mean (y-r)^2);
    ``sqnr_db`` = 10 log10(mean r^2 / mean (y-r)^2); ``cosine`` = <y,r> / (|y||r|).
    A figure is ``None`` when it has no finite value: see ``exact`` and ``broken``.

    Attributes:
        exact: Every element is equal.
        broken: The candidate has NaN or infinity where the reference is finite.
    """

    max_rel: float | None
    psnr_db: float | None
    sqnr_db: float | None
    cosine: float | None
    exact: bool
    broken: bool


@dataclass(frozen=True)
class Gate:
    """A metric and the limit it has to keep."""

    metric: str
    limit: float


@dataclass(frozen=True)
class Figure:
    """A judged metric, as reports show it."""

    metric: str
    value: float | None
    limit: float
    passed: bool
    exact: bool = False

    def to_json(self) -> dict[str, Any]:
        """``{"value", "limit", "pass"}``; an exact match says so and has no value."""
        data: dict[str, Any] = {"value": self.value, "limit": self.limit, "pass": self.passed}
        if self.exact:
            data["exact"] = True
        return data


def compare(reference: Array, candidate: Array) -> Metrics:
    """Compare two arrays of the same shape.

    Args:
        reference: Any shape and numeric or boolean dtype; finite.
        candidate: The same shape.

    Raises:
        InternalError: Shapes differ (the caller has to bind them first).
    """
    if reference.shape != candidate.shape:
        raise InternalError(f"comparing shape {candidate.shape} with {reference.shape}")
    r = reference.astype(np.float64).ravel()
    y = candidate.astype(np.float64).ravel()
    # Positions where the source itself is infinite (masks) must match exactly and carry
    # no information for a ratio.
    finite = np.isfinite(r)
    if not np.array_equal(r[~finite], y[~finite], equal_nan=True):
        return Metrics(None, None, None, None, exact=False, broken=True)
    r, y = r[finite], y[finite]
    if not np.all(np.isfinite(y)):
        return Metrics(None, None, None, None, exact=False, broken=True)
    if np.array_equal(r, y):
        return Metrics(None, None, None, None, exact=True, broken=False)
    return _finite_metrics(r, y)


def _finite_metrics(r: Array, y: Array) -> Metrics:
    error = y - r
    peak = float(np.max(np.abs(r)))
    noise = float(np.mean(error**2))
    signal = float(np.mean(r**2))
    norms = float(np.linalg.norm(r) * np.linalg.norm(y))
    return Metrics(
        max_rel=float(np.max(np.abs(error))) / peak if peak > 0 else None,
        psnr_db=_decibel(peak**2, noise),
        sqnr_db=_decibel(signal, noise),
        cosine=float(r @ y) / norms if norms > 0 else None,
        exact=False,
        broken=False,
    )


def _decibel(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def top1(reference: Array, candidate: Array) -> float:
    """Share of rows (last axis = classes) whose arg max agrees."""
    agree = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
    return float(np.mean(agree))


def judge(found: Metrics, gate: Gate) -> Figure:
    """Judge one metric; a broken or undefined one fails, an exact match passes.

    Raises:
        InternalError: The gate names a metric that does not exist.
    """
    if gate.metric not in _JUDGED:
        raise InternalError(f"gate names the unknown metric {gate.metric!r}")
    if found.exact:
        return Figure(gate.metric, None, gate.limit, passed=True, exact=True)
    value = getattr(found, gate.metric)
    if value is None or found.broken:
        return Figure(gate.metric, None, gate.limit, passed=False)
    better = gate.metric in HIGHER_IS_BETTER
    passed = value >= gate.limit if better else value <= gate.limit
    return Figure(gate.metric, float(value), gate.limit, passed)


def joined(found: Sequence[Metrics]) -> Metrics:
    """The worst of every metric, over several comparisons of the same output."""

    def worst(metric: str) -> float | None:
        values = [getattr(m, metric) for m in found if not m.exact]
        if not values or None in values:
            return None
        return float(min(values) if metric in HIGHER_IS_BETTER else max(values))

    return Metrics(
        max_rel=worst("max_rel"),
        psnr_db=worst("psnr_db"),
        sqnr_db=worst("sqnr_db"),
        cosine=worst("cosine"),
        exact=all(m.exact for m in found),
        broken=any(m.broken for m in found),
    )


def worst_of(found: Mapping[str, Metrics], gate: Gate) -> tuple[str, Figure]:
    """The output that keeps a gate least well, and its figure."""
    judged = {name: judge(m, gate) for name, m in found.items()}
    sign = 1.0 if gate.metric in HIGHER_IS_BETTER else -1.0

    def rank(item: tuple[str, Figure]) -> tuple[bool, float]:
        figure = item[1]
        value = math.inf if figure.exact else sign * (figure.value or 0.0)
        return figure.passed, value if figure.value is not None or figure.exact else -math.inf

    return min(judged.items(), key=rank)
