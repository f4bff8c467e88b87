"""Convolutions, depthwise convolutions and attention of the TVM backend: shares of the peak.

    python -m benchmarks.tvm_roofline [--rounds N] [--json FILE]

One thread, float32 and bytes. Times are medians over the rounds, in which every kernel and
the peak of the machine take turns. A share counts the operator's own multiplications and
additions alone: exponentials, packing and quantization are what it loses.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tvm_subjects import Call, peak
from edgevit.primitives import medians
from edgevit.targets.tvm.kernels.arithmetic import FLOAT32, integer
from edgevit.targets.tvm.kernels.attention import Attention, Heads
from edgevit.targets.tvm.kernels.conv import Conv, Window
from edgevit.targets.tvm.kernels.depthwise import Depthwise
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import layout
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.machine import native
from edgevit.targets.tvm.single import Single

__all__ = ["Share", "main"]

# Output rows, columns, input and output channels, window, stride.
CONVOLUTIONS = {
    "patches 16x16, DeiT-Ti": (14, 14, 3, 192, 16, 16),
    "patches 16x16, DeiT-S": (14, 14, 3, 384, 16, 16),
    "stem 3x3/2, MobileViT": (128, 128, 3, 16, 3, 2),
    "3x3 at 32x32, MobileViT-S": (32, 32, 96, 96, 3, 1),
    "3x3 at 16x16, MobileViT-S": (16, 16, 256, 128, 3, 1),
    "3x3/2, EfficientFormerV2-S0": (28, 28, 32, 48, 3, 2),
}
DEPTHWISE = {
    "depthwise 3x3, PP-OCRv4": (24, 160, 64, 64, 3, 1),
    "depthwise 5x5, PP-OCRv4": (12, 80, 240, 240, 5, 1),
    "depthwise 5x5/2, PP-OCRv4": (6, 40, 480, 480, 5, 2),
    "depthwise 3x3, MobileViT-S": (64, 64, 256, 256, 3, 1),
}
# Heads, queries, keys, elements of a row.
ATTENTION = {
    "attention, DeiT-Ti": (3, 197, 197, 64),
    "attention, DeiT-S": (6, 197, 197, 64),
    "attention, MobileViT-S": (4, 256, 256, 36),
    "attention, PVTv2-B0": (1, 3136, 49, 32),
    "attention, PP-OCRv4": (8, 40, 40, 15),
}


@dataclass(frozen=True)
class Share:
    """One kernel.

    Attributes:
        name: What it is.
        dtype: ``float32`` or ``int8``.
        microseconds: Of one call.
        rate: Giga-operations a second.
        peak: Of the machine, at the same time: float32 for bytes that are added in float32.
    """

    name: str
    dtype: str
    microseconds: float
    rate: float
    peak: float


def _window(shape: tuple[int, ...], channels: int) -> Window:
    high, wide, _, _, size, stride = shape
    down, right = ((n - 1) * stride + size for n in (high, wide))
    steps = (down * right * channels, right * channels, channels)
    return Window(1, (high, wide), (size, size), (stride, stride), (1, 1), *steps)


def _convolution(shape: tuple[int, ...], integers: bool) -> tuple[Kernel, int]:
    """A kernel and its operations."""
    high, wide, given, out, size, _ = shape
    channels = -(-given // 4) * 4 if integers else given
    kind = integer(native()) if integers else FLOAT32
    after = Epilogue(scale=integers, bias=True)
    window, columns = _window(shape, channels), layout(out, native())
    kernel = Conv(window, channels, 1, columns, out, after, kind)
    return kernel, 2 * high * wide * given * out * size * size


def _depthwise(shape: tuple[int, ...], integers: bool) -> tuple[Kernel, int]:
    high, wide, channels, _, size, _ = shape
    after = Epilogue(scale=integers, bias=True)
    source = integer(native()).left if integers else "float32"
    kernel = Depthwise(_window(shape, channels), channels, 1, channels, after, source)
    return kernel, 2 * high * wide * channels * size * size


def _attention(shape: tuple[int, int, int, int]) -> tuple[Kernel, int]:
    heads, queries, keys, width = shape
    q, k = (Heads(n * heads * width, width, heads * width) for n in (queries, keys))
    sizes = (1, heads, heads, queries, keys, width, width, width**-0.5)
    return Attention(native(), *sizes, q, k, k, q), 4 * heads * queries * keys * width


def _kernels() -> list[tuple[str, bool, bool, Kernel, int]]:
    """Name, whether bytes, whether sums are integers, kernel, operations."""
    found = []
    for integers in (False, True):
        for name, shape in CONVOLUTIONS.items():
            found.append((name, integers, integers, *_convolution(shape, integers)))
        for name, shape in DEPTHWISE.items():
            found.append((name, integers, False, *_depthwise(shape, integers)))
    found += [(name, False, False, *_attention(s)) for name, s in ATTENTION.items()]
    return found


def _operands(kernel: Kernel) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(o.size, np.float32)
        if o.dtype == "float32"
        else rng.integers(0, 100, o.size).astype(o.dtype)
        for o in kernel.operands
        if not o.written
    ]


def measure(rounds: int) -> list[Share]:
    """All kernels."""
    shares = []
    for name, integers, exact, kernel, operations in _kernels():
        top, most = peak(exact)
        calls: dict[str, Call] = {
            "kernel": Single(kernel, native(), _operands(kernel)),
            "peak": top,
        }
        seconds = medians(calls, rounds)
        rate, limit = operations / seconds["kernel"] / 1e9, most / seconds["peak"] / 1e9
        dtype = "int8" if integers else "float32"
        shares.append(Share(name, dtype, 1e6 * seconds["kernel"], rate, limit))
    return shares


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    os.environ["TVM_NUM_THREADS"] = "1"
    shares = measure(given.rounds)
    print("| kernel | dtype | microseconds | giga-operations a second | of the peak |")
    print("|---|---|--:|--:|--:|")
    for s in shares:
        share = f"{100 * s.rate / s.peak:.0f} %"
        print(f"| {s.name} | {s.dtype} | {s.microseconds:.1f} | {s.rate:.0f} | {share} |")
    if given.json:
        given.json.write_text(json.dumps([asdict(s) for s in shares], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
