"""What was measured to choose code by: read, made where asked, kept for the next time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit import partition as partitions
from edgevit import strictjson
from edgevit.backend import LowerOptions, Tuning
from edgevit.errors import InputError, UsageError
from edgevit.plan import Plan
from edgevit.progress import Progress

__all__ = ["default_path", "tuning_of"]


def default_path(p: Plan) -> Path:
    """Where measurements are kept without ``--tuning``: beside the bundle."""
    machine = p.target.options.get("mcpu", p.target.name)
    return p.output.parent / f"tuning-{machine}.json"


def tuning_of(
    p: Plan,
    variants: Sequence[Sequence[partitions.Partition]],
    trials: int | None,
    file: Path | None,
    steps: Progress,
) -> Mapping[str, Any] | None:
    """The measurements to lower with; ``None`` if nobody asked for any.

    Args:
        p: The plan.
        variants: Parts of each input shape.
        trials: Measure up to so many choices of what the file does not hold.
        file: Where measurements are; written if something was measured.
        steps: Told of the step.

    Raises:
        UsageError: The backend has nothing to choose, or ``trials`` is below 1.
        InputError: The file cannot be read.
    """
    if trials is None and file is None:
        return None
    backend = partitions.backend_of(p.target.backend)
    if not isinstance(backend, Tuning):
        raise UsageError(
            f"the backend {p.target.backend} has nothing to tune", hint="leave --tune out"
        )
    if trials is None:
        return None if file is None else _read(file)
    if trials < 1:
        raise UsageError(f"--tune: expected at least 1, found {trials}")
    path = file or default_path(p)
    known = _read(path) if path.exists() else None
    with steps.step("tune") as tick:
        for parts in variants:
            for part in parts:
                if part.backend == p.target.backend:
                    options = LowerOptions(p.precision, "source", "tuned", known)
                    known = backend.tune(part.model, p.target, options, trials, tick)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return known


def _read(path: Path) -> dict[str, Any]:
    try:
        found = strictjson.parse(path.read_bytes(), str(path))
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror}") from e
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a tuning file")
    return found
