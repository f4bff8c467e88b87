"""One cell: make the artifact, answer the test images, keep what was measured."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.corpus.store import ROOT, CorpusUnavailableError, sha256
from benchmarks.quantization.cases import CALIBRATION, Case
from benchmarks.quantization.cells import BUILD, Cell, file_name, read, write
from benchmarks.quantization.recipes import SOURCE, Form, Ours, Peer
from benchmarks.quantization.timing import Timed, timed
from benchmarks.zoo_code import code_digest

__all__ = [
    "PEERS",
    "TIMEOUT_S",
    "artifact",
    "calibration_file",
    "cell",
    "code_of",
    "compile_command",
    "float_tflite",
    "message_of",
    "one_sample",
]

PEERS = ROOT / ".venv-peers"  # make peers-env
LOCK = ROOT / "requirements" / "quantization-peers.lock"
TIMEOUT_S = 1800
LEAST = 300  # images that every cell answers
_QUANTIZERS = Path(__file__).with_name("quantizers.py")


def calibration_file(case: Case, count: int = CALIBRATION) -> Path:
    """Calibration samples of a case as ``.npz``, made once; the first are always the same."""
    from edgevit.loading import load

    ending = "" if count == CALIBRATION else f"-{count}"
    path = BUILD / "calibration" / f"{case.name}{ending}.npz"
    if not path.is_file():
        name = load(case.find(), dict(case.shapes)).model.graph.inputs[0].name
        path.parent.mkdir(parents=True, exist_ok=True)
        images = case.images("train", count)
        first = next(images)
        samples = np.empty((count, *first.shape), first.dtype)
        # One at a time into its place: hundreds of images are not held twice.
        for at, image in zip(range(count), itertools.chain([first], images), strict=True):
            samples[at] = image
        # savez in a file of its own first: a run that was cut short leaves nothing half done.
        beside = path.with_suffix(".part.npz")
        np.savez(beside, allow_pickle=False, **{str(name): samples})
        beside.replace(path)
    return path


def code_of(case: Case, form: Form) -> str:
    """Digest of what determines a cell: form, model, and versions of the code."""
    engines = [version(name) for name in ("onnxruntime", "ai-edge-litert")]
    parts = [repr(form), sha256(case.find()), *engines]
    if isinstance(form, Ours):
        parts += [code_digest()]
    elif isinstance(form, Peer):
        parts += [sha256(LOCK), sha256(_QUANTIZERS)]
        parts += [sha256(float_tflite(case))] if form.reads_tflite else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def cell(case: Case, form: Form, count: int, seconds: float, resume: bool) -> Cell:
    """Measure one form; what is kept is used if the same code made it, or on ``resume``.

    Answering stops after ``seconds`` of processor time, on a full hundred of images; the
    source, which all are compared with, answers every image.
    """
    kept = read(case.name, form.label, count)
    if kept is not None and resume:
        return kept
    code = code_of(case, form)
    if kept is not None and kept.code == code:
        return kept
    try:
        made, subject = _artifact(Cell(case.name, form.label, code), case, form)
        longest = math.inf if form is SOURCE else seconds
        command = _worker(made, case, form, subject, (count, LEAST, longest))
        found = _answered(made, command)
    except (RuntimeError, TimeoutError) as e:
        found = Cell(case.name, form.label, code, error=str(e))
    write(found, count)
    return found


def artifact(case: Case, form: Form) -> Path:
    """The file or bundle of a form, made now.

    Raises:
        RuntimeError: The quantizer fails; the message is its last line.
        TimeoutError: It takes too long.
    """
    return _artifact(Cell(case.name, form.label), case, form)[1]


def _artifact(begun: Cell, case: Case, form: Form) -> tuple[Cell, Path]:
    if isinstance(form, Ours):
        return _compiled(begun, case, form)
    if isinstance(form, Peer):
        return _quantized(begun, case, form)
    return replace(begun, bytes=case.find().stat().st_size), case.find()


def _compiled(begun: Cell, case: Case, ours: Ours) -> tuple[Cell, Path]:
    bundle = BUILD / "bundles" / f"{file_name(case.name, ours.label)}.edgevit"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = compile_command(case, ours.target, ours.precision, bundle)
    # All 64 samples calibrate; without --inputs the last fifth would be kept out.
    command += ["--calib", str(calibration_file(case)), "--inputs", str(one_sample(case))]
    command += ["--passes", ours.passes] if ours.passes else []
    done = _timed(command, begun)
    said = json.loads(done.output)
    files = [f for f in said["result"]["files"] if _is_artifact(f["path"])]
    size = sum(f["bytes"] for f in files)
    return _with_cost(begun, size, done), bundle


def compile_command(
    case: Case, target: str, precision: str, bundle: Path, verify: bool = False
) -> list[str]:
    """Our compiler; without ``verify`` it quantizes and lowers only."""
    command = [sys.executable, "-m", "edgevit", "compile", str(case.find()), "--json", "-q"]
    command += ["--target", target, "--precision", precision, "--overwrite"]
    command += [] if verify else ["--no-verify"]
    command += ["-o", str(bundle)]
    for name, shape in case.shapes.items():
        command += ["--shape", f"{name}={','.join(map(str, shape))}"]
    return command


def one_sample(case: Case) -> Path:
    """Nothing is verified, but a sample for it is still read."""
    path = BUILD / "calibration" / f"{case.name}-one.npz"
    if not path.is_file():
        with np.load(calibration_file(case)) as data:
            first = {name: data[name][:1] for name in data.files}
        np.savez(path, **first)
    return path


def _is_artifact(path: str) -> bool:
    return not path.startswith(("selfcheck", "debug_map", "report", "edits", "manifest"))


def _quantized(begun: Cell, case: Case, peer: Peer) -> tuple[Cell, Path]:
    if not (PEERS / "bin" / "python").exists():
        raise CorpusUnavailableError(PEERS.name, reason="run make peers-env")
    out = BUILD / "peers" / f"{file_name(case.name, peer.label)}{peer.suffix}"
    out.parent.mkdir(parents=True, exist_ok=True)
    model = float_tflite(case) if peer.reads_tflite else case.find()
    command = [str(PEERS / "bin" / "python"), "-m", "benchmarks.quantization.quantizers"]
    command += [peer.tool, str(model), str(calibration_file(case)), str(out)]
    done = _timed(command, begun)
    beside = out.with_suffix(".bin")  # the weights of OpenVINO's .xml
    weights = beside.stat().st_size if peer.suffix == ".xml" else 0
    return _with_cost(begun, out.stat().st_size + weights, done), out


def float_tflite(case: Case) -> Path:
    """The float32 ``.tflite`` that litert-quantizer reads: ours, made once by each code."""
    path = BUILD / "float" / f"{case.name}-{code_digest()}.tflite"
    if not path.is_file():
        bundle = path.with_name(f"{case.name}.edgevit")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        _timed(compile_command(case, "linux-x86", "fp32", bundle), Cell(case.name, "float"))
        (made,) = bundle.glob("*.tflite")
        made.replace(path)
    return path


def _timed(command: list[str], begun: Cell) -> Timed:
    folder = BUILD / "streams" / file_name(begun.case, begun.label)
    done = timed(command, folder, TIMEOUT_S)
    if done.status:
        raise RuntimeError(f"fails: {message_of(done.output, done.errors, done.status)}")
    return done


def message_of(output: str, errors: str, status: int) -> str:
    """The message of our JSON, or the last line of a traceback, or the status."""
    try:
        return str(json.loads(output)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        last = [line for line in errors.splitlines() if line.strip()][-1:]
        return last[0].strip() if last else f"status {status}"


def _with_cost(begun: Cell, size: int, done: Timed) -> Cell:
    return replace(
        begun,
        bytes=size,
        quantize_s=done.seconds,
        quantize_cpu_s=done.cpu_s,
        peak_mb=done.peak_mb,
    )


def _interpreter(form: Form) -> str:
    """Python with the engine: the peers' environment has all of them but the evaluator."""
    if isinstance(form, Peer) or form.engine == "OpenVINO":
        return str(PEERS / "bin" / "python")
    return sys.executable


def _worker(
    begun: Cell, case: Case, form: Form, subject: Path, limits: tuple[float, ...]
) -> list[str]:
    command = [_interpreter(form), "-m", "benchmarks.quantization.worker", str(subject)]
    return [*command, case.name, *map(str, limits), str(_answers(begun))]


def _answers(begun: Cell) -> Path:
    return BUILD / "answers" / f"{file_name(begun.case, begun.label)}.json"


def _answered(begun: Cell, command: list[str]) -> Cell:
    """Answer the test images in a worker.

    Raises:
        RuntimeError: The worker failed; the message is its last line.
        TimeoutError: It took too long.
    """
    out = _answers(begun)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    done = timed(command, BUILD / "streams" / f"{out.stem}-worker", TIMEOUT_S)
    if done.status:
        raise RuntimeError(f"does not run: {message_of('', done.errors, done.status)}")
    data = json.loads(out.read_text(encoding="utf-8"))
    return replace(begun, answers=tuple(data["answers"]), run_s=data["seconds"])
