"""Rows of the latency table: medians, and ratios to float32 and to the public quantizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quantization.cases import Case
from benchmarks.quantization.cells import read
from benchmarks.quantization.latency_cases import Engine
from benchmarks.quantization.recipes import SOURCE, Form, Ours, Peer
from benchmarks.quantization.table import accuracy
from edgevit.bench import Rounds

__all__ = ["HEAD", "Interval", "Row", "row"]

Interval = tuple[float, float, float]
HEAD = """| model | threads | engine | form | accuracy | ms | to the engine's float32 \
| ours to it |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """One form of one model on one engine.

    Attributes:
        model: Its name.
        threads: Given to the engine.
        engine: Its name.
        form: Label.
        accuracy: Of the accuracy table, where it has been measured there.
        clock: ``wall_ms`` or ``cpu_ms``.
        p50_ms: Median time.
        to_float: Time to the engine's float32: low, median, high.
        ours_to_it: For a public quantizer: the time of ours, each form, to this one's.
    """

    model: str
    threads: int
    engine: str
    form: str
    accuracy: float | None
    clock: str
    p50_ms: float
    to_float: Interval
    ours_to_it: tuple[Interval, ...]

    def line(self) -> str:
        """As Markdown."""
        right = "" if self.accuracy is None else f"{self.accuracy:.4f}"
        cells = (
            *(self.model, str(self.threads), self.engine, self.form, right),
            *(f"{self.p50_ms:.2f}", "" if self.form == SOURCE.label else _text(self.to_float)),
            "; ".join(map(_text, self.ours_to_it)),
        )
        return f"| {' | '.join(cells)} |"


def _text(values: Interval) -> str:
    low, middle, high = values
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def row(
    case: Case, engine: Engine, forms: Sequence[Form], index: int, found: Rounds, clock: str
) -> Row:
    """The row of subject ``index``; float32 is the first."""
    timing = found.timing(index)
    form = forms[index]
    ours = [i for i, f in enumerate(forms) if isinstance(f, Ours)]
    pairs = tuple(found.ratio(i, index, clock) for i in ours) if isinstance(form, Peer) else ()
    return Row(
        case.name,
        found.threads,
        engine.name,
        form.label,
        _accuracy(case, form),
        clock,
        timing.cpu_ms if clock == "cpu_ms" else timing.p50_ms,
        found.ratio(index, 0, clock),
        pairs,
    )


def _accuracy(case: Case, form: Form) -> float | None:
    """What the accuracy table has for it; float32 differs by engine in no digit shown."""
    cell = read(case.name, form.label, case.tests)
    if cell is None or cell.error or not cell.answers:
        return None
    return accuracy(cell, case.labels(case.tests))
