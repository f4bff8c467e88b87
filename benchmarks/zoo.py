"""The zoo: every transformer family on every backend, compiled and verified.

    python -m benchmarks.zoo [--models NAME ...] [--backends NAME ...] [--json FILE]
                             [--page FILE] [--markdown FILE] [--trained FOLDER]
                             [--redo failed|all] [--resume] [--show] [--once]

Each cell runs in a process of its own under a time limit and is kept as a line of
``build/zoo/cells.jsonl``; a second run measures only what is not there of the same model file
and the same code, with ``--resume`` of any code, with ``--show`` nothing at all. Exits 1 if a
cell failed or is missing, or a model cannot be had.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.corpus.store import CACHE, ROOT, CorpusUnavailableError, sha256
from benchmarks.five.cases import Setting, columns
from benchmarks.selection import select
from benchmarks.zoo_cases import ZooCase, zoo_cases
from benchmarks.zoo_cells import (
    Record,
    Store,
    measure_accuracy,
    measure_compile,
    measure_form,
)
from benchmarks.zoo_code import code_digest
from benchmarks.zoo_page import HEAD, markdown, page, rows
from edgevit.report import table

__all__ = ["main"]

FOLDER = ROOT / "build" / "zoo"


def _is_current(case: ZooCase, record: Record | None, options: argparse.Namespace) -> bool:
    """Whether a kept record speaks of what is at hand and need not be measured again."""
    if record is None or record.skipped or options.redo == "all":
        return False
    if options.redo == "failed" and record.error:
        return False
    if not options.resume and record.code != code_digest():
        return False
    if record.figures.get("samples", options.samples) != options.samples:
        return False
    try:
        return record.source == sha256(case.find())
    except CorpusUnavailableError:
        return False


def _keep(store: Store, record: Record) -> None:
    store.add(record)
    verdict = "skipped" if record.skipped else "FAIL" if record.error else "pass"
    reason = record.error.splitlines()[0] if record.error else ""
    sys.stderr.write(f"{record.model} {record.what}: {verdict} {reason}".rstrip() + "\n")


def _run(
    store: Store, case: ZooCase, settings: Sequence[Setting], options: argparse.Namespace
) -> None:
    """Measure the cells of a model that are due."""
    kept = store.read()

    def due(what: str) -> bool:
        return not _is_current(case, kept.get((case.name, what)), options)

    if due("form"):
        _keep(store, measure_form(case, options.timeout))
    for s in (s for s in settings if case.takes(s)):
        bundle = FOLDER / f"{case.name}-{s.label.replace(' ', '-')}.edgevit"
        judged = case.trained and bool(options.samples) and due(f"accuracy {s.label}")
        if due(f"compile {s.label}") or (judged and not bundle.is_dir()):
            _keep(store, measure_compile(case, s, bundle, options.timeout))
        if judged:
            count, limit = options.samples, options.task_timeout
            _keep(store, measure_accuracy(case, s, bundle, count, limit))
        if not case.trained:
            shutil.rmtree(bundle, ignore_errors=True)  # the figures are kept, 5 GB are not


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compile and verify the zoo.")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME", help="or its start")
    parser.add_argument(
        "--backends", nargs="*", default=[], metavar="NAME", help="e.g. litert"
    )
    parser.add_argument("--trained", type=Path, default=CACHE / "trained")
    parser.add_argument("--samples", type=int, default=1000, help="garments; 0 for none")
    parser.add_argument("--once", action="store_true", help="one exporter's file a model")
    parser.add_argument("--timeout", type=float, default=900, help="seconds a compile")
    parser.add_argument("--task-timeout", type=float, default=7200, help="seconds an accuracy")
    parser.add_argument("--redo", choices=("none", "failed", "all"), default="none")
    parser.add_argument("--resume", action="store_true", help="keep what other code measured")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--markdown", metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--json", metavar="FILE", help="also write all records there")
    parser.add_argument("--page", metavar="FILE", help="also write the table as HTML")
    return parser.parse_args()


def main() -> int:
    """Measure what is missing, print the table, judge."""
    options = _options()
    try:
        cases = select(zoo_cases(options.trained, options.once), options.models)
    except ValueError as e:
        raise SystemExit(str(e)) from e
    settings = columns(options.backends)
    store, start = Store(FOLDER / "cells.jsonl"), time.perf_counter()
    for case in () if options.show else cases:
        _run(store, case, settings, options)
    found = store.read()
    cells = [cell for case in cases for cell in _cells(case, settings, options.samples)]
    chosen = [found[cell] for cell in cells if cell in found]
    failures = [f"{r.model} {r.what}: {r.error}" for r in chosen if r.error]
    missing = len(cells) - len(chosen)
    made = rows(found, cells)
    _write(options, chosen, made, failures)
    print(table(HEAD, made))
    print("".join(f"\nMISSED {line}" for line in failures))
    other = sum(r.code != code_digest() for r in chosen)
    print(
        f"{time.perf_counter() - start:.0f} s; {len(chosen)} cells, {other} of other code, "
        f"{missing} not measured"
    )
    bad = bool(failures or missing)
    print(f"{'FAIL' if bad else 'PASS'}: {len(made)} artifacts, {len(failures)} misses")
    return 1 if bad else 0


def _cells(case: ZooCase, settings: Sequence[Setting], samples: int) -> list[tuple[str, str]]:
    """What is asked of a model: the keys of its records."""
    labels = [s.label for s in settings if case.takes(s)]
    made = ["form", *(f"compile {label}" for label in labels)]
    if case.trained and samples:
        made += [f"accuracy {label}" for label in labels]
    return [(case.name, what) for what in made]


def _write(
    options: argparse.Namespace,
    chosen: Sequence[Record],
    made: Sequence[tuple[str, ...]],
    failures: Sequence[str],
) -> None:
    written = {
        options.json: json.dumps([asdict(r) for r in chosen], indent=2) + "\n",
        options.page: page(made, failures),
        options.markdown: markdown(made, failures),
    }
    for file in filter(None, written):
        Path(file).write_text(written[file], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
