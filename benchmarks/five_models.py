"""Five models on three backends: parity, coverage, size, and what they read and recognize.

    python -m benchmarks.five_models [--models NAME ...] [--json FILE] [--slice]

Exits 1 when an acceptance figure is missed, and lists which. ``--slice`` measures the
fixtures on the 500 committed images where the official 10,000 cannot be had; without it,
that is a miss too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import ROOT, CorpusUnavailableError
from benchmarks.five.canonical import Canonical, canonicalize_case, misses
from benchmarks.five.cases import Case, Setting, choose, columns
from benchmarks.five.cells import Cell, compile_cell
from benchmarks.five.tasks import TaskFigure, measure
from edgevit.report import bytes_text, table

__all__ = ["canonical_table", "cell_table", "main"]

FOLDER = ROOT / "build" / "five"


def canonical_table(found: Sequence[Canonical]) -> str:
    """One row a model: what canonicalization makes of it."""
    head = (
        "model",
        "nodes",
        "canonical",
        "Attention",
        "LayerNorm",
        "Gelu",
        "Transpose",
        "structure",
        "whole",
    )
    rows = [
        (
            c.name,
            c.before,
            c.after,
            *c.blocks.values(),
            c.transposes,
            c.structure[:8],
            c.digest[:8],
        )
        for c in found
    ]
    return table(head, rows)


def cell_table(cells: Sequence[Cell]) -> str:
    """One row a model and target."""
    head = ("model", "target", "coverage", "transposes", "size", "s", "parity", "gate", "")
    return table(head, [_row(c) for c in cells])


def _row(c: Cell) -> tuple[str, ...]:
    value = "exact" if c.value is None else f"{c.value:.3g}"
    sign = ">=" if c.metric == "psnr_db" else "<="
    return (
        c.model,
        c.setting,
        f"{100 * c.coverage:.0f} %",
        str(c.transposes),
        bytes_text(c.size),
        f"{c.seconds:.1f}",
        f"{c.metric} {value}" if c.metric else "-",
        f"{sign} {c.limit:g}" if c.metric else "-",
        "FAIL" if c.error else "pass",
    )


def _canonicalize(cases: Sequence[Case]) -> tuple[list[Canonical], list[str]]:
    found = {}
    for case in cases:
        found[case.name] = canonicalize_case(case)
    print(canonical_table(list(found.values())), flush=True)
    return list(found.values()), misses(cases, found)


def _compile(cases: Sequence[Case], settings: Sequence[Setting]) -> list[Cell]:
    cells = []
    for case in cases:
        for setting in settings:
            _say(f"{case.name} on {setting.label}: compiling")
            bundle = _bundle(case, setting)
            shutil.rmtree(bundle, ignore_errors=True)  # an old one must not be measured
            cells.append(compile_cell(case, setting, bundle))
    print("\n" + cell_table(cells), flush=True)
    for cell in cells:
        if cell.drop:
            print(f"{cell.model} on {cell.setting}: accumulated error {cell.drop}")
    return cells


def _bundle(case: Case, setting: Setting) -> Path:
    return FOLDER / f"{case.name}-{setting.label.replace(' ', '-')}.edgevit"


def _tasks(
    cases: Sequence[Case], settings: Sequence[Setting], use_slice: bool, jobs: int
) -> tuple[dict[str, TaskFigure], list[str]]:
    """Measure every task, ``jobs`` at a time; each runs in a process of its own."""
    wanted = [(case, setting) for case in cases if case.task for setting in settings]
    figures, lines = {}, []
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(_task, c, s, use_slice) for c, s in wanted]
        for (case, setting), future in zip(wanted, started, strict=True):
            name, found = f"{case.name} on {setting.label}: {case.task}", future.result()
            if isinstance(found, str):
                lines.append(f"{name}: {found}")
                continue
            figures[name] = found
            print(f"{name}: {found.text()}", flush=True)
            print("".join(f"  {line}\n" for line in found.differ), end="")
            if not found.passed:
                lines.append(f"{name}: {found.text()}")
    return figures, lines


def _task(case: Case, setting: Setting, use_slice: bool) -> TaskFigure | str:
    bundle = _bundle(case, setting)
    if not bundle.is_dir():
        return "no bundle, not measured"
    try:
        return measure(case, setting, bundle, use_slice)
    except (CorpusUnavailableError, RuntimeError) as e:
        return str(e)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _write(path: str, found: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure five models on three backends.")
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="NAME", help="name or start"
    )
    parser.add_argument("--targets", nargs="*", default=[], metavar="NAME", help="e.g. litert")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--slice", action="store_true", help="500 committed garment images")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="tasks at a time")
    return parser.parse_args()


def main() -> int:
    """Measure, print, judge."""
    options = _options()
    try:
        cases = choose(options.models)
    except ValueError as e:
        raise SystemExit(str(e)) from e
    settings = columns(options.targets)
    FOLDER.mkdir(parents=True, exist_ok=True)
    canonical, missed = _canonicalize(cases)
    cells = _compile(cases, settings)
    missed += [line for cell in cells for line in cell.misses()]
    print()
    figures, lines = _tasks(cases, settings, options.slice, options.jobs)
    missed += lines
    if options.json:
        found: dict[str, Any] = {"canonical": [asdict(c) for c in canonical]}
        found["cells"] = [asdict(c) for c in cells]
        found["tasks"] = {name: asdict(f) for name, f in figures.items()}
        _write(options.json, {**found, "missed": missed})
    print("".join(f"\nMISSED {line}" for line in missed))
    print(f"{'FAIL' if missed else 'PASS'}: {len(cells)} artifacts, {len(missed)} misses")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
