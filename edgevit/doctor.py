"""What this machine can lower and run."""

from __future__ import annotations

from typing import Any

from edgevit import registry
from edgevit.errors import Availability

__all__ = ["diagnose"]

# Which engine runs what a backend writes; a target's device file decides for a bundle.
_ENGINE_OF = {"onnx": "ort"}


def _probe(kind: registry.Kind, name: str) -> Availability:
    try:
        found: Availability = registry.load(kind, name)().probe()
    except ImportError as e:
        missing = e.name or str(e)
        return Availability(name, False, "", f"{missing} is not installed", "compile")
    return found


def diagnose() -> list[dict[str, Any]]:
    """One row a backend: ``name, can_lower, can_run, version, reason, extra``."""
    rows = []
    engines = registry.names("engines")
    for name in registry.names("backends"):
        lower = _probe("backends", name)
        engine = _ENGINE_OF.get(name, name)
        run = (
            _probe("engines", engine)
            if engine in engines
            else Availability(engine, False, "", "no engine of this name", "")
        )
        reasons = dict.fromkeys(r for r in (lower.reason, run.reason) if r)
        rows.append(
            {
                "name": name,
                "can_lower": lower.ok,
                "can_run": run.ok,
                "version": run.version or lower.version,
                "reason": "; ".join(reasons),
                "extra": lower.extra if not lower.ok else run.extra if not run.ok else "",
            }
        )
    return rows
