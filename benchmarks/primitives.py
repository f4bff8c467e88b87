"""Shifts and additions next to float32, float16 and int8 on this CPU, and to their ceilings.

    python -m benchmarks.primitives [--rounds N] [--part NAME ...] [--json FILE]

One thread. Every round calls each subject for about a millisecond, one after another; times
are medians over the rounds. Integer products end in bytes, as layers of a network do. ONNX
Runtime's times hold its cost of a call, 2 to 3 microseconds; ours, that of TVM's.

A share is of the form's own ceiling: the longer of what its instructions take in registers
(``benchmarks.primitive_peaks``; dot products: the machine's peak of them) and what reading
its operands takes, both measured in the same rounds; a call of nearly nothing is taken off
the kernel's time. Exit status 1 where a figure misses its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.primitive_peaks import rate, reading
from benchmarks.tvm_subjects import Call, peak
from edgevit.primitives import engine, medians, peers
from edgevit.targets.tvm.machine import MACHINES, features, native
from edgevit.targets.tvm.primitives import additions, products

__all__ = ["Row", "main"]

# Rows, K, N of ShiftAddViT's MatShift (PVTv2-B1, stages 1 and 2), and of DeiT-Ti.
SHIFTS = [
    (3136, 64, 512),
    (3136, 512, 64),
    (784, 128, 1024),
    (784, 1024, 128),
    (197, 192, 768),
    (197, 768, 192),
]
# One token, weights beyond the second-level cache; the last ones beyond the third.
TOKENS = [(1, 2048, 2048), (1, 1024, 4096), (1, 4096, 1024), (1, 8192, 8192)]
# Batch times heads, codes, columns, K of its MatAdd; the same with 32 images.
_ONE = [(1, 16, 32, 3136), (2, 16, 32, 784), (5, 16, 32, 196)]
ADDITIONS = _ONE + [(32 * b, m, n, k) for b, m, n, k in _ONE]
SHARE, SLOWER = 0.6, 1.3
DOTS = ("int8, ours", "shift codes, 1 term", "shift codes, 2 terms")


@dataclass(frozen=True)
class Row:
    """One shape.

    Attributes:
        part: ``shifts``, ``tokens`` or ``additions``.
        shape: As in the lists above.
        microseconds: Way -> time of a call.
        shares: Way -> share of its own ceiling.
    """

    part: str
    shape: tuple[int, ...]
    microseconds: Mapping[str, float]
    shares: Mapping[str, float]

    def missed(self) -> list[str]:
        """What misses its limit."""
        found = [
            f"{name}: {share:.2f} of its ceiling"
            for name, share in self.shares.items()
            if share < SHARE and not name.endswith("ours")
        ]
        if self.part == "additions":
            return found
        limit = 1.0 if self.part == "tokens" else SLOWER
        ratio = self.microseconds["shift codes, 1 term"] / self.microseconds["int8, ours"]
        return found + ([f"{ratio:.2f} of int8's time"] if ratio > limit else [])


@dataclass(frozen=True)
class Bound:
    """What a way of computing cannot be faster than.

    Attributes:
        mix: Name of a ceiling in registers.
        products: That the way needs of it.
        bytes_: That it reads.
    """

    mix: str
    products: int
    bytes_: int


def _shares(
    calls: Mapping[str, Call],
    bounds: Mapping[str, Bound],
    mixes: Mapping[str, tuple[Call, int]],
    rounds: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of every call, and each way's share of its ceiling."""
    every = {**calls, "nothing": additions(1, 1, 1, 1)["masked additions, float32"]}
    every |= {f"mix {name}": call for name, (call, _) in mixes.items()}
    sizes = {b.bytes_ for b in bounds.values()}
    every |= {f"read {size}": reading(size, native()) for size in sizes}
    seconds = medians(every, rounds)
    shares = {}
    for name, bound in bounds.items():
        _, products = mixes[bound.mix]
        computed = bound.products * seconds[f"mix {bound.mix}"] / products
        read = seconds[f"read {bound.bytes_}"] - seconds["nothing"]
        shares[name] = max(computed, read) / (seconds[name] - seconds["nothing"])
    return {name: 1e6 * seconds[name] for name in calls}, shares


