"""The table: accuracy with its paired interval, size, cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.quantization.run import Cell

__all__ = ["accuracy", "paired", "rows"]


def accuracy(cell: Cell, labels: Sequence[object]) -> float:
    """Share of right answers."""
    return float(np.mean([a == b for a, b in zip(cell.answers, labels, strict=True)]))


def paired(cell: Cell, base: Cell, labels: Sequence[object]) -> tuple[float, float]:
    """Difference to ``base`` in points and half of its 95 % interval, on the same images.

    Each image contributes -1, 0 or 1: the interval is normal, of the mean of those.
    """
    mine = np.array([a == b for a, b in zip(cell.answers, labels, strict=True)], np.int64)
    theirs = np.array([a == b for a, b in zip(base.answers, labels, strict=True)], np.int64)
    change = mine - theirs
    return 100 * float(change.mean()), 196 * float(change.std()) / math.sqrt(len(change))


def rows(cells: Sequence[Cell], labels: Sequence[object]) -> list[str]:
    """Markdown rows; the first cell is the base."""
    base = cells[0]
    lines = [
        "| form | accuracy | to fp32, points | size, MB | quantize, s | peak, MB | ms a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        if cell.error:
            lines.append(f"| {cell.label} | {cell.error[:140]} | | | | | |")
            continue
        change, half = paired(cell, base, labels)
        difference = "" if cell is base else f"{change:+.2f} ± {half:.2f}"
        lines.append(
            f"| {cell.label} | {accuracy(cell, labels):.4f} | {difference} "
            f"| {cell.bytes / 1e6:.2f} | {cell.quantize_s:.0f} | {cell.peak_mb:.0f} "
            f"| {1e3 * cell.run_s / len(cell.answers):.1f} |"
        )
    return lines
