"""One cell: compile or quantize, answer the test images, keep what was measured as JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.store import ROOT
from benchmarks.quantization.cases import CALIBRATION, Case
from benchmarks.quantization.recipes import Ours

__all__ = ["Cell", "calibration_file", "cell", "measure"]

BUILD = ROOT / "build" / "quantization"
TIMEOUT_S = 3600
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Cell:
    """What was measured of one artifact.

    Attributes:
        case: Name of the model.
        label: Precision and form; ``fp32`` for the source.
        error: Why there is nothing else; empty if there is.
        answers: One for each test image.
        bytes: Size of the artifact's files.
        quantize_s: Seconds of quantizing (for ours: the whole compile).
        peak_mb: Peak memory of that, children included.
        run_s: Seconds of all runs, one thread.
        parity: Whole-network figures of the compile.
    """

    case: str
    label: str
    error: str = ""
    answers: tuple[Any, ...] = ()
    bytes: int = 0
    quantize_s: float = 0.0
    peak_mb: float = 0.0
    run_s: float = 0.0
    parity: str = ""


def calibration_file(case: Case) -> Path:
    """The 64 calibration samples of a case as ``.npz``, made once."""
    from edgevit.loading import load

    path = BUILD / "calibration" / f"{case.name}.npz"
    if not path.is_file():
        name = load(case.find(), dict(case.shapes)).model.graph.inputs[0].name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.stack(list(case.images("train", CALIBRATION)))
        # savez in a file of its own first: a run that was cut short leaves nothing half done.
        beside = path.with_suffix(".part.npz")
        np.savez(beside, **{str(name): samples})  # type: ignore[arg-type]
        beside.replace(path)
    return path


def cell(case: Case, ours: Ours | None, count: int) -> Cell:
    """Measure one recipe of ours, or the source in float32; kept between runs."""
    label = "fp32" if ours is None else f"{ours.target} {ours.label}"
    kept = BUILD / "cells" / f"{case.name}-{label.replace(' ', '-')}-{count}.json"
    if kept.is_file():
        data = json.loads(kept.read_text())
        return Cell(**{**data, "answers": tuple(data["answers"])})
    found = _made(case, ours, label, count)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(vars(found)))
    return found


def _made(case: Case, ours: Ours | None, label: str, count: int) -> Cell:
    try:
        if ours is None:
            return measure(
                Cell(case.name, label, bytes=case.find().stat().st_size), case, count
            )
        return _compiled(case, ours, label, count)
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        return Cell(case.name, label, error=str(e))


def _compiled(case: Case, ours: Ours, label: str, count: int) -> Cell:
    bundle = BUILD / "bundles" / f"{case.name}-{label.replace(' ', '-')}.edgevit"
    command = [sys.executable, "-m", "edgevit", "compile", str(case.find()), "--json", "-q"]
    command += ["--target", ours.target, "--precision", ours.precision, "--overwrite"]
    command += ["--calib", str(calibration_file(case)), "-o", str(bundle)]
    command += ["--recipe", str(_without_budget())]
    if ours.passes:
        command += ["--passes", ours.passes]
    for name, shape in case.shapes.items():
        command += ["--shape", f"{name}={','.join(map(str, shape))}"]
    bundle.parent.mkdir(parents=True, exist_ok=True)
    done, seconds, peak = _timed(command)
    try:
        said = json.loads(done)
    except json.JSONDecodeError as e:
        raise RuntimeError(f"edgevit compile said {done[-200:]!r}") from e
    if said["status"] != "ok":
        raise RuntimeError(said["error"]["message"])
    files = [f for f in said["result"]["files"] if _is_artifact(f["path"])]
    begun = Cell(
        case.name,
        label,
        bytes=sum(f["bytes"] for f in files),
        quantize_s=seconds,
        peak_mb=peak,
        parity=json.dumps(said["result"]["parity"]),
    )
    return measure(begun, case, count, bundle)


def _without_budget() -> Path:
    """A recipe without a limit on the whole network: here that is what is measured.

    What single nodes compute is judged all the same.
    """
    path = BUILD / "recipe.toml"
    path.write_text("schema = 1\n[budget]\nsqnr_db = -100.0\n")
    return path


def _is_artifact(path: str) -> bool:
    return not path.startswith(("selfcheck", "debug_map", "report", "edits", "manifest"))


def _timed(command: list[str]) -> tuple[str, float, float]:
    """Output, seconds, and peak resident memory in MB of a command and its children.

    The peak is the largest sum over the process tree, sampled: parent and reference child
    live at the same time.
    """
    start = time.perf_counter()
    peak = 0
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **_ONE_THREAD},
    ) as child:
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(0.2)
        output = child.stdout.read() if child.stdout is not None else ""
    return output, time.perf_counter() - start, peak / 1e6


def _resident(pid: int) -> int:
    """Resident bytes of a process and its descendants, from Linux's /proc; 0 once gone."""
    proc = Path("/proc") / str(pid)
    try:
        pages = int((proc / "statm").read_text().split()[1])
        threads = list((proc / "task").iterdir())
        children = [c for t in threads for c in (t / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize() + sum(_resident(int(c)) for c in children)


def measure(begun: Cell, case: Case, count: int, subject: Path | None = None) -> Cell:
    """Answer the test images in a worker.

    Raises:
        RuntimeError: The worker failed; the message is its last line.
    """
    out = BUILD / "answers" / f"{case.name}-{begun.label.replace(' ', '-')}-{count}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.quantization.worker"]
    done = subprocess.run(
        [*command, str(subject or case.find()), case.name, str(count), str(out)],
        env={**os.environ, **_ONE_THREAD},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise RuntimeError(f"{begun.label}: {tail[0]}")
    data = json.loads(out.read_text())
    merged = {**vars(begun), "answers": tuple(data["answers"]), "run_s": data["seconds"]}
    return Cell(**merged)