def _peaks() -> dict[str, tuple[Call, int]]:
    """Ceilings of multiplications, in products a call."""
    tops = {"dots": peak(True), "float32": peak(False)}
    return {name: (call, operations // 2) for name, (call, operations) in tops.items()}


def product_row(part: str, shape: tuple[int, int, int], rounds: int) -> Row:
    """Bytes times constant weights: many rows, or one."""
    m, k, n = shape
    decoded = "shifts and additions" + (", decoded" if m == 1 else "")
    mixes = {**_peaks(), decoded: rate(decoded, native())}
    widths = {"float32, ours": 4.0, "int8, ours": 1.0, "shift codes, 1 term": 0.5}
    widths |= {"shift codes, 2 terms": 1.0, "shifts and additions, 1 term": 0.5}
    kinds = {"float32, ours": "float32", **dict.fromkeys(DOTS, "dots")}
    kinds["shifts and additions, 1 term"] = decoded
    bounds = {
        name: Bound(kinds[name], m * k * n, int(width * k * n) + m * k)
        for name, width in widths.items()
    }
    calls = {**products(*shape), **peers(*shape)}
    return Row(part, shape, *_shares(calls, bounds, mixes, rounds))


def add_row(shape: tuple[int, int, int, int], rounds: int) -> Row:
    """Zeros and ones [b, K, M]^T times [b, K, N]; both are computed at run time."""
    b, m, n, k = shape
    rng = np.random.default_rng(0)
    left = (rng.random((b, m, k)) < 0.5).astype(np.float32)
    right, out = rng.standard_normal((b, k, n), np.float32), np.empty((b, m, n), np.float32)
    whole = rng.integers(-128, 128, (b, k, n), np.int8)
    calls: dict[str, Call] = dict(additions(b, m, n, k))
    mixes = {**_peaks(), "adds": rate("masked additions", native())}
    masks = b * k * 2
    bounds = {
        "masked additions, float32": Bound("adds", b * m * n * k, masks + 4 * b * k * n),
        "masked dot products, int8": Bound("dots", b * m * n * k, masks + b * k * n),
    }
    del calls["bits counted"]
    best = MACHINES["icelake-server"]
    counters = [native(), *([best] if set(best.features) <= features() else [])]
    words = -(-k // 32)  # counted whole, also the last one
    for machine in dict.fromkeys(counters):
        name = f"bits counted, {machine.name}"
        calls[name] = additions(b, m, n, k, machine)["bits counted"]
        mixes[name] = rate("bits counted", machine)
        bounds[name] = Bound(name, b * m * n * words * 32, 4 * b * words * (m + n))
    calls["float32, OpenBLAS"] = lambda: np.matmul(left, right, out=out)
    calls["float32, ONNX Runtime"] = engine("MatMul", left, right, constant=False)
    half = (x.astype(np.float16) for x in (left, right))
    calls["float16, ONNX Runtime"] = engine("MatMul", *half, constant=False)
    zeros = left.astype(np.uint8)
    calls["int8, ONNX Runtime"] = engine("MatMulInteger", zeros, whole, constant=False)
    return Row("additions", shape, *_shares(calls, bounds, mixes, rounds))


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a way, a column a shape; its time, and share of its ceiling."""
    names = list(rows[0].microseconds)
    shapes = [" x ".join(map(str, row.shape)) for row in rows]
    lines = ["| microseconds | " + " | ".join(shapes) + " |", "|---|" + "--:|" * len(rows)]
    for name in names:
        cells = []
        for row in rows:
            share = row.shares.get(name)
            tail = "" if share is None else f" ({100 * share:.0f} %)"
            cells.append(f"{row.microseconds[name]:.1f}{tail}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--part", choices=("shifts", "tokens", "additions"), action="append")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    os.environ["TVM_NUM_THREADS"] = "1"
    wanted = given.part or ["shifts", "tokens", "additions"]
    rows: list[Row] = []
    for part in wanted:
        if part == "additions":
            found = [add_row(shape, given.rounds) for shape in ADDITIONS]
        else:
            shapes = SHIFTS if part == "shifts" else TOKENS
            found = [product_row(part, shape, given.rounds) for shape in shapes]
        print(f"\n{part}\n\n{table(found)}", flush=True)
        rows += found
    if given.json:
        given.json.write_text(json.dumps([asdict(r) for r in rows], indent=1))
    missed = [(row, text) for row in rows for text in row.missed()]
    for row, text in missed:
        print(f"missed: {row.part} {' x '.join(map(str, row.shape))}: {text}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
