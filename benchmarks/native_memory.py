"""Peak resident memory of a process that loads and runs deit_tiny, an engine each.

    python -m benchmarks.native_memory [--precisions fp32 w8a8] [--runs N] [--json FILE]

Bundles run through their own runtimes in ``edgevit bench``, one thread; the same native code
also runs in the C program of ``examples/c``, without Python. Integers are calibrated on
noise: the size of memory does not depend on their scales. Exits 1 if native code is not the
smallest of the three engines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.store import CorpusUnavailableError
from benchmarks.edgevit_json import call
from benchmarks.five.cases import choose
from edgevit.report import table
from examples.c.build import build_here

__all__ = ["main", "measure", "smallest"]

MODEL = "deit_tiny_ts"
NATIVE = "tvm"
TARGETS = {NATIVE: "linux-x86:backend=tvm", "ort": "onnx", "litert": "linux-x86"}
# A small parent: a child's peak starts at its parent's, here some 10 MiB.
_LAUNCHER = """
import os, subprocess, sys
with open(sys.argv[1]) as given:
    child = subprocess.Popen(sys.argv[2:], stdin=given, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(status, usage.ru_maxrss)
"""


def measure(model: Path, precision: str, runs: int, folder: Path) -> dict[str, float]:
    """Peak MiB by engine, and of the C program.

    Raises:
        RuntimeError: A compile, a run or the C compiler failed.
    """
    bundles = [_compile(model, name, precision, folder) for name in TARGETS]
    options = ["--trust", "--threads", "1", "--runs", str(runs)]
    answer = call(["bench", *map(str, bundles), *options])
    if answer.exit_code:
        raise RuntimeError(answer.error)
    entries = zip(TARGETS, answer.result["entries"], strict=True)
    return {**{name: float(e["rss_mb"]) for name, e in entries}, "C": _program(bundles[0])}


def _compile(model: Path, name: str, precision: str, folder: Path) -> Path:
    bundle = folder / f"{name}-{precision}.edgevit"
    options = ["--target", TARGETS[name], "--precision", precision, "--no-verify"]
    options += [] if precision == "fp32" else ["--calib", "synthetic"]
    answer = call(["compile", str(model), *options, "--output", str(bundle)])
    if answer.exit_code:
        raise RuntimeError(f"{name} {precision}: {answer.error}")
    return bundle


def _program(bundle: Path) -> float:
    """Peak MiB of the C program on the self-check's input."""
    with tempfile.TemporaryDirectory() as name:
        program, given = Path(name) / "program", Path(name) / "input"
        build_here(bundle, program)
        with np.load(bundle / "selfcheck.npz") as check:
            given.write_bytes(b"".join(check[k].tobytes() for k in check if ".input." in k))
        command = [sys.executable, "-S", "-c", _LAUNCHER, str(given), str(program)]
        done = subprocess.run(
            [*command, str(bundle)], capture_output=True, text=True, check=False
        )
    status, peak = (int(word) for word in (done.stdout or "1 0").split())
    if status:
        raise RuntimeError(f"the C program failed: {done.stderr}")
    return peak / 1024


def smallest(found: dict[str, float]) -> bool:
    """Whether native code took less than every other engine."""
    return all(found[NATIVE] < found[name] for name in TARGETS if name != NATIVE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Peak memory of native code.")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "w8a8"], metavar="NAME")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    options = _options()
    try:
        (case,) = choose([MODEL])
        found = _all(case.find(), options.precisions, options.runs)
    except (CorpusUnavailableError, RuntimeError) as e:
        raise SystemExit(str(e)) from e
    names = [*TARGETS, "C"]
    made = [(p, *(f"{f[name]:.1f}" for name in names)) for p, f in found.items()]
    print(table(("MiB", *names), made))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    missed = [p for p, f in found.items() if not smallest(f)]
    print("".join(f"\nMISSED {p}: native code is not the smallest" for p in missed))
    print("FAIL" if missed else "PASS")
    return 1 if missed else 0


def _all(model: Path, precisions: Sequence[str], runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {p: measure(model, p, runs, Path(folder)) for p in precisions}


if __name__ == "__main__":
    sys.exit(main())
