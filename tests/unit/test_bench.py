"""The interval of the median, and subjects timed in processes of their own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus.store import FIXTURES
from edgevit.bench import Subject, bench, median_interval
from edgevit.bench_subjects import subjects_of
from edgevit.errors import InputError, UsageError

VIT = FIXTURES / "models" / "fashion_vit_ts.onnx"


def test_the_interval_of_published_tables() -> None:
    # Ranks of the 95 % interval of the median, e.g. Conover, Practical Nonparametric
    # Statistics: n = 10 takes the 2nd and 9th of the ordered values, n = 20 the 6th and 15th.
    assert median_interval(range(1, 11)) == (2, 5.5, 9)
    assert median_interval(range(1, 21)) == (6, 10.5, 15)


def test_few_values_give_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)
    assert median_interval([4.0]) == (4.0, 4.0, 4.0)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    trials, n = 2000, 15
    hits = 0
    for _ in range(trials):
        low, _, high = median_interval(rng.exponential(size=n).tolist())
        hits += low <= math.log(2) <= high
    # At least 95 % by construction; four standard errors of the estimate below that.
    assert hits / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)
    assert hits < trials  # an interval that always covers would say nothing


def test_figures_of_a_source_model() -> None:
    subjects = [Subject("first", str(VIT)), Subject("second", str(VIT))]
    first, second = bench(subjects, threads=1, runs=3, warmup=1)
    assert first.ratio_to_first == (1.0, 1.0, 1.0)
    low, mid, high = second.ratio_to_first
    assert 0 < low <= mid <= high
    assert (first.engine, first.threads) == ("ort", 1)
    assert 0 < first.p50_ms <= first.p90_ms
    assert first.rss_mb > 10


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a protobuf")
    with pytest.raises(InputError, match=r"broken: ONNX Runtime refuses .*broken\.onnx"):
        bench([Subject("broken", str(path))], threads=1, runs=1)


@pytest.mark.parametrize(("threads", "runs"), [(0, 1), (1, 0)])
def test_nothing_to_do_is_bad_usage(threads: int, runs: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        bench([Subject("x", str(VIT))], threads=threads, runs=runs)


def test_unknown_engine_and_missing_path() -> None:
    with (
        pytest.raises(UsageError, match="unknown engine 'tvm'"),
        subjects_of([str(VIT)], ["tvm"], {}),
    ):
        pass
    with (
        pytest.raises(InputError, match="no such bundle or model"),
        subjects_of(["nowhere.onnx"], [], {}),
    ):
        pass


def test_a_model_is_followed_by_its_artifacts() -> None:
    with subjects_of([str(VIT)], ["ort", "litert"], {}) as found:
        assert [s.label for s in found] == [
            "fashion_vit_ts.onnx (source)",
            "fashion_vit_ts.onnx (litert)",
        ]
        assert (Path(found[1].path) / "manifest.json").is_file()
    assert not Path(found[1].path).exists()
