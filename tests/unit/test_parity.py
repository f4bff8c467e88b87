"""Metrics against closed forms, and gates that fail when they must."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgevit.errors import InternalError
from edgevit.parity import HIGHER_IS_BETTER, Gate, compare, judge, top1, worst_of

# Metrics are double precision sums of a handful of terms.
REL = 1e-12


def test_a_single_wrong_element_has_the_closed_forms() -> None:
    r = np.array([3.0, -4.0, 0.0, 0.0], np.float32)
    y = np.array([3.0, -4.0, 0.0, 0.5], np.float32)
    found = compare(r, y)
    assert found.max_rel == pytest.approx(0.5 / 4, rel=REL)
    # peak^2 = 16, mean square error = 1/16, mean square signal = 25/4
    assert found.psnr_db == pytest.approx(10 * math.log10(16 * 16), rel=REL)
    assert found.sqnr_db == pytest.approx(10 * math.log10(100), rel=REL)
    assert found.cosine == pytest.approx(25 / (5 * math.sqrt(25.25)), rel=REL)
    assert not found.exact
    assert not found.broken


@pytest.mark.parametrize("scale", [0.5, 0.99, 1.01, -1.0, 1000.0])
def test_a_scaled_copy_has_the_closed_forms(scale: float) -> None:
    rng = np.random.default_rng(0)
    r = rng.standard_normal((3, 5))
    found = compare(r, scale * r)
    assert found.max_rel == pytest.approx(abs(scale - 1), rel=1e-9)
    assert found.sqnr_db == pytest.approx(-20 * math.log10(abs(scale - 1)), rel=1e-9, abs=1e-9)
    assert found.cosine == pytest.approx(math.copysign(1.0, scale), rel=1e-9)
    # A metric that divides by the candidate, or clips, would let y = 1000 r pass.
    assert not judge(found, Gate("max_rel", 1e-4)).passed
    assert not judge(found, Gate("psnr_db", 50.0)).passed


def test_metrics_are_over_all_elements_and_not_an_average_of_rows() -> None:
    r = np.array([[1.0, 1.0], [100.0, 100.0]])
    y = r + np.array([[0.5, 0.0], [0.0, 0.0]])
    assert compare(r, y).max_rel == pytest.approx(0.5 / 100, rel=REL)


def test_a_permuted_candidate_is_rejected() -> None:
    r = np.arange(6.0).reshape(2, 3)
    found = compare(r, r[::-1])
    assert found.max_rel == pytest.approx(3 / 5, rel=REL)
    assert not judge(found, Gate("cosine", 0.99)).passed


def test_equal_arrays_are_exact_and_have_no_value() -> None:
    r = np.array([0.0, -1.5, np.inf, np.nan])
    found = compare(r, r.copy())
    assert found.exact
    for metric in ("max_rel", "psnr_db", "sqnr_db", "cosine"):
        figure = judge(found, Gate(metric, 1.0))
        assert figure.to_json() == {"value": None, "limit": 1.0, "pass": True, "exact": True}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_break_the_candidate(bad: float) -> None:
    found = compare(np.array([1.0, 2.0]), np.array([1.0, bad]))
    assert found.broken
    for metric in ("max_rel", "psnr_db", "cosine"):
        figure = judge(found, Gate(metric, -math.inf if metric != "max_rel" else math.inf))
        assert not figure.passed
        json.dumps(figure.value, allow_nan=False)


@pytest.mark.parametrize("instead", [0.0, -np.inf, np.nan])
def test_where_the_source_is_infinite_the_candidate_must_be_too(instead: float) -> None:
    r = np.array([np.inf, 2.0])
    assert compare(r, np.array([instead, 2.0])).broken
    kept = compare(r, np.array([np.inf, 2.5]))
    assert kept.max_rel == pytest.approx(0.25, rel=REL)


def test_a_dead_reference_has_no_ratio_and_fails() -> None:
    found = compare(np.zeros(3), np.array([0.0, 1e-9, 0.0]))
    assert found.max_rel is None
    assert found.psnr_db is None
    assert found.sqnr_db is None
    assert found.cosine is None
    assert not judge(found, Gate("max_rel", 1.0)).passed
    assert not judge(found, Gate("psnr_db", 0.0)).passed


def test_integers_and_booleans_are_compared_by_value() -> None:
    assert compare(np.array([1, 2]), np.array([1, 2], np.int8)).exact
    found = compare(np.array([True, False]), np.array([True, True]))
    assert found.max_rel == pytest.approx(1.0, rel=REL)


def test_shapes_must_agree() -> None:
    with pytest.raises(InternalError, match=r"\(4, 1\).*\(4,\)"):
        compare(np.zeros(4), np.zeros((4, 1)))


@pytest.mark.parametrize(
    ("metric", "limit", "passed"),
    [
        ("max_rel", 0.25, True),
        ("max_rel", 0.2499, False),
        ("psnr_db", 10 * math.log10(32) - 1e-9, True),
        ("psnr_db", 10 * math.log10(32) + 1e-9, False),
        ("cosine", 0.9, True),
        ("cosine", 0.9999, False),
    ],
)
def test_gates_sit_at_their_limit_and_on_the_right_side(
    metric: str, limit: float, passed: bool
) -> None:
    found = compare(np.array([4.0, 2.0]), np.array([4.0, 3.0]))
    assert judge(found, Gate(metric, limit)).passed is passed


@pytest.mark.parametrize("metric", ["snr", "", "exact", "broken", "top1_agreement", "task"])
def test_a_gate_on_a_metric_that_was_not_measured_is_an_error(metric: str) -> None:
    """Flags of ``Metrics`` are no metrics: a gate on one would compare a boolean."""
    for y in (np.ones(2), np.zeros(2)):
        with pytest.raises(InternalError, match="unknown metric"):
            judge(compare(np.ones(2), y), Gate(metric, 0.0))


def test_the_worst_output_decides() -> None:
    r = np.array([1.0, 2.0])
    outputs = {
        "exact": compare(r, r),
        "fair": compare(r, np.array([1.0, 2.002])),
        "worse": compare(r, np.array([1.0, 2.02])),
    }
    assert worst_of(outputs, Gate("max_rel", 1.0))[0] == "worse"
    assert worst_of(outputs, Gate("psnr_db", 0.0))[0] == "worse"
    broken = {**outputs, "broken": compare(r, np.array([1.0, np.nan]))}
    name, figure = worst_of(broken, Gate("max_rel", 1e-3))
    assert name == "broken"
    assert not figure.passed
    name, figure = worst_of({"exact": outputs["exact"]}, Gate("psnr_db", 50.0))
    assert figure.exact


def test_decibels_are_better_when_higher() -> None:
    assert "max_rel" not in HIGHER_IS_BETTER
    assert {"psnr_db", "sqnr_db", "cosine"} <= HIGHER_IS_BETTER


def test_top1_counts_rows() -> None:
    r = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    y = r.copy()
    y[0] = y[0, ::-1]
    assert top1(r, y) == pytest.approx(0.75, rel=REL)
    assert top1(r, r) == pytest.approx(1.0, rel=REL)
