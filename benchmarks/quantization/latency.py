"""Latency of the int8 artifacts, ours next to the public quantizers', engine by engine.

    make bench-quantization-latency
    python -m benchmarks.quantization.latency [CASE ...] [--files only|reuse|make] [--runs N]
        [--threads N ...] [--engines NAME ...] [--json FILE]

``--files only`` quantizes and times nothing, ``reuse`` times what is there: on a shared
machine the timing can so wait for a quiet moment. Every round runs each subject of an engine
once, each in a process of its own; ratios are medians of the rounds' own ratios with their
distribution-free 95 % interval. ``--clock cpu`` takes processor time, which on a machine that
others use is what can be compared; with one thread it is the wall time of a quiet one. Ours
and the peers' are files that the worker opens alike. All were made with the same 64
calibration samples as those of ``benchmarks.quantization``, whose accuracies are shown where
they have been measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import machine
from benchmarks.quantization.cases import Case
from benchmarks.quantization.cells import BUILD
from benchmarks.quantization.latency_cases import ENGINES, Engine, choose_timed
from benchmarks.quantization.latency_files import Missing, prepare, subject
from benchmarks.quantization.latency_table import HEAD, Row, row
from benchmarks.quantization.recipes import Form
from benchmarks.quantization.run import PEERS
from edgevit.bench import Rounds, Subject, rounds
from edgevit.errors import InputError

__all__: list[str] = []


def main() -> int:
    """Make the files, then time them in the peers' environment, which has every engine."""
    options = _arguments()
    cases = choose_timed(options.cases)
    engines = [e for e in ENGINES if e.name in options.engines]
    if options.files != "reuse":
        for case in cases:
            prepare(case, engines)
    if options.files == "only":
        return 0
    python = PEERS / "bin" / "python"
    if Path(sys.executable) != python:
        again = [a for a in sys.argv[1:] if not a.startswith("--files")]
        again = [a for a in again if a not in ("make", "only", "reuse")]
        command = [str(python), "-m", "benchmarks.quantization.latency", *again]
        return subprocess.run([*command, "--files", "reuse"], check=False).returncode
    about = f"{machine()}; {options.runs} rounds, {options.clock} time"
    print(f"{about}\n\n{HEAD}", flush=True)
    found = [r for c in cases for r in _timed(c, engines, options)]
    if options.json:
        text = json.dumps([vars(r) for r in found], indent=2) + "\n"
        Path(options.json).write_text(text, encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency of int8 artifacts by engine.")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--files", choices=("make", "only", "reuse"), default="make")
    parser.add_argument("--runs", type=int, default=40, help="timed rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    names = [e.name for e in ENGINES]
    parser.add_argument("--engines", nargs="+", choices=names, default=names)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def _timed(case: Case, engines: Sequence[Engine], options: argparse.Namespace) -> list[Row]:
    """Rows of one model; prints as it goes."""
    made, clock = [], f"{options.clock}_ms"
    for engine in engines:
        found = {form: subject(case, form, engine) for form in engine.forms}
        for count in options.threads:
            forms, result = _rounds(found, count, options.runs)
            rows = [row(case, engine, forms, i, result, clock) for i in range(len(forms))]
            print("\n".join(r.line() for r in rows), flush=True)
            made += rows
        for form, one in found.items():
            if isinstance(one, Missing):
                cells = (case.name, "", engine.name, form.label, one.reason, "", "", "")
                print(f"| {' | '.join(cells)} |", flush=True)
    return made


def _rounds(
    found: dict[Form, Subject | Missing], threads: int, runs: int
) -> tuple[list[Form], Rounds]:
    """What opens, timed; a file that its engine refuses becomes ``Missing`` in ``found``."""
    while True:
        there = {f: s for f, s in found.items() if not isinstance(s, Missing)}
        try:
            return list(there), rounds(list(there.values()), threads, runs)
        except InputError as e:
            label, _, reason = e.message.partition(": ")
            (bad,) = [f for f in there if f.label == label]
            found[bad] = Missing(reason.rpartition("/")[2][:160])


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    BUILD.mkdir(parents=True, exist_ok=True)
    sys.exit(main())
