"""Latency of our LiteRT file next to the one that onnx2tf writes and to ONNX Runtime.

    make bench-peers-latency
    python -m benchmarks.peers_latency [--runs N] [--threads N ...] [--models NAME ...]
                                       [--files make|only|reuse]

``--files only`` makes the files and times nothing, ``reuse`` times those: on a shared machine
the timing can so wait for a quiet moment.

Both ``.tflite`` files are float32 and run in the same LiteRT, by the same worker; ONNX Runtime
runs the source with all of its optimizations. Every round runs each subject once, each in a
process of its own; a ratio is the median of the per-round ratios with its distribution-free
95 % interval. Ours is compiled and verified first, with the source's own layout at the
boundary; onnx2tf's takes channels-last input. Exit status 1 if ours is slower than onnx2tf's
(the interval of the ratio lies above 1.03), or has as many transposes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.store import ROOT, CorpusUnavailableError
from benchmarks.edgevit_json import call
from benchmarks.peers import MODELS, PeerModel, machine, onnx2tf, operators
from edgevit.bench import Rounds, Subject, rounds
from edgevit.errors import EdgevitError

__all__ = ["LIMIT", "Row", "Transposes", "main", "slower"]

FOLDER = ROOT / "build" / "peers"
LIMIT = 1.03  # of the lower end of the interval: measuring twice the same file gives as much
_TARGET = "linux-x86"
_AGREE = 1e-4  # of max|y|: two float32 files of one network; a wrong one is off by percents
_ORT, _PEER, _OURS = 0, 1, 2
Interval = tuple[float, float, float]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One model at one number of threads.

    Attributes:
        model: Its name.
        threads: Given to every engine.
        p50_ms: Medians of ONNX Runtime, onnx2tf's file and ours.
        to_onnx2tf: Our time to that of onnx2tf's file: low, median, high.
        to_ort: Our time to ONNX Runtime's.
        onnx2tf_to_ort: The time of onnx2tf's file to ONNX Runtime's.
    """

    model: str
    threads: int
    p50_ms: tuple[float, ...]
    to_onnx2tf: Interval
    to_ort: Interval
    onnx2tf_to_ort: Interval


@dataclass(frozen=True)
class Transposes:
    """TRANSPOSE operators, and all operators, in both files."""

    model: str
    ours: int
    onnx2tf: int
    ours_operators: int
    onnx2tf_operators: int


def slower(row: Row) -> bool:
    """Whether our file is slower than onnx2tf's, beyond noise."""
    return row.to_onnx2tf[0] > LIMIT


def _compile(model: PeerModel) -> Path:
    """Compile and verify: the latency of a wrong artifact is worth nothing."""
    bundle = FOLDER / f"{model.name}.edgevit"
    options = ["--target", _TARGET, "--output", str(bundle), "--overwrite"]
    options += [t for text in model.texts("=") for t in ("--shape", text)]
    answer = call(["compile", str(model.find()), *options])
    if answer.exit_code:
        raise SystemExit(f"{model.name} for {_TARGET}: {answer.error}")
    return next(bundle.glob("*.tflite"))


