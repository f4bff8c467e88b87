"""Latency and memory of several subjects, interleaved in one run, with paired intervals.

Each subject lives in a process of its own and is asked for one inference in turn, so drift
of the machine meets all alike. The ratio to the first subject is the median of the per-round
ratios; its 95 % interval is the distribution-free one of order statistics (binomial).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edgevit.errors import EdgevitError, InputError, UsageError

__all__ = ["Rounds", "Subject", "Timing", "bench", "median_interval", "rounds"]

# Engines keep their threads spinning for some milliseconds after a run, on the cores that
# the next subject needs: each turn waits until they sleep.
REST_S = 0.05
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        label: Shown in the table.
        path: A bundle, an ONNX file, a bare ``.tflite`` file or OpenVINO's ``.xml``.
        shapes: ``name=1,3,224,224`` texts: for an ONNX file with symbolic dimensions, or to
            choose the entry of a bundle.
    """

    label: str
    path: str
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """Figures of one subject; times in milliseconds, memory in MiB."""

    label: str
    engine: str
    version: str
    threads: int
    p50_ms: float
    p90_ms: float
    cpu_ms: float
    rss_mb: float
    ratio_to_first: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the ratio as ``{"median", "low", "high"}``."""
        low, mid, high = self.ratio_to_first
        return {
            "label": self.label,
            "engine": self.engine,
            "version": self.version,
            "threads": self.threads,
            "p50_ms": round(self.p50_ms, 3),
            "p90_ms": round(self.p90_ms, 3),
            "cpu_ms": round(self.cpu_ms, 3),
            "rss_mb": round(self.rss_mb, 1),
            "ratio_to_first": {
                "median": round(mid, 4),
                "low": round(low, 4),
                "high": round(high, 4),
            },
        }


class _Worker:
    """A child process that runs one subject once per request."""

    def __init__(self, subject: Subject, threads: int) -> None:
        command = [sys.executable, "-P", "-m", "edgevit.runtimes.bench_worker"]
        command += [subject.path, str(threads), *subject.shapes]
        self._label = subject.label
        # Engines write to stderr what nobody asked for; it is shown only after a crash.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in close)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # The Core ML evaluator multiplies in numpy's BLAS, which takes threads only here.
        environment |= dict.fromkeys(_BLAS_THREADS, str(threads))
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            self.about = self._read()
        except EdgevitError:
            self.close()
            raise

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._stderr.seek(0)
            said = self._stderr.read().strip().splitlines()[-1:]
            raise InputError(
                f"{self._label}: the process ended with status {status}"
                f"{': ' + said[0] if said else ''}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(f"{self._label}: {answer['error']}", hint=answer["hint"])
        return answer

    def once(self) -> dict[str, Any]:
        """One inference."""
        assert self._process.stdin is not None
        time.sleep(REST_S)
        with contextlib.suppress(BrokenPipeError):  # it has ended: reading says how
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median with its distribution-free 95 % interval, ``(low, median, high)``.

    The interval is ``[x(k), x(n+1-k)]`` with the largest k for which a Binomial(n, 1/2)
    variable is below k with probability at most 2.5 % (David and Nagaraja, Order
    Statistics, 3rd ed., section 7.1). Below 6 values it is the full range.
    """
    ordered = sorted(values)
    n = len(ordered)
    tail, k = 0.0, 0
    while tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    low = max(k - 1, 0)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return ordered[low], middle, ordered[n - 1 - low]


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Rounds:
    """What the workers answered.

    Attributes:
        subjects: In the order in which each round runs them.
        threads: Threads given to every engine.
        about: For each subject, its ``engine`` and ``version``.
        answers: For each round, each subject's ``wall_ms``, ``cpu_ms`` and ``rss_mb``.
    """

    subjects: tuple[Subject, ...]
    threads: int
    about: tuple[dict[str, Any], ...]
    answers: tuple[tuple[dict[str, Any], ...], ...]

    def ratio(
        self, one: int, other: int, clock: str = "wall_ms"
    ) -> tuple[float, float, float]:
        """Time of subject ``one`` to that of ``other``: low, median, high, paired.

        ``clock`` is ``wall_ms`` or ``cpu_ms``, processor time of the whole process.
        """
        return median_interval([r[one][clock] / r[other][clock] for r in self.answers])

    def timing(self, index: int) -> Timing:
        """The figures of one subject; its ratio is to the first."""
        mine = [r[index] for r in self.answers]
        wall = [a["wall_ms"] for a in mine]
        return Timing(
            label=self.subjects[index].label,
            engine=self.about[index]["engine"],
            version=self.about[index]["version"],
            threads=self.threads,
            p50_ms=_percentile(wall, 0.5),
            p90_ms=_percentile(wall, 0.9),
            cpu_ms=_percentile([a["cpu_ms"] for a in mine], 0.5),
            rss_mb=max(a["rss_mb"] for a in mine),
            ratio_to_first=self.ratio(index, 0),
        )


def rounds(subjects: Sequence[Subject], threads: int, runs: int, warmup: int = 5) -> Rounds:
    """Run all subjects in turn, ``runs`` times.

    Args:
        subjects: At least one.
        threads: Threads given to every engine.
        runs: Timed rounds.
        warmup: Rounds before, not counted.

    Raises:
        UsageError: Fewer than one thread or round.
        InputError: A subject cannot be opened or run.
    """
    if threads < 1 or runs < 1:
        raise UsageError(
            f"bench: expected at least one thread and one round, found {threads} and {runs}"
        )
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(s, threads) for s in subjects)
        answers = [tuple(w.once() for w in workers) for _ in range(warmup + runs)][warmup:]
    finally:
        for worker in workers:
            worker.close()
    about = tuple(w.about for w in workers)
    return Rounds(tuple(subjects), threads, about, tuple(answers))


def bench(
    subjects: Sequence[Subject], threads: int, runs: int, warmup: int = 5
) -> tuple[Timing, ...]:
    """Time all subjects, interleaved; arguments and errors are those of ``rounds``."""
    found = rounds(subjects, threads, runs, warmup)
    return tuple(found.timing(i) for i in range(len(subjects)))
