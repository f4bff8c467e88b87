"""Measure networks of shifts next to integers rounded by the same method.

    python -m benchmarks.shiftadd [CASE ...] [--count N] [--only LABEL ...] [--seconds S]
                                   [--seed N] [--samples N] [--device] [--smooth]
                                   [--development] [--print] [--resume]

Prints Markdown tables. Test images are those of ``benchmarks.quantization``; with
``--development`` images that no test uses, for choices. Calibration is 64 samples unless
``--samples`` says more. What was measured is kept in ``build/quantization/cells`` and used
again if model, form and code are the same, or on ``--resume``. A row ends at a full hundred of
images (300 at least) after ``--seconds`` of processor time; the source answers all of them.
Forms with gradients (``--only g``) are measured in an environment with torch; in another one
they are shown if they were.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.corpus.store import sha256
from benchmarks.peers import machine
from benchmarks.quantization.cases import CALIBRATION, Case, choose
from benchmarks.quantization.cells import Cell, read, write
from benchmarks.quantization.development import development
from benchmarks.quantization.run import calibration_file
from benchmarks.quantization.table import accuracy, paired
from benchmarks.shiftadd.forms import FORMS, SOURCE, Form
from benchmarks.shiftadd.subject import Subject, answered
from benchmarks.zoo_code import code_digest
from edgevit.torchgraph.interpret import probe

__all__: list[str] = []

_LOG = logging.getLogger(__name__)
COUNTS = {"fashion_hybrid": 10000, "fashion_vit": 10000, "ppocrv4_rec": 5000}
COUNTS |= {"ppocrv6_rec_small": 5000}
SUBJECTS = (
    "fashion_hybrid",
    "fashion_vit",
    "ppocrv4_rec",
    "ppocrv6_rec_small",
    "vit_s_probe",
    "pvt_v2_b0",
    "deit_tiny_patch16_224",
    "mobilevit_xxs",
)
_HEAD = (
    "| form | images | accuracy | to fp32, points | terms | packed codes, MB | ONNX file, MB "
    "| plan, CPU s | CPU ms a run |"
)


def main() -> None:
    """Measure what is missing, then print."""
    options = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"{machine()}; ONNX Runtime {version('onnxruntime')}, one thread, Python "
          f"{platform.python_version()}")  # fmt: skip
    for case in choose(options.cases or SUBJECTS):
        count = options.count or COUNTS.get(case.name, 2000)
        forms = [f for f in FORMS if f is SOURCE or _wanted(f, options.only)]
        found = list(_cells(case, forms, count, options))
        labels = _labels(case, count, options.development)
        print("\n".join(_table(case, found, labels, options.development)), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy of shift weights.")
    parser.add_argument("cases", nargs="*", help=f"beginnings of {', '.join(SUBJECTS)}")
    parser.add_argument("--count", type=int, help="images; default: the published number")
    parser.add_argument("--only", action="append", help="label of a form")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of a row")
    parser.add_argument("--seed", type=int, default=0, help="of the rows that are looked at")
    parser.add_argument("--samples", type=int, default=CALIBRATION, help="for calibration")
    parser.add_argument(
        "--device", action="store_true", help="float inputs where the device file says so"
    )
    parser.add_argument(
        "--smooth", action="store_true", help="channels smoothed first, as the recipes do"
    )
    parser.add_argument("--development", action="store_true", help="images for choices")
    parser.add_argument("--resume", action="store_true", help="keep cells of other code")
    parser.add_argument("--print", action="store_true", help="print what is kept")
    options = parser.parse_args()
    if options.smooth and not options.device:
        parser.error("--smooth judges by the device's rules: give --device too")
    return options


def _wanted(form: Form, only: Sequence[str] | None) -> bool:
    return only is None or form.label in only or form.part in only


def _cells(
    case: Case, forms: Sequence[Form], count: int, options: argparse.Namespace
) -> Iterator[tuple[Form, Cell]]:
    subject: Subject | None = None
    for form in forms:
        label = f"shiftadd{'-dev' if options.development else ''} {form.label}"
        label += f" seed {options.seed}" if options.seed and form.spec else ""
        more = options.samples != CALIBRATION and form is not SOURCE
        label += f" samples {options.samples}" if more else ""
        label += " smooth" if options.smooth and form.activations else ""
        label += " device" if options.device and form.activations else ""
        kept, code = read(case.name, label, count), _code(case, form)
        if kept is None or not (options.print or options.resume or kept.code == code):
            if options.print or (options.only is None and form.part == "g" and not probe().ok):
                continue
            subject = subject or _subject(case, options)
            kept = _measured(subject, form, label, code, count, options)
            write(kept, count)
            _LOG.info("%s, %s: %d images", case.name, form.label, len(kept.answers))
        yield form, kept


def _subject(case: Case, options: argparse.Namespace) -> Subject:
    samples = calibration_file(case, options.samples)
    return Subject(case, options.seed, not options.device, samples, options.smooth)


def _code(case: Case, form: Form) -> str:
    parts = [repr(form), sha256(case.find()), version("onnxruntime")]
    parts += [] if form is SOURCE else [code_digest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _measured(
    subject: Subject,
    form: Form,
    label: str,
    code: str,
    count: int,
    options: argparse.Namespace,
) -> Cell:
    case = subject.case
    made = subject.made(form)
    images: Iterator[Any]
    images = (
        iter(development(case, count)[0])
        if options.development
        else case.images("test", count)
    )
    longest = math.inf if form is SOURCE else options.seconds
    answers, spent = answered(case, made.content, images, longest)
    return Cell(
        case.name, label, code, answers=tuple(answers), bytes=len(made.content),
        quantize_cpu_s=made.seconds, run_s=spent, terms=made.terms, packed=made.packed,
    )  # fmt: skip


def _labels(case: Case, count: int, dev: bool) -> Sequence[Any]:
    return development(case, count)[1] if dev else case.labels(count)


def _table(
    case: Case, found: Sequence[tuple[Form, Cell]], labels: Sequence[Any], dev: bool
) -> list[str]:
    base = next(cell for form, cell in found if form is SOURCE)
    lines = [f"\n### {case.name}{', development images' if dev else ''}\n", _HEAD]
    lines.append("|" + "---|" * 9)
    for form, cell in found:
        change, half = paired(cell, base, labels)
        count = len(cell.answers)
        difference = "" if cell is base else f"{change:+.2f} ± {half:.2f}"
        shifts = f"{cell.terms:.2f} | {cell.packed / 1e6:.3f}" if cell.terms else " | "
        rate = f"{accuracy(cell, labels):.4f}"
        lines.append(
            f"| {form.label} | {count} | {rate} | {difference} | {shifts} "
            f"| {cell.bytes / 1e6:.2f} | {cell.quantize_cpu_s:.0f} "
            f"| {1e3 * cell.run_s / count:.2f} |"
        )
    return [*lines, *_closed(found, labels), *_spaces(found, labels)]


def _spaces(found: Sequence[tuple[Form, Cell]], labels: Sequence[Any]) -> list[str]:
    """Of texts: how many answers are wrong, and how many of them by nothing but spaces."""
    if not isinstance(labels[0], str):
        return []
    lines = []
    for form, cell in found:
        wrong = [(a, b) for a, b in zip(cell.answers, labels, strict=False) if a != b]
        bare = sum(a.replace(" ", "") == b.replace(" ", "") for a, b in wrong)
        lines.append(f"\n{form.label}: {len(wrong)} of {len(cell.answers)} texts are wrong, "
                     f"{bare} of them by spaces alone")  # fmt: skip
    return lines


def _closed(found: Sequence[tuple[Form, Cell]], labels: Sequence[Any]) -> list[str]:
    """How much of what nearest codes lose compensation brings back, where both are there."""
    cells = {form.label: cell for form, cell in found}
    lines = []
    for label in ("2 terms", "1 term, conv int8"):
        naive, ours = cells.get(f"nearest {label}"), cells.get(label)
        if naive is None or ours is None:
            continue
        count = min(len(c.answers) for c in (naive, ours))
        rates = [
            float(np.mean([a == b for a, b in zip(c.answers[:count], labels, strict=False)]))
            for c in (naive, ours, cells["fp32"])
        ]
        gap = rates[2] - rates[0]
        if gap > 0.01:
            share = (rates[1] - rates[0]) / gap
            lines.append(f"\n{label}: {share:.0%} of the {100 * gap:.1f} points that nearest "
                         f"codes lose are back ({count} images)")  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