def _opened(path: Path) -> tuple[Any, Any]:
    """An interpreter, and the details of its only input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    return interpreter, detail


def _answers(path: Path, image: Array) -> list[Array]:
    """Outputs of a ``.tflite`` file for an NCHW image."""
    interpreter, detail = _opened(path)
    plain = tuple(detail["shape"].tolist()) == image.shape
    fed = image if plain else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    interpreter.set_tensor(detail["index"], fed)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def _require_same(model: PeerModel, ours: Path, peer: Path) -> None:
    """Both files must compute the same function, or comparing their times is idle."""
    shape = _opened(ours)[1]["shape"]  # the source's
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for mine, other in zip(_answers(ours, image), _answers(peer, image), strict=True):
        if mine.shape != other.shape:
            raise SystemExit(f"{model.name}: shapes {mine.shape} and {other.shape}")
        error = float(np.max(np.abs(mine - other)) / np.max(np.abs(mine)))
        if not error <= _AGREE:
            raise SystemExit(f"{model.name}: the files differ by {error:.2g} of max|y|")


def _row(model: PeerModel, found: Rounds) -> Row:
    return Row(
        model.name,
        found.threads,
        tuple(found.timing(i).p50_ms for i in (_ORT, _PEER, _OURS)),
        found.ratio(_OURS, _PEER),
        found.ratio(_OURS, _ORT),
        found.ratio(_PEER, _ORT),
    )


def _transposes(model: PeerModel, ours: Path, peer: Path) -> Transposes:
    mine, other = operators(ours), operators(peer)
    counts = (mine["TRANSPOSE"], other["TRANSPOSE"], mine.total(), other.total())
    return Transposes(model.name, *counts)


def _interval(values: Interval) -> str:
    low, middle, high = values
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _line(row: Row) -> str:
    times = " | ".join(f"{t:.1f}" for t in row.p50_ms)
    ratios = (row.to_onnx2tf, row.to_ort, row.onnx2tf_to_ort)
    return f"| {row.model} | {row.threads} | {times} | {' | '.join(map(_interval, ratios))} |"


_HEAD = """| model | threads | ONNX Runtime, ms | onnx2tf, ms | ours, ms | \
ours / onnx2tf | ours / ONNX Runtime | onnx2tf / ONNX Runtime |
|---|---|---|---|---|---|---|---|"""


def prepare(models: Sequence[PeerModel]) -> None:
    """Make both files of each model, and require that they compute the same.

    Raises:
        CorpusUnavailableError: A model or onnx2tf is not there.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for model in models:
        _require_same(model, _compile(model), onnx2tf(model, FOLDER))


def _files(model: PeerModel) -> tuple[Path, Path]:
    """Our file and onnx2tf's, as ``prepare`` left them."""
    found = (
        *(FOLDER / f"{model.name}.edgevit").glob("*.tflite"),
        *(FOLDER / f"{model.name}-onnx2tf").glob("*_float32.tflite"),
    )
    if len(found) != 2:
        raise SystemExit(f"{model.name}: no files in {FOLDER}; run with --files only first")
    return found[0], found[1]


def measure(models: Sequence[PeerModel], threads: Sequence[int], runs: int) -> list[Row]:
    """Time the prepared files; prints as it goes.

    Raises:
        EdgevitError: A subject does not run.
    """
    print(_HEAD, flush=True)
    rows = []
    for model in models:
        ours, peer = _files(model)
        subjects = (
            Subject("ONNX Runtime", str(model.find()), tuple(model.texts("="))),
            Subject("onnx2tf", str(peer)),
            Subject("ours", str(ours)),
        )
        for count in threads:
            rows.append(_row(model, rounds(subjects, count, runs)))
            print(_line(rows[-1]), flush=True)
    return rows


def _counted(models: Sequence[PeerModel]) -> list[Transposes]:
    counts = [_transposes(m, *_files(m)) for m in models]
    print("| model | transposes: ours, onnx2tf | operators: ours, onnx2tf |\n|---|---|---|")
    for c in counts:
        every = f"{c.ours_operators}, {c.onnx2tf_operators}"
        print(f"| {c.model} | {c.ours}, {c.onnx2tf} | {every} |")
    return counts


def main() -> int:
    """Measure and print; 1 if a gate failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=100, help="timed rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    names = [m.name for m in MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--files", choices=("make", "only", "reuse"), default="make")
    options = parser.parse_args()
    chosen = [m for m in MODELS if m.name in options.models]
    try:
        if options.files != "reuse":
            prepare(chosen)
        counts = _counted(chosen)
        print(f"\n{machine()}; {options.runs} rounds\n")
        timed = [] if options.files == "only" else options.threads
        rows = measure(chosen, timed, options.runs)
    except CorpusUnavailableError as e:
        print(e)
        return 0
    except EdgevitError as e:
        raise SystemExit(f"error: {e.message}") from e
    if options.json:
        figures = {
            "timings": [asdict(r) for r in rows],
            "operators": [asdict(c) for c in counts],
        }
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return int(any(map(slower, rows)) or any(c.ours >= c.onnx2tf for c in counts))


if __name__ == "__main__":
    sys.exit(main())
