"""Which precisions pass verification, model by model.

    python -m benchmarks.quantization.verified [CASE ...] [--only "TARGET PRECISION" ...]

Compiles as a user does, verification included (the accuracy table compiles without, so that a
refused artifact still has its row), in every precision of every target that runs here, and
prints a Markdown table: ``passes``, or what refused. A gate on the whole network may refuse a
low precision by right; a node past its tolerance is a fault of ours.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.corpus.store import ROOT
from benchmarks.peers import machine
from benchmarks.quantization.cases import CASES, Case, choose
from benchmarks.quantization.cells import BUILD, file_name
from benchmarks.quantization.run import (
    TIMEOUT_S,
    calibration_file,
    compile_command,
    message_of,
)
from benchmarks.quantization.timing import timed
from edgevit.target import load_target

__all__: list[str] = []

TARGETS = (
    "onnx",
    "onnx:cpu=vnni",
    "linux-x86",
    "linux-x86:engine=openvino,cpu=vnni",
    "iphone-npu",
    "iphone-npu:os=18",
)
# Packages of ``make openvino-env``, read besides our own environment's.
_OPENVINO = sorted(ROOT.glob(".venv-openvino/lib/python3.*/site-packages"))


def main() -> None:
    """Compile every case in every form, and print."""
    options = _arguments()
    begins = tuple(options.only or ("",))
    every = [(t, p) for t in TARGETS for p in load_target(t).precisions]
    forms = [form for form in every if " ".join(form).startswith(begins)]
    if not forms:
        sys.exit(f"nothing begins with {' or '.join(begins)}")
    cases = choose(options.cases)
    path = [str(ROOT), *map(str, _OPENVINO)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    print(f"{machine()}\n\n| model | target | precision | verification |\n|---|---|---|---|")
    refused = [_row(case, *form) for case in cases for form in forms]
    sys.exit(1 if any(refused) else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which precisions pass verification.")
    known = ", ".join(case.name for case in CASES)
    parser.add_argument("cases", nargs="*", help=f"beginnings of {known}")
    parser.add_argument(
        "--only", action="append", help="beginning of a target and a precision"
    )
    return parser.parse_args()


def _row(case: Case, target: str, precision: str) -> bool:
    """Print one row; whether it is no bundle."""
    head = f"| {case.name} | {target} | {precision} |"
    if "openvino" in target and not _OPENVINO:
        print(f"{head} skipped: needs make openvino-env |", flush=True)
        return False
    name = file_name(case.name, f"{target} {precision} verified")
    bundle = BUILD / "bundles" / f"{name}.edgevit"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = compile_command(case, target, precision, bundle, verify=True)
    command += ["--calib", str(calibration_file(case))]
    try:
        done = timed(command, BUILD / "streams" / name, TIMEOUT_S)
    except TimeoutError as e:
        print(f"{head} {e} |", flush=True)
        return True
    refused = done.status != 0
    said = message_of(done.output, done.errors, done.status) if refused else "passes"
    print(f"{head} {said} |", flush=True)
    return refused


if __name__ == "__main__":
    main()
