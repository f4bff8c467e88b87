"""What measured tiles win: a bundle compiled with ``--tune`` in turns with the plain one.

    python -m benchmarks.native_tuning PLAIN.edgevit TUNED.edgevit [--rounds N]

Both run in one process, one thread, the code alone, their order changing from round to round;
the ratio is the median of the rounds' own with its distribution-free 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgevit.bench import median_interval
from edgevit.bundle import Part, open_bundle
from edgevit.runtimes.tvm import TVMEngine, TVMExecutor

__all__: list[str] = []

WARMUP = 5


def main() -> int:
    """Time and print one row."""
    parser = argparse.ArgumentParser(description="A tuned bundle in turns with a plain one.")
    parser.add_argument("bundles", nargs=2, type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    opened = [_open(path) for path in options.bundles]
    feeds = [_feeds(path) for path in options.bundles]
    pairs = []
    for turn in range(WARMUP + options.rounds):
        seconds = [0.0, 0.0]
        for i in (0, 1) if turn % 2 else (1, 0):
            opened[i].run(feeds[i])
            begin = time.perf_counter()
            opened[i].run(feeds[i])
            seconds[i] = time.perf_counter() - begin
        pairs.append(seconds)
    pairs = pairs[WARMUP:]
    low, middle, high = median_interval([tuned / plain for plain, tuned in pairs])
    plain, tuned = (1e3 * median(p[i] for p in pairs) for i in (0, 1))
    name = options.bundles[0].stem
    print(f"| {name} | {plain:.2f} | {tuned:.2f} | {middle:.3f} [{low:.3f}, {high:.3f}] |")
    return 0


def _part(path: Path) -> Part:
    return open_bundle(path).entries[0].parts[0]


def _open(path: Path) -> TVMExecutor:
    part = _part(path)
    return TVMEngine().open(path / part.artifact, part, threads=1)


def _feeds(path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        b.artifact: rng.standard_normal(b.artifact_shape).astype(np.float32)
        for b in _part(path).inputs
    }


if __name__ == "__main__":
    sys.exit(main())
