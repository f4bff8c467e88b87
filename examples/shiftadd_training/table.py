"""The figures of trained networks as one table: seeds, their mean, differences to float.

    python -m examples.shiftadd_training.table build/shiftadd

Differences are paired: the same seed, the same test images; +- is one standard error of the
difference over images. ``loads``: the share of tokens that routers would multiply, lowest and
highest, without the capacity that a compiled network fixes.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("float", "control", "shift", "mixture")


def right(folder: Path, stem: str, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Which test images a network gets right, ``[n]``."""
    packed = np.load(folder / f"{stem}.right.npy")
    return np.unpackbits(packed)[:count].astype(np.float64)


def row(folder: Path, network: str, stage: str, seed: int) -> dict[str, Any] | None:
    """Of one trained network; points of accuracy."""
    stem = f"{network}-{stage}-{seed}"
    file = folder / f"{stem}.json"
    if not file.exists():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    count = record["test_images"]
    change = right(folder, stem, count) - right(folder, f"{network}-float-{seed}", count)
    record["points"] = 100 * float(change.mean())
    record["error"] = 100 * float(change.std() / np.sqrt(count))
    return record


def main(folder: Path) -> None:
    """Print the table."""
    print("| network | stage | seed | accuracy | before | to float, points | loads | epochs |")
    print("|---|---|---|---|---|---|---|---|")
    names = sorted({f.name.rsplit("-", 2)[0] for f in folder.glob("*-float-*.json")})
    for network in names:
        for stage in STAGES:
            found = [row(folder, network, stage, seed) for seed in range(9)]
            rows = [r for r in found if r is not None]
            for r in rows:
                loads = r.get("loads") or []
                spread = f"{min(loads):.3f} to {max(loads):.3f}" if loads else "-"
                before = f"{r['before']:.4f}" if "before" in r else "-"
                change = f"{r['points']:+.2f} +- {r['error']:.2f}" if stage != "float" else "-"
                epochs = r.get("epochs", 6 if len(r.get("loss", [])) else "-")
                cells = (network, stage, r["seed"], f"{r['accuracy']:.4f}", before, change)
                print(f"| {' | '.join(map(str, cells))} | {spread} | {epochs} |")
            if len(rows) > 1:
                mean = statistics.mean(r["accuracy"] for r in rows)
                points = statistics.mean(r["points"] for r in rows)
                shown = f"**{points:+.2f}**" if stage != "float" else "-"
                print(f"| {network} | {stage} | mean | **{mean:.4f}** | | {shown} | | |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
