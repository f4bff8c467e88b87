"""The command line, the table and the JSON that every device benchmark shares."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.corpus.store import CorpusUnavailableError
from benchmarks.device.cases import ENGINES, Engine, models, runs
from benchmarks.device.measure import Device, Row, measure
from edgevit.report import table

__all__ = ["SKIPPED", "run", "text_of"]

SKIPPED = 77  # the exit code of a skip in automake's test drivers: neither passed nor failed


def text_of(rows: Sequence[Row]) -> str:
    """One row a model and engine."""
    head = (
        "model",
        "engine",
        "on",
        "parity",
        "limit",
        "self-check",
        "verify s",
        "run s",
        "process s",
        "",
    )
    return table(head, [_cells(r) for r in rows])


def _cells(r: Row) -> tuple[str, ...]:
    return (
        r.model,
        f"{r.engine} ({r.package})",
        r.machine,
        f"{r.metric} {_figure(r.value, bool(r.faults))}",
        f"{r.limit:g}",
        _figure(r.selfcheck, bool(r.faults)),
        f"{r.verify_s:.1f}",
        f"{r.run_s:.1f}",
        f"{r.total_s:.1f}",
        "FAIL" if r.faults else "pass",
    )


def _figure(value: float | None, failed: bool) -> str:
    if value is None:
        return "-" if failed else "exact"
    return f"{value:.3g}"


def run(what: str, prepare: Callable[[], Device], engines: Sequence[str]) -> int:
    """Parse the options, measure, print the table.

    Args:
        what: First line of the help.
        prepare: Makes the device, once.
        engines: Labels of the engines that the device has.

    Returns:
        0 if everything passed, 1 if not, 77 if the device or a model cannot be had here.
    """
    options = _options(what, engines)
    rows = []
    try:
        cases = models(options.models)
        device = prepare()
        for case in cases:
            for engine in (e for e in _chosen(options.engines) if runs(case, e)):
                sys.stderr.write(f"{case.name} on {engine.label}\n")
                rows.append(measure(case, engine, device))
    except CorpusUnavailableError as e:
        print(e)
        return SKIPPED
    except (RuntimeError, ValueError) as e:
        raise SystemExit(f"error: {e}") from e
    print(text_of(rows))
    if options.json:
        found = json.dumps({"rows": [asdict(r) for r in rows]}, indent=2) + "\n"
        Path(options.json).write_text(found, encoding="utf-8")
    faults = [f"{r.model} on {r.engine}: {line}" for r in rows for line in r.faults]
    print("".join(f"\nMISSED {line}" for line in faults))
    print(f"{'FAIL' if faults else 'PASS'}: {len(rows)} bundles, {len(faults)} faults")
    return 1 if faults else 0


def _options(what: str, engines: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=what, epilog="Exit code 77: skipped, which is not passed."
    )
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME", help="or its start")
    parser.add_argument("--engines", nargs="+", choices=engines, default=list(engines))
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def _chosen(labels: Sequence[str]) -> tuple[Engine, ...]:
    return tuple(engine for engine in ENGINES if engine.label in labels)
