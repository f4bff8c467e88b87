"""Whole-network gates: device file, recipe, made-up samples, the device's self-check."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.budget import AGREEMENT, SLACK_DB, gates, judged, selfcheck_gates
from edgevit.errors import UsageError
from edgevit.parity import Gate, Metrics, compare
from edgevit.target import load_target

TARGET = load_target("onnx")


def test_the_device_file_is_the_default() -> None:
    limit = TARGET.tolerance["w8a8"].sqnr_db
    assert limit is not None
    assert gates(TARGET, "w8a8", {}) == (Gate("sqnr_db", limit),)


def test_a_recipe_replaces_metric_by_metric() -> None:
    found = gates(TARGET, "w8a8", {"sqnr_db": 30.0, AGREEMENT: 0.99})
    assert found == (Gate("sqnr_db", 30.0), Gate(AGREEMENT, 0.99))
    kept = gates(TARGET, "w8a8", {AGREEMENT: 0.99})
    assert [g.metric for g in kept] == ["sqnr_db", AGREEMENT]


def test_a_precision_without_limits_asks_for_a_budget() -> None:
    with pytest.raises(UsageError, match="no tolerance for precision 'mixed'") as caught:
        gates(TARGET, "mixed", {})
    assert "[budget]" in caught.value.hint
    assert gates(TARGET, "mixed", {"sqnr_db": 9.0}) == (Gate("sqnr_db", 9.0),)


def test_agreement_on_made_up_samples_is_not_measured() -> None:
    both = (Gate("sqnr_db", 12.0), Gate(AGREEMENT, 0.99))
    assert judged(both, synthetic=True) == ((both[0],), (AGREEMENT,))
    assert judged(both, synthetic=False) == (both, ())


def _measured(sqnr_db: float) -> Metrics:
    """Real metrics of an output with (nearly) this SQNR."""
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 1, 4000).astype(np.float32)
    noise = rng.normal(0, 10 ** (-sqnr_db / 20), 4000).astype(np.float32)
    return compare(reference, reference + noise)


def test_the_self_check_follows_what_the_sample_measured() -> None:
    limits = (Gate("sqnr_db", 12.0), Gate(AGREEMENT, 0.99))
    poor = _measured(8.0)
    assert poor.sqnr_db is not None
    found = selfcheck_gates(limits, {"a": _measured(20.0), "b": poor})
    # The worst output, less what other kernels may tip; agreement is no figure of a device.
    assert found == {"sqnr_db": round(poor.sqnr_db - SLACK_DB, 1)}
    assert selfcheck_gates(limits, {"a": _measured(40.0)}) == {"sqnr_db": 12.0}


def test_the_self_check_without_figures_keeps_the_limits() -> None:
    limits = (Gate("max_rel", 1e-4), Gate("psnr_db", 50.0))
    plain = {"max_rel": 1e-4, "psnr_db": 50.0}
    assert selfcheck_gates(limits, None) == plain
    x = np.ones(4, np.float32)
    assert selfcheck_gates(limits, {"y": compare(x, x)}) == plain
