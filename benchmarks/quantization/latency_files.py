"""The files that are timed: quantized once by each version of the code, then reused."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quantization.cases import Case
from benchmarks.quantization.cells import BUILD, file_name
from benchmarks.quantization.latency_cases import Engine
from benchmarks.quantization.recipes import SOURCE, Form
from benchmarks.quantization.run import PEERS, artifact, code_of, float_tflite
from edgevit.bench import Subject

__all__ = ["Missing", "bare", "prepare", "subject"]

_LOG = logging.getLogger(__name__)
_MADE = BUILD / "latency"
_CONVERT = """
import sys, openvino
model = openvino.Core().read_model(sys.argv[1])
for text in sys.argv[3:]:
    name, _, shape = text.partition("=")
    model.reshape({name: [int(d) for d in shape.split(",")]})
openvino.save_model(model, sys.argv[2], compress_to_fp16=False)
"""


@dataclass(frozen=True)
class Missing:
    """Why a form has no file."""

    reason: str


def prepare(case: Case, engines: Sequence[Engine]) -> None:
    """Make every file that is not there, or that another version of the code made."""
    _MADE.mkdir(parents=True, exist_ok=True)
    for engine in engines:
        for form in engine.forms:
            note = _note(case, form, engine)
            code = code_of(case, form)
            if note.is_file() and note.read_text(encoding="utf-8").startswith(code):
                continue
            try:
                said = str(_made(case, form, engine))
            except (RuntimeError, TimeoutError) as e:
                said = f"!{e}"
            note.write_text(f"{code}\n{said}\n", encoding="utf-8")
            _LOG.warning("%s, %s: %s", case.name, form.label, said)


def _note(case: Case, form: Form, engine: Engine) -> Path:
    """Where is kept which code made a file, and the file's path or what went wrong."""
    label = f"{engine.name} {form.label}" if form is SOURCE else form.label
    return _MADE / f"{file_name(case.name, label)}.txt"


def _made(case: Case, form: Form, engine: Engine) -> Path:
    if form is SOURCE and engine.name == "LiteRT":
        return float_tflite(case)
    made = case.find() if form is SOURCE else bare(artifact(case, form))
    if engine.name == "OpenVINO" and made.suffix == ".onnx":
        label = "" if form is SOURCE else f"-{form.label}"
        return _openvino(made, file_name(case.name, label), _shapes(case))
    return made


def bare(made: Path) -> Path:
    """The file in a bundle that the engine reads, so that all are opened alike."""
    if not made.is_dir():
        return made
    (found,) = (p for p in made.iterdir() if p.suffix in (".onnx", ".tflite"))
    return found


def _openvino(model: Path, name: str, shapes: Sequence[str]) -> Path:
    """An ONNX file as OpenVINO reads it, with the shapes that are timed."""
    out = _MADE / f"{name}.xml"
    command = [str(PEERS / "bin" / "python"), "-c", _CONVERT, str(model), str(out), *shapes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return out


def _shapes(case: Case) -> list[str]:
    return [f"{name}={','.join(map(str, dims))}" for name, dims in case.shapes.items()]


def subject(case: Case, form: Form, engine: Engine) -> Subject | Missing:
    """What ``prepare`` left of a form."""
    note = _note(case, form, engine)
    if not note.is_file():
        return Missing(f"not made: {Path(sys.argv[0]).stem} --files only makes it")
    said = note.read_text(encoding="utf-8").splitlines()[1]
    if said.startswith("!"):
        return Missing(said[1:])
    plain = form is SOURCE and engine.name == "ONNX Runtime"
    return Subject(form.label, said, tuple(_shapes(case)) if plain else ())
