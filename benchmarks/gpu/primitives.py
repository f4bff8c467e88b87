"""Shifts and additions on a CUDA GPU at the published shapes, next to PyTorch's products.

    python -m benchmarks.gpu.primitives [--rounds N] [--json FILE]

Needs nvcc, PyTorch with a GPU, numpy. Every result is compared with int64 first. Times are of
calls recorded in one CUDA graph (no launch from the processor in them), medians over the
rounds; data stay in the second-level cache where they fit. Every output is int32, or float32,
but float16's. The floor is the time of an empty kernel in such a graph.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.shift_codes import encode, levels, unpack

__all__ = ["ADDITIONS", "SHIFTS", "dot_words", "main"]

Array = np.ndarray[Any, Any]
Call = Callable[..., Any]
# Batch, rows, K, N of ShiftAddViT's MatShift; batch, heads, K, N, codes of its MatAdd.
SHIFTS = [(1, 3136, 64, 512), (1, 3136, 512, 64), (1, 784, 128, 1024), (1, 784, 1024, 128)]
ADDITIONS = [(1, 1, 3136, 32, 16), (1, 2, 784, 32, 16), (1, 5, 196, 32, 16)]
REPEATS = 50
_SOURCE = Path(__file__).with_name("primitives.cu")


def library(folder: Path) -> ctypes.CDLL:
    """The kernels, compiled for this GPU."""
    out = folder / "primitives.so"
    flags = ["-O3", "-arch=sm_90", "-shared", "-Xcompiler", "-fPIC", "-o", str(out)]
    subprocess.run(["nvcc", *flags, str(_SOURCE)], check=True)
    return ctypes.CDLL(str(out))


def dot_words(parts: Array, bits: int) -> Array:
    """Signed terms [K, N] as the tensor cores' tiles read them: 4 or 8 bits each.

    Words [K/32][N/8][lane][one of 4 bits, two of 8]: a lane has four neighbors along K from
    4 (lane % 4) on, then four from 16 on, of column lane / 4.
    """
    k, n = parts.shape
    split = parts.reshape(k // 32, 2, 4, 4, n // 8, 8)  # K/32, half, quad, i, N/8, column
    dealt = split.transpose(0, 4, 5, 2, 1, 3).reshape(k // 32, n // 8, 32, 8)
    if bits == 8:
        return np.ascontiguousarray(dealt.astype(np.int8)).view("<u4")
    size = np.abs(dealt.astype(np.int64))
    code = np.where(size, np.frexp(size.astype(float))[1], 0) | ((dealt < 0) << 3)
    return np.asarray((code << (4 * np.arange(8))).sum(-1).astype(np.uint32))


class Gpu:
    """PyTorch's device, our kernels, and a clock."""

    def __init__(self, kernels: ctypes.CDLL, rounds: int) -> None:
        import torch

        self.torch, self.kernels, self.rounds = torch, kernels, rounds
        torch.backends.cuda.matmul.allow_tf32 = False

    def put(self, array: Array) -> Any:
        """A copy on the device; unsigned words as signed ones."""
        plain = np.ascontiguousarray(array)
        kinds = {"uint32": np.int32, "uint16": np.int16}
        plain = plain.view(kinds.get(plain.dtype.name, plain.dtype))
        return self.torch.from_numpy(plain).cuda()

    def start(self, name: str, *given: Any) -> None:
        """Call a launcher on tensors and integers, on PyTorch's stream."""
        stream = ctypes.c_void_p(self.torch.cuda.current_stream().cuda_stream)
        args = [
            ctypes.c_int(g) if isinstance(g, int) else ctypes.c_void_p(g.data_ptr())
            for g in given
        ]
        error = getattr(self.kernels, f"start_{name}")(*args, stream)
        if error:
            raise RuntimeError(f"{name}: CUDA error {error}")

    def checked(self, call: Call, out: Any, expected: Array) -> float:
        """Microseconds of a call that writes what is expected.

        Raises:
            RuntimeError: It writes something else.
        """
        call()
        if not np.array_equal(out.cpu().numpy(), expected):
            raise RuntimeError(f"{call}: wrong result")
        return self.microseconds(call)

    def microseconds(self, call: Call) -> float:
        """Of a call, recorded ``REPEATS`` times."""
        torch = self.torch
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(REPEATS):
                call()
        graph.replay()
        found = []
        for _ in range(self.rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            found.append(1e3 * float(begin.elapsed_time(end)) / REPEATS)
        return statistics.median(found)


def _floats(
    gpu: Gpu, left: Any, right: Any, shape: tuple[int, ...], product: Call
) -> dict[str, float]:
    """Microseconds of the library's product in float32 and float16."""
    torch, found = gpu.torch, {}
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        made = torch.empty(shape, dtype=dtype, device="cuda")
        call = partial(product, left.to(dtype), right.to(dtype), out=made)
        found[name] = gpu.microseconds(call)
    return found


def shift_row(gpu: Gpu, shape: tuple[int, int, int, int], batch: int) -> dict[str, Any]:
    """Microseconds of every way to multiply [rows, K] with [K, N]."""
    torch, (_, m, k, n) = gpu.torch, shape
    rows, rng = m * batch, np.random.default_rng(0)
    x = rng.integers(-128, 127, (rows, k), np.int8, endpoint=True)
    q = {t: rng.choice(levels(t), (k, n)) for t in (1, 2)}
    whole = rng.integers(-127, 127, (k, n), np.int8, endpoint=True)
    xs, out = gpu.put(x), torch.empty((rows, n), dtype=torch.int32, device="cuda")
    codes, times = {t: encode(q[t], t) for t in q}, {}

    def check(name: str, call: Call, weights: Array) -> None:
        call()
        some = rng.integers(0, rows, 200)
        some[-1] = rows - 1
        want = x[some].astype(np.int64) @ weights.astype(np.int64)
        if not np.array_equal(out.cpu().numpy()[some], want):
            raise RuntimeError(f"{name} {shape}: wrong result")
        times[name] = gpu.microseconds(call)

    for t in q:
        words = gpu.put(np.stack([dot_words(p, 4) for p in unpack(codes[t])]))
        check(
            f"codes to tensor cores, {t} term{'s' * (t > 1)}",
            partial(gpu.start, "dot", xs, words, out, rows, n, k, t),
            q[t],
        )
    ones = gpu.put((q[1] < 0).sum(0).astype(np.int32))
    plain = gpu.put(codes[1].codes[0])
    check(
        "shifts and additions",
        lambda: gpu.start("shift", xs, plain, ones, out, rows, n, k),
        q[1],
    )
    words = gpu.put(dot_words(whole, 8))
    check("int8, same kernel", lambda: gpu.start("dot", xs, words, out, rows, n, k, 0), whole)
    ws = gpu.put(np.ascontiguousarray(whole.T)).t()
    check("int8, library", lambda: torch._int_mm(xs, ws, out=out), whole)
    times |= _floats(gpu, xs, gpu.put(whole), (rows, n), torch.mm)
    moved = {"codes": rows * k + k * n // 2 + 4 * rows * n, "products": rows * k * n}
    return {"shape": list(shape), "batch": batch, "microseconds": times, **moved}


def add_row(gpu: Gpu, shape: tuple[int, ...], batch: int) -> dict[str, Any]:
    """Microseconds of every way to multiply codes^T [16, K] with V [K, 32]."""
    torch, (_, heads, k, n, m) = gpu.torch, shape
    b, rng = heads * batch, np.random.default_rng(0)
    deep = -(-k // 8) * 8
    bits = np.zeros((b, deep, m), bool)
    bits[:, :k] = rng.random((b, k, m)) < 0.5
    v = np.zeros((b, deep, n), np.int8)
    v[:, :k] = rng.integers(-128, 127, (b, k, n), np.int8, endpoint=True)
    want = np.matmul(bits.swapaxes(1, 2).astype(np.float64), v.astype(np.float64))
    splits = max(1, min(deep // 64, 128 // b))
    times: dict[str, float] = {}
    size = (b, splits, m, n)

    def places(dtype: Any) -> tuple[Any, Any]:
        part = torch.empty(size, dtype=dtype, device="cuda")
        return part, torch.empty((b, m, n), dtype=dtype, device="cuda")

    masks = gpu.put(np.packbits(bits, axis=-1, bitorder="little"))
    floats, (part, out) = gpu.put(v.astype(np.float32)), places(torch.float32)
    times["float32, masked additions"] = gpu.checked(
        lambda: gpu.start("masked_add", masks, floats, part, out, b, deep, splits), out, want
    )
    turned = bits.reshape(b, deep // 8, 8, m).swapaxes(2, 3)
    octets, whole = gpu.put(np.packbits(turned, axis=-1, bitorder="little")), gpu.put(v)
    parts, sums = places(torch.int32)
    times["int8, dot products"] = gpu.checked(
        lambda: gpu.start("masked_dot", octets, whole, parts, sums, b, deep, splits),
        sums,
        want,
    )
    other = rng.random((b, deep, n)) < 0.5
    words = [gpu.put(_words(a)) for a in (bits, other)]
    common = np.matmul(bits.swapaxes(1, 2).astype(np.float64), other.astype(np.float64))
    times["both binary, bits counted"] = gpu.checked(
        lambda: gpu.start("counted", *words, parts, sums, b, -(-deep // 32), splits),
        sums,
        common,
    )
    left = gpu.put(bits.swapaxes(1, 2).astype(np.float32))
    times |= _floats(gpu, left, floats, (b, m, n), torch.matmul)
    return {"shape": list(shape), "batch": batch, "microseconds": times, "splits": splits}


def _words(bits: Array) -> Array:
    """[B, K, M] as words along K, [B, K/32, M]."""
    up = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 32), (0, 0)))
    packed = np.packbits(up.swapaxes(1, 2), axis=-1, bitorder="little")
    return np.ascontiguousarray(np.ascontiguousarray(packed).view("<u4").swapaxes(1, 2))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line a shape, microseconds."""
    names = list(rows[0]["microseconds"])
    lines = [
        "| shape | batch | " + " | ".join(names) + " |",
        "|---|--:|" + "--:|" * len(names),
    ]
    for row in rows:
        cells = [f"{row['microseconds'][name]:.2f}" for name in names]
        shape = " x ".join(map(str, row["shape"]))
        lines.append(f"| {shape} | {row['batch']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    import torch

    with tempfile.TemporaryDirectory() as folder:
        gpu = Gpu(library(Path(folder)), given.rounds)
        floor = gpu.microseconds(lambda: gpu.start("nothing"))
        big = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
        copy = gpu.microseconds(lambda: big[: 1 << 27].copy_(big[1 << 27 :]))
        head = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "floor": floor,
            "bandwidth": (1 << 30) / copy * 1e6 / 1e9,
        }
        print(json.dumps(head))
        shifts = [shift_row(gpu, s, b) for b in (1, 32) for s in SHIFTS]
        print(table(shifts))
        additions = [add_row(gpu, s, b) for b in (1, 32) for s in ADDITIONS]
        print(table(additions))
    if given.json:
        found = {**head, "shifts": shifts, "additions": additions}
        given.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
