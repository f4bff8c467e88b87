"""Scores of pipelines on development images."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quantization.development import score


def _best(y: np.ndarray) -> int:
    return int(y.argmax())


def test_a_score_counts_by_hand() -> None:
    true = [np.eye(3)[i] for i in (0, 1, 2, 2)]
    found = [np.eye(3)[i] for i in (0, 2, 2, 1)]
    # right before: 0, 1, 2 of 4; after: 0, 2 and, by its error, the last
    s = score(true, found, _best, [0, 1, 2, 1])
    assert (s.accuracy, s.change, s.agreement) == (0.75, 0.0, 0.5)
    # Changes are 0, -1, 0, 1: deviation sqrt(1/2); signal 4, noise 2 for each wrong one.
    assert s.half == pytest.approx(196 * np.sqrt(0.5) / 2)
    assert s.sqnr_db == pytest.approx(0.0, abs=1e-9)


def test_noise_that_changes_no_answer_shows_in_the_ratio() -> None:
    true = [np.array([1.0, 0.0])] * 5
    s = score(true, [y + 0.1 for y in true], _best, [0] * 5)
    assert (s.change, s.agreement) == (0.0, 1.0)
    assert s.sqnr_db == pytest.approx(10 * np.log10(1 / 0.02))
