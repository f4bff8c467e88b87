"""The figures of all trained networks as one table: mean and standard deviation over seeds.

python -m examples.convshare_training.table build/convshare
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

# The share of the plain transformer's loss from which attention counts as learned.
SHARE = 0.5
FIGURES = ("accuracy", "fixed", "uniform", "loss", "entropy", "variation", "distance")


def figures(record: dict[str, Any]) -> dict[str, float]:
    """Of one network; ``loss`` is what fixing the attention costs."""
    found = {name: float(record[name]) for name in FIGURES if name != "loss"}
    return {**found, "loss": found["accuracy"] - found["fixed"]}


def main(folder: Path) -> None:
    """Print the table and the answers."""
    kinds: dict[str, list[dict[str, float]]] = {}
    sizes: dict[str, int] = {}
    for file in sorted(folder.glob("*-*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        kinds.setdefault(record["kind"], []).append(figures(record))
        sizes[record["kind"]] = record["parameters"]
    print(f"| kind | parameters | seeds | {' | '.join(FIGURES)} |\n{'|---' * 10}|")
    for kind, every in kinds.items():
        cells = []
        for name in FIGURES:
            values = [one[name] for one in every]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.4f} +- {spread:.4f}")
        print(f"| {kind} | {sizes[kind]} | {len(every)} | {' | '.join(cells)} |")
    plain = statistics.mean(one["loss"] for one in kinds["linear"])
    for kind, every in kinds.items():
        ratios = [one["loss"] / plain for one in every]
        learned = sum(ratio >= SHARE for ratio in ratios)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        answer = f"{kind}: learns attention in {learned} of {len(every)} seeds"
        print(f"{answer} (loss / plain: {shown})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
