"""Measure quantized artifacts.

    python -m benchmarks.quantization [CASE ...] [--count N] [--jobs N] [--only LABEL ...]

Prints a Markdown table for each model; what was measured is kept in ``build/quantization``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import onnxruntime

from benchmarks.quantization.cases import Case, choose
from benchmarks.quantization.recipes import OURS, Ours
from benchmarks.quantization.run import Cell, calibration_file, cell
from benchmarks.quantization.table import rows

__all__: list[str] = []


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description="Accuracy of quantized artifacts.")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--count", type=int, help="test images; default: the published number")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", action="append", help="labels that start with this")
    options = parser.parse_args()
    cases = choose(options.cases)
    wanted = [o for o in OURS if _wanted(o, options.only)]
    for case in cases:
        calibration_file(case)
        list(case.images("test", options.count or case.tests))
    work: list[tuple[Case, Ours | None, int]] = [
        (case, ours, options.count or case.tests) for case in cases for ours in (None, *wanted)
    ]
    lock, shares = threading.Lock(), _shares(options.jobs)

    def settle() -> None:
        # On Linux this holds for the calling thread and the processes that it starts.
        with lock:
            os.sched_setaffinity(0, shares.pop())

    with ThreadPoolExecutor(options.jobs, initializer=settle) as pool:
        found = list(pool.map(lambda w: cell(*w), work))
    _print(cases, work, found)


def _shares(jobs: int) -> list[list[int]]:
    """The cores of this process, divided among jobs so that none waits for another's."""
    cores = sorted(os.sched_getaffinity(0))
    return [cores[i::jobs] or cores for i in range(jobs)]


def _wanted(ours: Ours, only: list[str] | None) -> bool:
    return only is None or any(f"{ours.target} {ours.label}".startswith(o) for o in only)


def _print(
    cases: tuple[Case, ...], work: list[tuple[Case, Ours | None, int]], found: list[Cell]
) -> None:
    cpu = platform.processor() or platform.machine()
    print(
        f"ONNX Runtime {onnxruntime.__version__}, Python {platform.python_version()}, {cpu}, "
        f"{os.cpu_count()} cores, one thread a run"
    )
    for case in cases:
        cells = [c for (one, _, _), c in zip(work, found, strict=True) if one is case]
        count = next(n for one, _, n in work if one is case)
        print(f"\n### {case.name}, {count} images\n")
        print("\n".join(rows(cells, case.labels(count))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
