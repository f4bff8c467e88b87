"""4f frames through the array namespace on a GPU, beside scipy on the same machine.

``PYTHONPATH=. python benchmarks/optics_gpu.py [cuda|cpu]`` in an environment with torch,
array_api_compat, numpy and scipy. Batches of 16 planes, single precision; medians of 20 calls
(5 for scipy) after two warm ones; ``error`` is the largest difference of the two results,
relative to the largest output.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from edgevit.sim4f.correlate import apply, place, transfer_half
from edgevit.sim4f.fourier import four_f
from edgevit.sim4f.grid import Field, Grid, critical_pitch, from_origin

LAM, FOCAL, BATCH = 532e-9, 0.1, 16


def median(run: Callable[[], Any], wait: Callable[[], None], calls: int) -> float:
    """Seconds of a call, median."""
    found = []
    for i in range(calls + 2):
        start = time.perf_counter()
        run()
        wait()
        if i >= 2:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def row(name: str, n: int, device: str, torch: Any, xp: Any) -> str:
    """One operation at one size."""
    rng = np.random.default_rng(n)
    planes = rng.uniform(0, 1, (BATCH, n, n)).astype(np.float32)
    kernel = place(rng.standard_normal((16, 16)).astype(np.float32), (n, n))
    grid = Grid((n, n), (critical_pitch(n, LAM, FOCAL),) * 2, LAM)
    threads = os.cpu_count() or 1

    def real(at: Any, x: Any, k: Any, workers: int) -> Callable[[], Any]:
        half = transfer_half(k, xp=at)
        return lambda: apply(x, half, xp=at, workers=workers)

    def whole(at: Any, x: Any, k: Any, workers: int) -> Callable[[], Any]:
        mask = from_origin(at.fft.fftn(k, axes=(-2, -1)), xp=at)
        field = Field(x + 0j * x, grid)
        return lambda: four_f(field, mask, FOCAL, FOCAL, xp=at, workers=workers).values

    make = {"apply": real, "four_f": whole}[name]
    host = make(np, planes, kernel, threads)
    there = make(
        xp, torch.asarray(planes, device=device), torch.asarray(kernel, device=device), 1
    )
    expected = host()
    error = np.abs(there().cpu().numpy() - expected).max() / np.abs(expected).max()
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    cpu, gpu = median(host, lambda: None, 5), median(there, sync, 20)
    per = 1e3 / BATCH
    return (
        f"| {name} | {n} | {cpu * per:.3g} ({threads} threads) | {gpu * per:.3g} "
        f"| {cpu / gpu:.3g} | {error:.1e} |"
    )


def main(device: str) -> None:
    """Print the table."""
    torch: Any = import_module("torch")
    xp: Any = import_module("array_api_compat.torch")
    name = torch.cuda.get_device_name() if device == "cuda" else "this CPU"
    print(f"torch {torch.__version__} on {name}")
    print("| operation | N | scipy, ms a plane | torch, ms a plane | ratio | error |")
    print("|---|---|---|---|---|---|")
    for operation in ("apply", "four_f"):
        for n in (256, 512, 1024, 2048):
            print(row(operation, n, device, torch, xp), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cuda")
