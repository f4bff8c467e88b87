"""The TVM target's CUDA code on the GPU of this machine, next to PyTorch.

    python -m benchmarks.native_gpu BUNDLE ... [--runs N] [--profile] [--torch]

Needs numpy and the driver; with ``--torch`` PyTorch and timm too. Each bundle checks itself
(its sample, against what ONNX Runtime computed where it was compiled), then is timed: the
whole ``run`` with its copies, and the network alone, inputs and outputs on the GPU. PyTorch
runs the same architecture in float32 (TensorFloat-32 off) with inputs on the GPU: eagerly,
and recorded as one CUDA graph.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgevit.bench import median_interval
from edgevit.runtimes.cuda import CudaEngine, CudaExecutor
from edgevit.runtimes.session import Session, load

__all__: list[str] = []

WARMUP = 10
# Launches that are timed together: their queue hides the processor's share.
BATCH = 100


def main() -> int:
    """Check and time; exit status 1 if a bundle is past its gate."""
    options = _arguments()
    failed = False
    print(_device())
    print("| model | max_rel | launches | run, ms | on the GPU, ms |")
    print("|---|--:|--:|--:|--:|")
    for path in options.bundles:
        with load(path, trust=True) as session:
            check = session.self_check()
            failed |= not all(figure.passed for figure in check.figures)
            worst = max(float(figure.value or 0.0) for figure in check.figures)
            executor = _executor(session, path)
            steps = executor.plan["steps"]
            whole, alone = _timed(session, executor, options.runs)
            print(f"| {path.stem} | {worst:.2e} | {steps} | {whole:.3f} | {alone:.3f} |")
            if options.profile:
                _profile(path.stem, executor)
            if options.torch:
                _torch(path.stem, executor, options.runs)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CUDA code on the GPU of this machine.")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=100, help="timed rounds")
    parser.add_argument("--profile", action="store_true", help="time each kernel alone")
    parser.add_argument("--torch", action="store_true", help="time PyTorch beside it")
    return parser.parse_args()


def _device() -> str:
    found = CudaEngine().probe()
    found.require()
    return f"{found.version}\n"


def _executor(session: Session, path: Path) -> CudaExecutor:
    """The code by itself, run once: a bundle of one part."""
    part = session.manifest.entries[0].parts[0]
    executor = CudaEngine().open(path / part.artifact, part, threads=None)
    executor.run({b.artifact: _noise(b.artifact_shape) for b in part.inputs})
    return executor


def _noise(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _milliseconds(call: Callable[[], Any], runs: int) -> float:
    for _ in range(WARMUP):
        call()
    return median(_once(call) for _ in range(runs))


def _timed(session: Session, executor: CudaExecutor, runs: int) -> tuple[float, float]:
    feeds = {i.name: _noise(i.shape) for i in session.inputs}
    whole = _milliseconds(lambda: session.run(feeds), runs)
    alone = _milliseconds(lambda: executor.replay(BATCH), max(3, runs // 10)) / BATCH
    return whole, alone


def _profile(name: str, executor: CudaExecutor) -> None:
    """Each launch, recorded ``BATCH`` times as one graph."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for step, call in enumerate(executor.plan["launches"]):
        spent = 1e6 * executor.timed(step, BATCH)
        kernel = f"{call['kernel']} {call['blocks']} x {call['threads']}"
        sums[kernel] += spent
        counts[kernel] += 1
    total = sum(sums.values())
    print(f"\n{name}: {total:.0f} us in {sum(counts.values())} launches, one by one\n")
    for kernel in sorted(sums, key=lambda k: -sums[k])[:25]:
        print(f"    {sums[kernel]:8.1f} us  {counts[kernel]:3d} x {kernel}")
    print()


def _torch(name: str, executor: CudaExecutor, runs: int) -> None:
    """PyTorch on the same architecture: eager, and as a graph in turns with ours."""
    import timm
    import torch

    architecture = name.removesuffix("_ts").removesuffix("_fashion")
    if not timm.is_model(architecture):
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = timm.create_model(architecture).eval().cuda()
    x = torch.randn(1, *model.default_cfg["input_size"], device="cuda")

    def eager() -> None:
        model(x)
        torch.cuda.synchronize()

    with torch.inference_mode():
        slow = _milliseconds(eager, runs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(x)

        def replay() -> None:
            for _ in range(BATCH):
                graph.replay()
            torch.cuda.synchronize()

        calls = (lambda: executor.replay(BATCH), replay)
        times = [[_once(call) / BATCH for call in calls] for _ in range(WARMUP + runs)]
    pairs = times[WARMUP:]
    low, middle, high = median_interval([ours / theirs for ours, theirs in pairs])
    fast = median(theirs for _, theirs in pairs)
    label = f"PyTorch {torch.__version__} {architecture}"
    print(f"| {label} | | | {slow:.3f} eager | {fast:.3f} graph |")
    print(f"| ours to the graph, in turns | | | | {middle:.2f} [{low:.2f}, {high:.2f}] |")


def _once(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
