"""The interval against brute force; subjects interleaved; errors that name the subject."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgevit import bench as benches
from edgevit.bench import Subject, bench, median_interval, rounds
from edgevit.bench_subjects import subjects_of
from edgevit.errors import InputError, UsageError
from tests.support.graphs import GraphBuilder


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 10, 30, 31, 100, 365])
def test_the_interval_has_the_binomial_ranks(n: int) -> None:
    """Order statistics by scipy: the largest k with P(B < k) <= 2.5 %."""
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    k = int(binom.ppf(0.025, n, 0.5))
    k += int(binom.cdf(k, n, 0.5) <= 0.025)
    k = max(k, 1)
    assert median_interval(list(values)) == (k, (n + 1) / 2, n + 1 - k)


def test_six_values_by_counting_all_outcomes() -> None:
    """Each of 6 values is above or below the true median: 2^6 equally likely patterns."""
    patterns = list(itertools.product((0, 1), repeat=6))
    outside = sum(sum(p) in (0, 6) for p in patterns) / len(patterns)
    assert outside <= 0.05
    inner = sum(sum(p) in (0, 1, 5, 6) for p in patterns) / len(patterns)
    assert inner > 0.05
    assert median_interval([3, 1, 2, 6, 5, 4]) == (1, 3.5, 6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        low, _, high = median_interval(list(rng.exponential(size=25)))
        hits += low <= np.log(2) <= high
    # Exact coverage for n = 25 is 0.9567; five standard errors of 2000 trials are 0.023.
    assert hits / 2000 == pytest.approx(0.9567, abs=0.023)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, middle, high = median_interval(values)
    assert low <= middle <= high
    assert middle == pytest.approx(float(np.median(values)), rel=1e-12)


class Clock:
    """Stands in for the worker processes; notes who ran when."""

    turns: list[str]
    times: dict[str, list[float]]
    closed: list[str]

    def __init__(self, subject: Subject, threads: int) -> None:
        self.label = subject.label
        self.about = {"engine": f"engine-{subject.label}", "version": str(threads)}
        self.left = iter(self.times[subject.label])

    def once(self) -> dict[str, Any]:
        self.turns.append(self.label)
        wall = next(self.left)
        if wall < 0:
            raise InputError(f"{self.label}: broke")
        return {"wall_ms": wall, "cpu_ms": 2 * wall, "rss_mb": 100 + wall}

    def close(self) -> None:
        self.closed.append(self.label)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "turns", [], raising=False)
    monkeypatch.setattr(Clock, "closed", [], raising=False)
    monkeypatch.setattr(benches, "_Worker", Clock)
    return Clock


def test_subjects_take_turns_and_warm_up_rounds_do_not_count(
    clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"a": [900.0, 1.0, 2.0, 4.0], "b": [900.0, 3.0, 3.0, 4.0]}
    monkeypatch.setattr(clock, "times", times, raising=False)
    a, b = bench([Subject("a", ""), Subject("b", "")], threads=2, runs=3, warmup=1)
    assert clock.turns == ["a", "b"] * 4
    assert clock.closed == ["a", "b"]
    assert (a.p50_ms, a.p90_ms, a.cpu_ms, a.rss_mb) == (2.0, 4.0, 4.0, 104.0)
    assert (b.p50_ms, b.p90_ms, b.cpu_ms) == (3.0, 4.0, 6.0)
    assert a.ratio_to_first == (1.0, 1.0, 1.0)
    # Ratios of pairs: 3, 1.5, 1. A ratio of medians would be 1.5 with nothing known about it.
    assert b.ratio_to_first == (1.0, 1.5, 3.0)
    assert b.engine == "engine-b"
    assert b.to_json()["ratio_to_first"] == {"median": 1.5, "low": 1.0, "high": 3.0}


def test_ratios_between_any_two_subjects_are_paired(
    clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"a": [1.0, 1.0, 1.0], "b": [2.0, 4.0, 8.0], "c": [1.0, 4.0, 16.0]}
    monkeypatch.setattr(clock, "times", times, raising=False)
    subjects = [Subject(name, "") for name in times]
    found = rounds(subjects, threads=1, runs=3, warmup=0)
    assert found.ratio(2, 1) == (0.5, 1.0, 2.0)
    assert found.ratio(1, 2) == (0.5, 1.0, 2.0)
    assert found.ratio(2, 0) == (1.0, 4.0, 16.0)
    assert found.timing(2).ratio_to_first == (1.0, 4.0, 16.0)


def test_a_subject_that_breaks_ends_the_others_too(
    clock: type[Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "times", {"a": [1.0], "b": [-1.0]}, raising=False)
    with pytest.raises(InputError, match="b: broke"):
        bench([Subject("a", ""), Subject("b", "")], threads=1, runs=1, warmup=0)
    assert clock.closed == ["a", "b"]


def _model(path: Path, width: int) -> Path:
    g = GraphBuilder()
    x = g.input("x", (1, width))
    proto = g.proto([g.op("MatMul", x, g.const(np.ones((width, width))))])
    path.write_bytes(proto.SerializeToString())
    return path


def test_two_models_in_processes_of_their_own(tmp_path: Path) -> None:
    import onnxruntime

    small, large = _model(tmp_path / "s.onnx", 4), _model(tmp_path / "l.onnx", 512)
    subjects = [Subject("small", str(small)), Subject("large", str(large))]
    found = bench(subjects, threads=1, runs=6, warmup=1)
    assert [t.label for t in found] == ["small", "large"]
    for timing in found:
        assert (timing.engine, timing.threads) == ("ort", 1)
        assert timing.version == onnxruntime.__version__
        assert 0 < timing.p50_ms <= timing.p90_ms
        assert timing.rss_mb > 10
    low, middle, high = found[1].ratio_to_first
    assert low <= middle <= high
    assert found[0].ratio_to_first == (1.0, 1.0, 1.0)


def test_a_missing_subject_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"none\.edgevit: no such bundle or model"),
        subjects_of([str(tmp_path / "none.edgevit")], [], [{}]),
    ):
        pass
    with pytest.raises(InputError, match="gone: ONNX Runtime refuses"):
        bench([Subject("gone", str(tmp_path / "gone.onnx"))], threads=1, runs=1)


def test_symbolic_dimensions_need_a_shape(tmp_path: Path) -> None:
    path = _model(tmp_path / "m.onnx", 4)
    import onnx

    proto = onnx.load_model(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="symbolic dimensions") as caught:
        bench([Subject("m", str(path))], threads=1, runs=1)
    assert "--shape x=" in caught.value.hint
    with subjects_of([str(path)], ["ort"], [{"x": (3, 4)}]) as subjects:
        assert [s.label for s in subjects] == ["m.onnx (source)"]
        (timing,) = bench(subjects, threads=1, runs=1, warmup=0)
    assert timing.p50_ms > 0


def test_unknown_engines_and_counts(tmp_path: Path) -> None:
    path = str(_model(tmp_path / "m.onnx", 4))
    with (
        pytest.raises(UsageError, match="unknown engine 'tvmm'") as caught,
        subjects_of([path], ["tvmm"], [{}]),
    ):
        pass
    assert caught.value.hint == "known: ort, litert, coreml, tvm"
    for threads, runs in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(UsageError, match="at least one"):
            bench([Subject("m", path)], threads=threads, runs=runs)
