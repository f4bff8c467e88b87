"""Cells: what was measured of one form of one model, and where it is kept."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import ROOT, write_atomic

__all__ = ["BUILD", "Cell", "file_name", "read", "write"]

BUILD = ROOT / "build" / "quantization"


@dataclass(frozen=True)
class Cell:
    """What was measured of one artifact.

    Attributes:
        case: Name of the model.
        label: Label of the form.
        code: Digest of everything that determined the answers: see ``run.code_of``.
        error: Why there is nothing else; empty if there is.
        answers: One for each test image, from the first on.
        bytes: Size of the artifact's files.
        quantize_s: Seconds of quantizing, the whole process; ours without verification.
        quantize_cpu_s: Processor seconds of that.
        peak_mb: Peak memory of that, children included.
        run_s: Processor seconds of all runs, one thread.
        terms: Mean shift terms of a weight, where weights are shifts.
        packed: Bytes of their packed codes.
    """

    case: str
    label: str
    code: str = ""
    error: str = ""
    answers: tuple[Any, ...] = ()
    bytes: int = 0
    quantize_s: float = 0.0
    quantize_cpu_s: float = 0.0
    peak_mb: float = 0.0
    run_s: float = 0.0
    terms: float = 0.0
    packed: int = 0


def file_name(case: str, label: str) -> str:
    """A name for the files of a cell, safe in paths and command lines."""
    return f"{case}-{re.sub(r'[^A-Za-z0-9=]+', '-', label)}"


def read(case: str, label: str, count: int) -> Cell | None:
    """The cell that is kept, if there is one."""
    path = _path(case, label, count)
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return Cell(**{**data, "answers": tuple(data["answers"])})


def write(cell: Cell, count: int) -> None:
    """Keep a cell; it is there whole or not at all."""
    content = json.dumps(vars(cell), ensure_ascii=False).encode()
    write_atomic(_path(cell.case, cell.label, count), content)


def _path(case: str, label: str, count: int) -> Path:
    return BUILD / "cells" / f"{file_name(case, label)}-{count}.json"
