"""Compile time and memory next to public converters: whole processes, imports included.

    make bench-compile-time
    python -m benchmarks.compile_time [--rounds N] [--formats "Core ML" LiteRT] [--json FILE]

deit_tiny to Core ML (float16) next to onnx2coreml and ``onnxsim --emit-coreml``; to LiteRT
next to onnx2tf, as it is by default and with its simplifier off (its faster form). Ours runs
without verification, as they do. Each round starts every command once, one after the other;
seconds are medians, a ratio is the median of the per-round ratios to ours with its
distribution-free interval (the full range below 6 rounds). Memory is the most that one
process of the command held. Exit status 1 if a peer is as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.corpus.store import CorpusUnavailableError
from benchmarks.peers import (
    MODELS,
    ONNX2TF,
    ORACLES,
    environment_of,
    machine,
    onnx2tf_command,
    ours_command,
)
from edgevit.bench import median_interval

__all__ = ["Command", "Compiled", "Summary", "main", "run", "summary"]

_STOPWATCH = Path(__file__).with_name("stopwatch.py")
MODEL = next(m for m in MODELS if m.name == "deit_tiny")


@dataclass(frozen=True)
class Command:
    """A converter's command line.

    Attributes:
        label: Shown in the table.
        arguments: The program and its arguments.
        made: File or directory that must be there afterwards.
        environment: The process's environment.
    """

    label: str
    arguments: tuple[str, ...]
    made: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Compiled:
    """One run: seconds by the clock and on the CPU, and megabytes at the peak."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Summary:
    """One line of the table.

    Attributes:
        label: The command's.
        wall_s: Median.
        cpu_s: Median; what other programs on the machine do matters little to it.
        peak_mb: Largest.
        ratio: Wall time to that of the first command: low, median, high.
        cpu_ratio: CPU time to that of the first command.
    """

    label: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    ratio: tuple[float, float, float]
    cpu_ratio: tuple[float, float, float]


def run(command: Command) -> Compiled:
    """Run a command once.

    Raises:
        RuntimeError: It failed, or made nothing.
    """
    if command.made.is_dir():
        shutil.rmtree(command.made)
    command.made.unlink(missing_ok=True)
    starter = [sys.executable, "-S", "-E", str(_STOPWATCH)]
    done = subprocess.run(
        [*starter, *command.arguments],
        env=dict(command.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not command.made.exists():
        said = done.stderr[-1500:]
        raise RuntimeError(f"{command.label}: status {done.returncode}\n{said}")
    return Compiled(**json.loads(done.stdout))


def commands(folder: Path) -> dict[str, tuple[Command, ...]]:
    """Format -> commands, ours first.

    Raises:
        CorpusUnavailableError: A converter or the model is not there.
    """
    for environment, program in ((ONNX2TF, "onnx2tf"), (ORACLES, "onnx2coreml")):
        if not (environment / "bin" / program).exists():
            reason = "run make onnx2tf-env and make oracles"
            raise CorpusUnavailableError(environment.name, reason=reason)
    model = str(MODEL.find())
    made = {name: folder / name for name in ("phone.edgevit", "x86.edgevit", "tf", "raw")}
    first, second = folder / "first.mlpackage", folder / "second.mlpackage"
    converter = str(ORACLES / "bin" / "onnx2coreml")
    simplifier = str(ORACLES / "bin" / "onnxsim")
    stem = Path(MODEL.file).stem
    return {
        "Core ML": (
            _ours("iphone-npu", made["phone.edgevit"]),
            Command(
                "onnx2coreml",
                (converter, "convert", model, "-o", str(first), "--precision", "fp16"),
                first,
            ),
            Command(
                "onnxsim",
                (simplifier, model, str(folder / "s.onnx"), "--emit-coreml", str(second)),
                second,
            ),
        ),
        "LiteRT": (
            _ours("linux-x86", made["x86.edgevit"]),
            _theirs("onnx2tf", made["tf"], stem),
            _theirs("onnx2tf, not simplified", made["raw"], stem, "-nuo"),
        ),
    }


def _ours(target: str, out: Path) -> Command:
    return Command("edgevit", tuple(ours_command(MODEL, target, out)), out)


def _theirs(label: str, out: Path, stem: str, *options: str) -> Command:
    arguments = tuple(onnx2tf_command(MODEL, out, *options))
    return Command(label, arguments, out / f"{stem}_float32.tflite", environment_of(ONNX2TF))


def summary(label: str, mine: Sequence[Compiled], first: Sequence[Compiled]) -> Summary:
    """Medians of one command, paired with the first command's runs."""
    pairs = list(zip(mine, first, strict=True))
    return Summary(
        label,
        statistics.median(c.wall_s for c in mine),
        statistics.median(c.cpu_s for c in mine),
        max(c.peak_mb for c in mine),
        median_interval([a.wall_s / b.wall_s for a, b in pairs]),
        median_interval([a.cpu_s / b.cpu_s for a, b in pairs]),
    )


def _measured(group: Sequence[Command], count: int) -> list[Summary]:
    """The first round fills the file cache and is not counted."""
    runs = [[run(c) for c in group] for _ in range(count + 1)][1:]
    columns = list(zip(*runs, strict=True))
    return [summary(c.label, m, columns[0]) for c, m in zip(group, columns, strict=True)]


def _interval(values: tuple[float, float, float]) -> str:
    low, middle, high = values
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _print(name: str, lines: Sequence[Summary]) -> None:
    head = f"{MODEL.name} to {name} | wall, s | CPU, s | peak, MiB | wall ratio | CPU ratio"
    print(f"\n| {head} |\n|---|---|---|---|---|---|")
    for s in lines:
        times = f"{s.wall_s:.1f} | {s.cpu_s:.1f} | {s.peak_mb:.0f}"
        ratios = f"{_interval(s.ratio)} | {_interval(s.cpu_ratio)}"
        print(f"| {s.label} | {times} | {ratios} |", flush=True)


def main() -> int:
    """Measure and print; 1 if a peer is as fast as we are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    formats = ("Core ML", "LiteRT")
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats)
    options = parser.parse_args()
    print(f"{machine()}; {options.rounds} rounds")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            groups = commands(Path(folder))
        except CorpusUnavailableError as e:
            print(e)
            return 0
        for name in options.formats:
            group = groups[name]
            found[name] = _measured(group, options.rounds)
            _print(name, found[name])
    if options.json:
        figures = {name: [asdict(s) for s in lines] for name, lines in found.items()}
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return int(any(s.ratio[1] <= 1 for lines in found.values() for s in lines[1:]))


if __name__ == "__main__":
    sys.exit(main())
