"""The tables: accuracy with its paired interval, size, cost; and who is ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.quantization.cells import Cell
from benchmarks.quantization.recipes import SOURCE, Form, Peer

__all__ = ["accuracy", "ahead", "paired", "rows"]

Row = tuple[Form, Cell]
_HEAD = (
    "| form | executed by | images | accuracy | to fp32, points | size, MB | quantize, CPU s "
    "| peak, MB | CPU ms a run |"
)
_REASON = 160  # characters of an error in a row


def accuracy(cell: Cell, labels: Sequence[object]) -> float:
    """Share of right answers of the images that the cell answered."""
    return float(np.mean(_right(cell, labels, len(cell.answers))))


def paired(cell: Cell, base: Cell, labels: Sequence[object]) -> tuple[float, float]:
    """Difference to ``base`` in points and half of its 95 % interval, on the same images.

    Each image contributes -1, 0 or 1: the interval is normal, of the mean of those. Where the
    two answered different numbers of images, the images both answered count.
    """
    both = min(len(cell.answers), len(base.answers))
    change = _right(cell, labels, both) - _right(base, labels, both)
    return 100 * float(change.mean()), 196 * float(change.std()) / math.sqrt(both)


def _right(cell: Cell, labels: Sequence[object], count: int) -> np.ndarray[Any, Any]:
    pairs = zip(cell.answers[:count], labels[:count], strict=True)
    return np.array([a == b for a, b in pairs], np.int64)


def rows(found: Sequence[Row], labels: Sequence[object]) -> list[str]:
    """Markdown rows; the source is the base."""
    base = next(cell for form, cell in found if form is SOURCE)
    lines = [_HEAD, "|---|---|---|---|---|---|---|---|---|"]
    for form, cell in found:
        if cell.error:
            reason = " ".join(cell.error.replace("|", "/").split())[:_REASON]
            lines.append(f"| {form.label} | {form.engine} | | {reason} | | | | | |")
            continue
        change, half = paired(cell, base, labels)
        difference = "" if cell is base else f"{change:+.2f} ± {half:.2f}"
        cost = "" if cell is base else f"{cell.quantize_cpu_s:.0f} | {cell.peak_mb:.0f}"
        lines.append(
            f"| {form.label} | {form.engine} | {len(cell.answers)} "
            f"| {accuracy(cell, labels):.4f} | {difference} | {cell.bytes / 1e6:.2f} "
            f"| {cost or ' | '} | {1e3 * cell.run_s / len(cell.answers):.1f} |"
        )
    return lines


def ahead(found: Sequence[Row], labels: Sequence[object]) -> list[str]:
    """For every family that somebody else offers: our best form next to theirs, by engine.

    The best of each side loses least to the source, by the very images that are shown: that
    flatters both. The difference between them is on the images that both answered.
    """
    base = next(cell for form, cell in found if form is SOURCE)
    pairs = sorted({(f.family, f.engine) for f, _ in found if isinstance(f, Peer)})
    lines = []
    for family in sorted({family for family, _ in pairs}):
        for engine in ("", *(e for f, e in pairs if f == family)):
            ours, theirs = (
                _best(found, base, labels, (family, engine, peer)) for peer in (False, True)
            )
            if ours is None or theirs is None:
                continue
            change, half = paired(ours[1], theirs[1], labels)
            lines.append(
                f"| {family} | {engine or 'any'} | {_shown(ours, base, labels)} "
                f"| {_shown(theirs, base, labels)} | {change:+.2f} ± {half:.2f} |"
            )
    head = "| family | engine | ours | best public | difference, points |"
    return [head, "|---|---|---|---|---|", *lines] if lines else []


def _shown(row: Row, base: Cell, labels: Sequence[object]) -> str:
    change, _ = paired(row[1], base, labels)
    return f"{row[0].label}: {change:+.2f}, {row[1].bytes / 1e6:.2f} MB"


def _best(
    found: Sequence[Row], base: Cell, labels: Sequence[object], of: tuple[str, str, bool]
) -> Row | None:
    """The form that loses least; ``of``: family, engine, whether a peer's.

    Without an engine those count that answered every image.
    """
    family, engine, peer = of
    side = [
        (form, cell)
        for form, cell in found
        if form.family == family
        and (form.engine == engine if engine else len(cell.answers) == len(base.answers))
        and isinstance(form, Peer) is peer
        and not cell.error
    ]
    return max(side, key=lambda row: paired(row[1], base, labels)[0], default=None)
