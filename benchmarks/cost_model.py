"""How well the latency estimate follows published phone latencies.

    python -m benchmarks.cost_model [--json FILE]

Needs the exports of ``benchmarks.corpus.phone_models``. Families are taken in alphabetical
order and dealt alternately: the first, third, ... calibrate the figures of the roofline
(conv, depthwise, matmul, memory, layout, dispatch, program), the others are held out. What
is reported is the held-out half; the other way round is printed beside it. The figures that
the calibration gives are those of ``targets/devices/iphone-npu.toml``: a difference is an
error. Chips differ by their makers' stated rates, which are not fitted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.store import CACHE
from benchmarks.phone_latencies import PUBLISHED, Published
from edgevit.estimate import Load, faster, latency_ms, loads
from edgevit.loading import load
from edgevit.passes.order import canonicalize
from edgevit.target import Target, load_target

__all__ = ["Row", "calibrate", "main", "split", "statistics"]

# Where the fit starts and how far a factor of e away costs as much as an error of 10 %:
# the roofs and the dispatch that are published for another chip of the kind, and half of
# the memory's rate. Layout is memory that is read against its order.
PRIOR = {
    "conv": 6000.0,
    "depthwise": 600.0,
    "matmul": 3300.0,
    "memory": 60.0,
    "layout": 20.0,
    "dispatch": 1.0,
    "program": 150.0,
}
PRIOR_WEIGHT = 0.1
HALF = 0.5  # float16
TARGET_SPEARMAN = 0.8


@dataclass(frozen=True)
class Row:
    """A published latency and what the model needs to estimate it."""

    published: Published
    loads: tuple[Load, ...]
    compute: float
    bandwidth: float


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Calibration and held-out rows: families in alphabetical order, dealt alternately."""
    families = sorted({row.published.family for row in rows})
    chosen = set(families[::2])
    return (
        [row for row in rows if row.published.family in chosen],
        [row for row in rows if row.published.family not in chosen],
    )


def estimated(row: Row, figures: Mapping[str, float]) -> float:
    """Milliseconds by the model that ships."""
    return latency_ms(row.loads, faster(figures, row.compute, row.bandwidth), HALF)


def calibrate(rows: Sequence[Row]) -> dict[str, float]:
    """Figures with the least squared log errors, each family counting the same."""
    from scipy.optimize import least_squares

    names = tuple(PRIOR)
    start = np.log([PRIOR[n] for n in names])
    sizes = {f: sum(r.published.family == f for r in rows) for f in _families(rows)}

    def residuals(x: np.ndarray) -> np.ndarray:
        figures = dict(zip(names, np.exp(x), strict=True))
        errors = [
            math.log(estimated(r, figures) / r.published.milliseconds)
            / math.sqrt(sizes[r.published.family])
            for r in rows
        ]
        return np.concatenate([errors, PRIOR_WEIGHT * (x - start)])

    found = least_squares(residuals, start)
    rounded = (float(f"{math.exp(v):.3g}") for v in found.x)
    return dict(zip(names, rounded, strict=True))


def _families(rows: Sequence[Row]) -> set[str]:
    return {row.published.family for row in rows}


def statistics(rows: Sequence[Row], figures: Mapping[str, float]) -> dict[str, float]:
    """Rank correlation, median ratio, and absolute errors in percent."""
    from scipy.stats import spearmanr

    mine = [estimated(r, figures) for r in rows]
    theirs = [r.published.milliseconds for r in rows]
    ratios = np.asarray(mine) / np.asarray(theirs)
    errors = np.abs(ratios - 1)
    return {
        "n": len(rows),
        "spearman": float(spearmanr(mine, theirs).statistic),
        "median_ratio": float(np.median(ratios)),
        "median_error_percent": 100 * float(np.median(errors)),
        "worst_error_percent": 100 * float(errors.max()),
        "spread_90": float(np.exp(np.quantile(np.abs(np.log(ratios)), 0.9))),
    }


def _read(target: Target) -> list[Row]:
    """One row a published figure; the model's file is exported before."""
    known: dict[str, tuple[Load, ...]] = {}
    for name in sorted({entry.model for entry in PUBLISHED}):
        model = load(CACHE / "models" / "phone" / f"{name}.onnx").model
        canonicalize(model)
        known[name] = loads(model)
    figures = target.figures
    return [
        Row(
            entry,
            known[entry.model],
            figures[f"compute_{entry.chip}"].value,
            figures[f"bandwidth_{entry.chip}"].value,
        )
        for entry in PUBLISHED
    ]


def _by_products(rows: Sequence[Row]) -> float:
    """The rank correlation that a count of multiply-accumulates alone has."""
    from scipy.stats import spearmanr

    flops = [sum(one.flops for one in r.loads) for r in rows]
    return float(spearmanr(flops, [r.published.milliseconds for r in rows]).statistic)


def _side(name: str, fitted: Sequence[Row], told: Sequence[Row]) -> dict[str, Any]:
    figures = calibrate(fitted)
    return {
        "name": name,
        "figures": figures,
        "calibrated_on": sorted(_families(fitted)),
        "calibration": statistics(fitted, figures),
        "held_out": statistics(told, figures) | {"spearman_macs_alone": _by_products(told)},
        "rows": [
            {**vars(r.published), "estimate": round(estimated(r, figures), 3)} for r in told
        ],
    }


def _print(side: Mapping[str, Any]) -> None:
    print(f"\n{side['name']}: calibrated on {', '.join(side['calibrated_on'])}")
    print("figures: " + ", ".join(f"{k} {v:g}" for k, v in side["figures"].items()))
    for part in ("calibration", "held_out"):
        found = ", ".join(f"{k} {v:.3g}" for k, v in side[part].items())
        print(f"{part}: {found}")
    for row in side["rows"]:
        ratio = row["estimate"] / row["milliseconds"]
        print(
            f"  {row['model']:24} {row['chip']}  published {row['milliseconds']:5.2f} ms  "
            f"estimate {row['estimate']:5.2f} ms  ratio {ratio:.2f}"
        )


def _problems(side: Mapping[str, Any], target: Target) -> list[str]:
    shipped = {n: target.figures[n].value for n in PRIOR}
    problems = [
        f"{n}: the device file has {shipped[n]:g}, the calibration gives {value:g}"
        for n, value in side["figures"].items()
        if not math.isclose(shipped[n], value, rel_tol=0.1)
    ]
    found = side["held_out"]["spearman"]
    if found < TARGET_SPEARMAN:
        problems.append(f"rank correlation {found:.3f}, required {TARGET_SPEARMAN}")
    return problems


def main() -> int:
    """Print both directions; 1 if the bar is missed or the device file is over 10 % off."""
    parser = argparse.ArgumentParser(description="The latency estimate against phone tables.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    target = load_target("iphone-npu")
    first, second = split(_read(target))
    sides = [
        _side("held-out half", first, second),
        _side("the other way round (for comparison)", second, first),
    ]
    for side in sides:
        _print(side)
    if options.json is not None:
        options.json.write_text(json.dumps(sides, indent=1, sort_keys=True) + "\n")
    problems = _problems(sides[0], target)
    for problem in problems:
        print(f"FAIL: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
