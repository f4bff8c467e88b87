"""``make bench-optics``: a 4f convolution here and in other simulators, interleaved.

One thread each. A round calls every contestant once, in a new random order; the table gives
medians over rounds and the median of the ratios within a round. ``error`` is the largest
deviation from direct convolution, relative to the largest output, at that contestant's own
precision and physics.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[1]
OTHERS = REPO / ".venv-optics-oracles" / "bin" / "python"
WORKER = Path(__file__).with_name("optics_worker.py")
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
FOREIGN = ("lightpipes", "optnn", "torchoptics", "torchoptics-bare")
# Plane size -> contestants of a race, the first being what the others are compared with.
RACES: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (256, 9, ("ours", "naive", "optnn", "lightpipes", "torchoptics")),
    (512, 3, ("ours", "naive", "optnn", "lightpipes", "torchoptics")),
    (1024, 5, ("ours", "naive", "optnn", "lightpipes")),
    # Its padded plane is 5120 x 5120: a minute or more a call.
    (1024, 1, ("ours", "torchoptics")),
    (2048, 5, ("ours", "naive", "optnn")),
    (256, 9, ("ours-chain", "ours-planes", "lightpipes", "torchoptics-bare")),
    (512, 5, ("ours-chain", "ours-planes", "lightpipes", "torchoptics-bare")),
    (1024, 3, ("ours-chain", "ours-planes", "lightpipes", "torchoptics-bare")),
)


@dataclass(frozen=True)
class Runner:
    """A contestant waiting in its process."""

    name: str
    process: subprocess.Popen[str]
    error: float

    def time(self) -> float:
        """Seconds of one call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def start(name: str, n: int) -> Runner:
    """Start a contestant and let it run once."""
    python = str(OTHERS) if name in FOREIGN else sys.executable
    process = subprocess.Popen(
        [python, str(WORKER), name, str(n)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env={**os.environ, **THREADS, "PYTHONPATH": str(REPO)},
    )
    assert process.stdout is not None
    return Runner(name, process, float(process.stdout.readline()))


def race(n: int, rounds: int, names: tuple[str, ...]) -> list[str]:
    """Rows of the table."""
    runners = [start(name, n) for name in names]
    rng = np.random.default_rng(n)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for i in rng.permutation(len(runners)):
            seconds[names[i]].append(runners[i].time())
    for runner in runners:
        runner.stop()
    return [row(n, runner, seconds, names[0]) for runner in runners]


def row(n: int, runner: Runner, seconds: dict[str, list[float]], first: str) -> str:
    """One contestant's line."""
    own = seconds[runner.name]
    ratios = [a / b for a, b in zip(own, seconds[first], strict=True)]
    spread = f"{min(ratios):.3g}-{max(ratios):.3g}"
    median = statistics.median(own) * 1e3
    ratio = statistics.median(ratios)
    return (
        f"| {n} | {runner.name} | {median:.3g} | {ratio:.3g} ({spread}) | {len(own)} "
        f"| {runner.error:.1e} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--race", type=int, action="append", help="only these, from 0")
    chosen = parser.parse_args().race or list(range(len(RACES)))
    print("| N | contestant | ms (median) | times the first (range) | rounds | error |")
    print("|---|---|---|---|---|---|")
    for i in chosen:
        print("\n".join(race(*RACES[i])), flush=True)


if __name__ == "__main__":
    main()
