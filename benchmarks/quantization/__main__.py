"""Measure quantized artifacts next to those of the public quantizers.

    python -m benchmarks.quantization [CASE ...] [--count N] [--only LABEL ...]
                                       [--seconds S] [--resume] [--print]

Prints Markdown tables; what was measured is kept in ``build/quantization`` and used again
only if model, form and code are the same, or on ``--resume``. ``--print`` measures nothing.
A row whose images take longer than ``--seconds`` of processor time ends at a full hundred of
them, 300 or more; the table says at how many.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys

from benchmarks.peers import machine
from benchmarks.quantization.cases import CASES, Case, choose
from benchmarks.quantization.cells import Cell, read
from benchmarks.quantization.recipes import FORMS, SOURCE, Form, Ours
from benchmarks.quantization.run import LOCK, calibration_file, cell
from benchmarks.quantization.table import ahead, rows

__all__: list[str] = []

_LOG = logging.getLogger(__name__)
_PINNED = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "litert-quantizer")


def main() -> None:
    """Run what is missing, then print."""
    options = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    forms = [f for f in FORMS if f is SOURCE or _wanted(f, options.only)]
    print(f"{machine()}; one thread a run; {_versions()}, Python {platform.python_version()}")
    for case in choose(options.cases):
        count = options.count or case.tests
        found = (
            [(f, c) for f in forms if (c := read(case.name, f.label, count)) is not None]
            if options.print
            else _measured(case, forms, count, options)
        )
        if any(form is SOURCE for form, _ in found):
            _print(case, count, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy of quantized artifacts.")
    known = ", ".join(case.name for case in CASES)
    parser.add_argument("cases", nargs="*", help=f"beginnings of {known}")
    parser.add_argument("--count", type=int, help="test images; default: the published number")
    parser.add_argument("--only", action="append", help="a label, or its beginning")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="processor time after which a row ends"
    )
    parser.add_argument("--resume", action="store_true", help="keep cells of other code")
    parser.add_argument("--print", action="store_true", help="print what is kept")
    return parser.parse_args()


def _wanted(form: Form, only: list[str] | None) -> bool:
    """A whole name means that form; forms that explain a default have no other way in."""
    if only is None:
        return not (isinstance(form, Ours) and form.extra)
    names = {known.label for known in FORMS}
    begins = tuple(o for o in only if o not in names)
    extra = isinstance(form, Ours) and form.extra
    return form.label in only or (form.label.startswith(begins) and not extra)


def _measured(
    case: Case, forms: list[Form], count: int, options: argparse.Namespace
) -> list[tuple[Form, Cell]]:
    calibration_file(case)
    list(case.images("test", count))
    found = []
    for form in forms:
        one = cell(case, form, count, options.seconds, options.resume)
        _LOG.info(
            "%s, %s: %s", case.name, form.label, one.error or f"{len(one.answers)} images"
        )
        found.append((form, one))
    return found


def _print(case: Case, count: int, found: list[tuple[Form, Cell]]) -> None:
    labels = case.labels(count)
    print(f"\n### {case.name}\n")
    print("\n".join([*rows(found, labels), "", *ahead(found, labels)]))
    sys.stdout.flush()


def _versions() -> str:
    """Of the peers, from the lock: they live in an environment of their own."""
    pins = dict(line.split("==") for line in LOCK.read_text().splitlines() if "==" in line)
    return ", ".join(f"{name} {pins[name]}" for name in _PINNED)


if __name__ == "__main__":
    main()
