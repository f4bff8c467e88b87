"""Latency of the TVM target next to the engines', float32 and int8, in the same rounds.

    make bench-native-latency
    python -m benchmarks.native_latency [CASE ...] [--runs N] [--threads N ...]
        [--clock cpu|wall] [--files only|never]

Files are made first, each engine's fastest form alone; ``--files only`` stops there. Each
round runs every subject once, each in a process of its own; ratios are medians of the rounds'
own ratios with their distribution-free 95 % interval, against the fastest peer of the same
kind. On a machine that other work uses, processor time says more than the clock
(``--clock cpu``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus.store import ROOT
from benchmarks.peers import machine
from benchmarks.quantization.cases import CASES, Case
from benchmarks.quantization.latency_cases import ENGINES, Engine, choose_timed, untrained
from benchmarks.quantization.latency_files import Missing, prepare, subject
from benchmarks.quantization.recipes import FORMS, SOURCE, Form
from benchmarks.quantization.run import PEERS, calibration_file
from edgevit.bench import Rounds, Subject, median_interval, rounds
from edgevit.errors import InputError

__all__: list[str] = []

BUILD = ROOT / "build" / "native"
TARGET = "linux-x86:backend=tvm"
# The fastest int8 form of each engine's public quantizer (RESULTS-quantization-latency.md).
PEERS_INT8 = (
    ("OpenVINO", "NNCF transformer"),
    ("ONNX Runtime", "ONNX Runtime dynamic"),
    ("LiteRT", "litert-quantizer dynamic"),
)


@dataclass(frozen=True)
class Row:
    """What is timed, and what it competes with."""

    kind: str
    ours: bool
    subject: Subject


def main() -> int:
    """Compile what is missing, then time everything where every engine is installed."""
    options = _arguments()
    cases = choose_timed(options.cases, _more())
    python = PEERS / "bin" / "python"
    if Path(sys.executable) != python:
        for case in cases if options.files != "never" else ():
            _prepare(case)
        if options.files == "only":
            return 0
        command = [str(python), "-m", "benchmarks.native_latency", *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode
    print(f"{machine()}; {options.runs} rounds, {options.clock} time\n")
    print("| model | threads | kind | what | ms | to the fastest peer [95 %] |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        for threads in options.threads:
            _time(case, threads, options.runs, f"{options.clock}_ms")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency of native code next to engines.")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--runs", type=int, default=30, help="timed rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--files", choices=("make", "only", "never"), default="make")
    return parser.parse_args()


def _more() -> tuple[Case, ...]:
    """Models that this table has besides."""
    by_name = {case.name: case for case in CASES}
    deit = untrained(by_name["deit_tiny_patch16_224"], "deit_small_patch16_224")
    return (by_name["mobilevit_xxs"], deit)


def _prepare(case: Case) -> None:
    """Every file that is timed."""
    by_label: dict[str, Form] = {form.label: form for form in FORMS}
    prepare(case, [Engine(n, (SOURCE, by_label[label])) for n, label in PEERS_INT8])
    for precision in ("fp32", "w8a8"):
        _compile(case, precision)


def _bundle(case: Case, precision: str) -> Path:
    return BUILD / f"{case.name}-{precision}.edgevit"


def _compile(case: Case, precision: str) -> None:
    """A bundle; verified elsewhere (the zoo and the tables of accuracy)."""
    out = _bundle(case, precision)
    if out.is_dir():
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edgevit", "compile", str(case.find()), "-q"]
    command += ["--target", TARGET, "--precision", precision, "--no-verify", "-o", str(out)]
    if precision != "fp32":
        command += ["--calib", str(calibration_file(case))]
    for name, dims in case.shapes.items():
        command += ["--shape", f"{name}={','.join(map(str, dims))}"]
    subprocess.run(command, check=True, cwd=ROOT)


def _rows(case: Case) -> list[Row]:
    """Everything that is there: peers first."""
    by_label: dict[str, Form] = {form.label: form for form in FORMS}
    engines: dict[str, Engine] = {engine.name: engine for engine in ENGINES}
    asked: list[tuple[str, str, Form]] = [("float32", name, SOURCE) for name in engines]
    asked += [("int8", name, by_label[label]) for name, label in PEERS_INT8]
    found = []
    for kind, name, form in asked:
        made = subject(case, form, engines[name])
        if isinstance(made, Missing):
            print(f"| {case.name} | | {kind} | {name} {form.label} | | {made.reason} |")
            continue
        label = f"{name} fp32" if form is SOURCE else form.label
        one = Subject(label, made.path, made.shapes)
        reason = _refused(one)
        if reason:
            print(f"| {case.name} | | {kind} | {label} | | does not run: {reason} |")
            continue
        found.append(Row(kind, False, one))
    for kind, precision in (("float32", "fp32"), ("int8", "w8a8")):
        path = str(_bundle(case, precision))
        found.append(Row(kind, True, Subject(f"ours {precision}", path, ())))
    return found


def _refused(one: Subject) -> str:
    """Why a peer's file does not run; empty if it does."""
    try:
        rounds([one], 1, 1, warmup=0)
    except InputError as e:
        return e.message.partition(": ")[2][:120]
    return ""


def _time(case: Case, threads: int, runs: int, clock: str) -> None:
    rows = _rows(case)
    result = rounds([r.subject for r in rows], threads, runs)
    middle = [_median(result, i, clock) for i in range(len(rows))]
    for i, row in enumerate(rows):
        rivals = [j for j, r in enumerate(rows) if r.kind == row.kind and not r.ours]
        ratio = _ratio(result, i, min(rivals, key=middle.__getitem__), clock) if rivals else ""
        about = f"{result.about[i]['engine']} {result.about[i]['version']}"
        print(
            f"| {case.name} | {threads} | {row.kind} | {row.subject.label} ({about}) | "
            f"{middle[i]:.2f} | {ratio} |",
            flush=True,
        )


def _values(result: Rounds, index: int, clock: str) -> Sequence[float]:
    return [answer[index][clock] for answer in result.answers]


def _median(result: Rounds, index: int, clock: str) -> float:
    return median_interval(_values(result, index, clock))[1]


def _ratio(result: Rounds, one: int, other: int, clock: str) -> str:
    pairs = zip(_values(result, one, clock), _values(result, other, clock), strict=True)
    low, middle, high = median_interval([a / b for a, b in pairs])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
