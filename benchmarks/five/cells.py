"""Compile one model for one target through the command line, and read what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.edgevit_json import call
from benchmarks.five.artifact import transposes
from benchmarks.five.cases import Case, Setting

__all__ = ["Cell", "compile_cell"]

# What native code may take beside its weights: their padding, and the code.
PACKING, CODE_BYTES = 1.05, 4e6
_WIDTH = {"fp32": 4, "fp16": 2, "w8a8": 1}


@dataclass(frozen=True)
class Cell:
    """One model on one target.

    Attributes:
        model: Case name.
        setting: Label of the target and precision.
        error: Why it failed; empty if every gate was kept.
        coverage: Share of nodes that the artifact runs, 0..1.
        transposes: Executed by the artifact.
        size: Bytes of the bundle.
        seconds: Of the compile, verification included.
        metric: Name of the whole-network gate.
        value: Measured; ``None`` if the outputs are equal.
        limit: Of the gate.
        worst: Replayed node nearest to its derived tolerance.
        drop: For a PSNR gate: where accumulated error is lowest, or first below the gate.
        stored: Bytes of native code and its parameters; 0 where the artifact is no code.
        weights: Bytes of the model's weights at this precision.
    """

    model: str
    setting: str
    error: str
    coverage: float
    transposes: int
    size: int
    seconds: float
    metric: str
    value: float | None
    limit: float
    worst: str
    drop: str
    stored: int = 0
    weights: int = 0

    def misses(self) -> list[str]:
        """What it misses, one line each."""
        name = f"{self.model} on {self.setting}"
        lines = [f"{name}: {self.error}"] if self.error else []
        if self.coverage < 1:
            lines.append(f"{name}: coverage {self.coverage:.1%}, expected 100 %")
        if self.stored > (allowed := self.weights * PACKING + CODE_BYTES):
            lines.append(f"{name}: {self.stored} bytes, expected at most {allowed:.0f}")
        return lines


def compile_cell(
    case: Case, setting: Setting, bundle: Path, timeout_s: float | None = None
) -> Cell:
    """Compile to ``bundle``; a failed gate is a cell with ``error``.

    Args:
        case: The model.
        setting: Target and precision.
        bundle: Where to.
        timeout_s: Seconds after which the compile is stopped.

    Raises:
        RuntimeError: The command crashed, or took too long.
    """
    shapes = [f"{name}={','.join(map(str, dims))}" for name, dims in case.shapes.items()]
    options = ["--target", setting.target, "--precision", setting.precision]
    options += [text for shape in shapes for text in ("--shape", shape)]
    options += ["--output", str(bundle), "--overwrite"]
    answer = call(["compile", str(case.find()), *options], timeout_s=timeout_s)
    found = answer.result
    if not found or found.get("parity") is None:
        error = answer.error or "no parity figures"
        return Cell(case.name, setting.label, error, 0.0, 0, 0, 0.0, "", None, 0.0, "", "")
    metric, figure = next(iter(found["parity"].items()))
    covered = found["coverage"]
    return Cell(
        model=case.name,
        setting=setting.label,
        error=answer.error,
        coverage=covered["on_target"] / covered["nodes"],
        transposes=transposes(bundle) if not answer.error else 0,
        size=sum(f["bytes"] for f in found["files"]),
        seconds=found["seconds"],
        metric=metric,
        value=figure["value"],
        limit=figure["limit"],
        worst=_worst(found["verification"]),
        drop=_drop(found["verification"]["psnr_drop"]),
        stored=_stored(found["files"]),
        weights=found["cost"]["params"] * _WIDTH[setting.precision],
    )


def _stored(files: list[dict[str, Any]]) -> int:
    return sum(f["bytes"] for f in files if f["path"].endswith((".so", ".params")))


def _worst(parity: dict[str, Any]) -> str:
    first = parity["first_divergent"] or next(iter(parity["worst"]), None)
    if first is None:
        return ""
    share = first["error"] / first["limit"] if first["limit"] else float("inf")
    return f"{first['op']} {first['node']!r} at {share:.2f} of its tolerance"


def _drop(drop: dict[str, Any] | None) -> str:
    if drop is None:
        return ""
    what = "first below the gate" if drop["below_gate"] else "never below the gate, lowest"
    return f"{what}: {drop['op']} {drop['node']!r} {drop['psnr_db']} dB"
