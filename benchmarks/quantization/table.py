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
    """For every family that somebody else offers: our most accurate form next to theirs.

    The best of each side is taken by the very accuracy that is shown, which flatters both.
    """
    lines = []
    for family in sorted({form.family for form, _ in found if isinstance(form, Peer)}):
        sides = [_best(found, labels, family, peer) for peer in (False, True)]
        if any(side is None for side in sides):
            continue
        (ours, mine), (theirs, other) = (side for side in sides if side is not None)
        change, half = paired(mine, other, labels)
        lines.append(
            f"{family}: {ours.label} {accuracy(mine, labels):.4f}, {mine.bytes / 1e6:.2f} MB; "
            f"best public: {theirs.label} {accuracy(other, labels):.4f}, "
            f"{other.bytes / 1e6:.2f} MB; difference {change:+.2f} ± {half:.2f} points"
        )
    return lines


def _best(
    found: Sequence[Row], labels: Sequence[object], family: str, peer: bool
) -> Row | None:
    """The most accurate form of one side, of those that answered all images."""
    most = max(len(cell.answers) for _, cell in found)
    side = [
        (form, cell)
        for form, cell in found
        if form.family == family
        and isinstance(form, Peer) is peer
        and len(cell.answers) == most
    ]
    return max(side, key=lambda row: accuracy(row[1], labels), default=None)
