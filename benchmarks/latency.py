"""Latency of our artifacts next to ONNX Runtime on the source, interleaved, with intervals.

    python -m benchmarks.latency [--runs N] [--threads N ...] [--models NAME ...] [--json FILE]

The first subject of each table is the source model in ONNX Runtime with all of its own
optimizations; ratios are to it (below 1: faster), each the median of per-round ratios with
its 95 % interval. Every subject runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import ROOT
from benchmarks.edgevit_json import call
from benchmarks.five.cases import CASES, Case
from edgevit.bench import Subject, bench
from edgevit.errors import EdgevitError
from edgevit.report import text_of_bench

__all__ = ["main"]

FOLDER = ROOT / "build" / "latency"
MODELS = ("deit_tiny_ts", "ppocrv4_rec")


@dataclass(frozen=True)
class Device:
    """A target whose artifact is timed on this machine."""

    label: str
    target: str


DEVICES = (Device("edgevit onnx", "onnx"), Device("edgevit litert", "linux-x86"))


def _shapes(case: Case) -> tuple[str, ...]:
    return tuple(f"{name}={','.join(map(str, dims))}" for name, dims in case.shapes.items())


def _compile(case: Case, device: Device) -> Path:
    """Compile and verify: a latency of a wrong artifact is worth nothing."""
    bundle = FOLDER / f"{case.name}-{device.target}.edgevit"
    options = ["--target", device.target, "--output", str(bundle), "--overwrite"]
    options += [text for shape in _shapes(case) for text in ("--shape", shape)]
    answer = call(["compile", str(case.find()), *options])
    if answer.exit_code:
        raise SystemExit(f"{case.name} for {device.target}: {answer.error}")
    return bundle


def subjects(case: Case) -> list[Subject]:
    """The source first, then each of our artifacts."""
    found = [Subject("source", str(case.find()), _shapes(case))]
    return [*found, *(Subject(d.label, str(_compile(case, d))) for d in DEVICES)]


def measure(names: Sequence[str], threads: Sequence[int], runs: int) -> list[dict[str, Any]]:
    """Time every model at every number of threads and print the tables.

    Raises:
        EdgevitError: A subject does not run.
    """
    rows = []
    for case in (c for c in CASES if c.name in names):
        found = subjects(case)
        for count in threads:
            entries = [t.to_json() for t in bench(found, count, runs)]
            print(f"\n{case.name}, {count} thread{'s' * (count > 1)}, {runs} rounds")
            print(text_of_bench(entries), flush=True)
            rows += [{"model": case.name, "runs": runs, **entry} for entry in entries]
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time our artifacts next to the source.")
    parser.add_argument("--runs", type=int, default=100, help="timed rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        rows = measure(options.models, options.threads, options.runs)
    except EdgevitError as e:
        raise SystemExit(f"error: {e.message}") from e
    if options.json:
        text = json.dumps({"timings": rows}, indent=2) + "\n"
        Path(options.json).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
