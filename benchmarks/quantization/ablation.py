"""What each step of ``bridge-quant`` is worth, at 8, 6 and 4 bits.

    python -m benchmarks.quantization.ablation [CASE ...] [--count N] [--minutes M] [--torch]

Quantizes in memory, with the same passes as a compile, and answers the test images with ONNX
Runtime. Cells are kept in ``build/quantization/ablation``: a run that stops goes on there.
``--torch`` measures the rows that need the extra ``[torch]`` (run it in .venv-torch); without
it they are shown if they are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.corpus.store import ROOT, write_atomic
from benchmarks.quantization.ablation_steps import (
    BITS,
    EXTRA,
    PLAIN,
    STEPS,
    Step,
    precision_of,
    target_for,
)
from benchmarks.quantization.cases import Case, choose
from benchmarks.quantization.cells import Cell, file_name
from benchmarks.quantization.table import accuracy, paired
from benchmarks.zoo_code import code_digest
from edgevit import registry
from edgevit.loading import load
from edgevit.pipeline import Context, Pipeline, split_specs

__all__: list[str] = []

Array = np.ndarray[Any, Any]
KEPT = ROOT / "build" / "quantization" / "ablation"
CASES = (
    "fashion_hybrid",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientformerv2_s0",
    "ppocrv4_rec",
    "ppocrv6_rec_small",
)
CALIBRATION = 32  # as Q-HyViT
SOURCE = Step("fp32", "", (32,))


@dataclass(frozen=True, eq=False)
class _Samples:
    """Calibration samples from memory."""

    samples: Sequence[dict[str, Array]]
    name: str = "training images"
    synthetic: bool = False

    def digest(self) -> str:
        return "in memory"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self.samples)


class _Subject:
    """A case with its canonical model and calibration samples, made when first needed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._made: tuple[ir.Model, _Samples] | None = None

    def make(self) -> tuple[ir.Model, _Samples]:
        if self._made is None:
            model = load(self.case.find(), dict(self.case.shapes)).model
            registry.load_attribute("edgevit.passes.order:canonicalize")(model)
            name = str(model.graph.inputs[0].name)
            images = islice(self.case.images("train", 64), CALIBRATION)
            found = [{name: image} for image in images]
            self._made = model, _Samples(found)
        return self._made


def _quantized(subject: _Subject, step: Step, bits: int) -> bytes:
    model, samples = subject.make()
    if step.passes:
        model = model.clone()
        find = lambda name: registry.load("passes", name)  # noqa: E731 - a lookup
        chosen = Pipeline.parse(split_specs(step.passes), find)
        chosen.run(model, (), Context(samples, target_for(bits), precision_of(bits)))
    return bytes(ir.to_proto(model).SerializeToString())


def _answers(content: bytes, case: Case, count: int) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    name, answer = session.get_inputs()[0].name, case.answer(case.find())
    return [answer(session.run(None, {name: x})[0]) for x in case.images("test", count)]


def _path(case: Case, step: Step, bits: int, count: int) -> Path:
    # The spec is in the name: a step that changes is another cell.
    label = f"{step.label}-{step.passes or 'source'}-{bits}"
    return KEPT / f"{file_name(case.name, label)}-{count}.json"


def _cell(subject: _Subject, step: Step, bits: int, count: int, run: bool) -> Cell | None:
    path = _path(subject.case, step, bits, count)
    if path.is_file():
        data = json.loads(path.read_text(encoding="utf-8"))
        return Cell(**{**data, "answers": tuple(data["answers"])})
    if not run:
        return None
    start = time.perf_counter()
    content = _quantized(subject, step, bits)
    middle = time.perf_counter()
    answers = tuple(_answers(content, subject.case, count))
    end = time.perf_counter()
    cell = Cell(
        subject.case.name, step.label, code_digest(), answers=answers, bytes=len(content),
        quantize_s=middle - start, run_s=end - middle,
    )  # fmt: skip
    write_atomic(path, json.dumps(vars(cell), ensure_ascii=False).encode())
    print(f"{subject.case.name} {bits} {step.label}: {end - start:.0f} s", flush=True)
    return cell


def _work(case: Case, torch: bool) -> list[tuple[Step, int]]:
    """Cells of a case, the widest first."""
    if torch:
        return [(step, bits) for step in EXTRA if step.torch for bits in step.bits]
    plain = [*STEPS, *(step for step in EXTRA if not step.torch)]
    found = [(SOURCE, 32)]
    found += [(step, bits) for bits in BITS for step in plain if bits in step.bits]
    if case.name == "mobilevit_xxs":
        found += [(step, 8) for step in PLAIN]
    return found


def _count(case: Case, asked: int | None) -> int:
    if case.name.startswith("fashion"):
        return asked or 2000  # small: an image takes less than a millisecond
    return asked or (300 if case.name.startswith("ppocr") else 500)


def _table(case: Case, count: int, bits: int, steps: Sequence[Step]) -> list[str]:
    """Rows: accuracy, and the paired differences to fp32 and to the row before."""
    subject, labels = _Subject(case), case.labels(count)
    base = _cell(subject, SOURCE, 32, count, run=False)
    lines, before = [], None
    for step in steps:
        cell = _cell(subject, step, bits, count, run=False)
        if cell is None or base is None:
            continue
        change, half = paired(cell, base, labels)
        gain = ""
        if before is not None:
            more, its = paired(cell, before, labels)
            gain = f"{more:+.2f} ± {its:.2f}"
        lines.append(
            f"| {step.label} | {accuracy(cell, labels):.4f} | {change:+.2f} ± {half:.2f} "
            f"| {gain} |"
        )
        before = cell if step in STEPS else before
    return lines


def _print(cases: Sequence[Case], asked: int | None) -> None:
    head = ["| step | accuracy | to fp32, points | to the row before |",
            "|---|---|---|---|"]  # fmt: skip
    for case in cases:
        count = _count(case, asked)
        base = _cell(_Subject(case), SOURCE, 32, count, run=False)
        if base is None:
            continue
        shown = accuracy(base, case.labels(count))
        print(f"\n### {case.name}, n = {count}, fp32 {shown:.4f}")
        for bits in BITS:
            rows = _table(case, count, bits, STEPS)
            last = [s for s in (STEPS[4],) if rows]
            extra = _table(case, count, bits, [*last, *EXTRA])[1:]
            if rows:
                print("\n".join([f"\nW{bits}A{bits}\n", *head, *rows, *extra]))
        plain = _table(case, count, 8, PLAIN) if case.name == "mobilevit_xxs" else []
        if plain:
            print("\n".join(["\nPlain min-max W8A8\n", *head, *plain]))


def main() -> None:
    """Measure what is missing, then print."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description="What each step of bridge-quant is worth.")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--count", type=int, help="test images of every case")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no cell after this")
    parser.add_argument("--torch", action="store_true", help="the rows that need torch")
    options = parser.parse_args()
    found = {case.name: case for case in choose(options.cases or CASES)}
    cases = [found[name] for name in CASES if name in found]
    end = time.monotonic() + 60 * options.minutes
    for case in cases:
        subject, count = _Subject(case), _count(case, options.count)
        for step, bits in _work(case, options.torch):
            _cell(subject, step, bits, count, run=time.monotonic() < end)
    _print(cases, options.count)


if __name__ == "__main__":
    main()
