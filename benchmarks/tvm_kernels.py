"""Matrix products of the TVM backend next to the engines' own, and to the machine's peak.

    python -m benchmarks.tvm_kernels [--rounds N] [--only float32|int8] [--json FILE]

One thread. Every round calls each subject for about a millisecond, one after another; a time
is the median over the rounds, less what the engine takes for a product of 1 x 4 x 4: its cost
of a call. The peak is measured alongside, by products of registers with themselves. Exit
status 1 if one of our kernels runs at less than 75 % of the best of its peers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.tvm_subjects import Product, peak, subjects
from edgevit.primitives import medians

__all__ = ["GATE", "Row", "main"]

GATE = 0.75

# M, N, K of DeiT-Ti, DeiT-S and PP-OCRv4's recognizer at 48 x 320.
SHAPES = {
    "DeiT-Ti qkv": (197, 576, 192),
    "DeiT-Ti projection": (197, 192, 192),
    "DeiT-Ti fc1": (197, 768, 192),
    "DeiT-Ti fc2": (197, 192, 768),
    "DeiT-S qkv": (197, 1152, 384),
    "DeiT-S projection": (197, 384, 384),
    "DeiT-S fc1": (197, 1536, 384),
    "DeiT-S fc2": (197, 384, 1536),
    "PP-OCRv4 1x1, 24x160": (3840, 64, 64),
    "PP-OCRv4 1x1, 12x160": (1920, 128, 128),
    "PP-OCRv4 1x1, 12x80": (960, 240, 240),
    "PP-OCRv4 1x1, 6x80": (480, 480, 480),
    "PP-OCRv4 qkv": (40, 360, 120),
    "PP-OCRv4 classes": (40, 6625, 120),
}


@dataclass(frozen=True)
class Row:
    """One shape: giga-operations a second of each engine.

    Attributes:
        name: Where the product comes from.
        shape: M, N, K.
        dtype: ``float32`` or ``int8``.
        peak: Of the machine, at the same time.
        rates: Engine -> rate.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    peak: float
    rates: Mapping[str, float]

    @property
    def to_best(self) -> float:
        """Our rate to the best of the others."""
        return self.rates["edgevit"] / max(v for k, v in self.rates.items() if k != "edgevit")


def measure(name: str, product: Product, rounds: int, folder: Path) -> Row:
    """All engines on one shape."""
    small = Product(1, 4, 4, product.integers)
    top, operations = peak(product.integers)
    calls = dict(subjects(product, folder))
    costs = {f"call of {k}": v for k, v in subjects(small, folder).items()}
    seconds = medians({**calls, **costs, "peak": top}, rounds)
    rates = {
        k: product.operations / (seconds[k] - seconds[f"call of {k}"]) / 1e9 for k in calls
    }
    shape = (product.rows, product.columns, product.depth)
    dtype = "int8" if product.integers else "float32"
    return Row(name, shape, dtype, operations / seconds["peak"] / 1e9, rates)


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line a shape."""
    engines = list(rows[0].rates)
    head = ["product", "M x N x K", *engines, "peak", "of the peak", "to the best peer"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
    for row in rows:
        rates = [f"{row.rates[e]:.0f}" for e in engines]
        share = f"{100 * row.rates['edgevit'] / row.peak:.0f} %"
        cells = [row.name, " x ".join(map(str, row.shape)), *rates, f"{row.peak:.0f}", share]
        lines.append("| " + " | ".join([*cells, f"{row.to_best:.2f}"]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 1 where the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", choices=("float32", "int8"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    os.environ["TVM_NUM_THREADS"] = "1"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "int8"):
            if given.only in (None, dtype):
                part = [
                    measure(name, Product(*shape, dtype == "int8"), given.rounds, Path(folder))
                    for name, shape in SHAPES.items()
                ]
                print(f"\n{dtype}, giga-operations a second, 1 thread\n\n{table(part)}")
                rows += part
    if given.json:
        given.json.write_text(json.dumps([asdict(r) for r in rows], indent=1))
    missed = [r for r in rows if r.to_best < GATE]
    for row in missed:
        print(f"missed: {row.dtype} {row.name}: {row.to_best:.2f} of the best peer")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
