"""Frame programs of whole networks with an accelerator, beside the host's own paths.

    python -m benchmarks.optics_gpu_networks BUNDLE... [--library cupy] [--threads N]
        [--host fast wave]

Bundles of the optical target; one image, the bundle's self-check input. Electronic parts run
in ONNX Runtime on the host in every row. Needs array_api_compat and the library. ``products``
is the time inside of optical steps, transfers included; medians after a warm run (the host's
wave path of a big network is run once). Errors are largest differences relative to the
largest output: to the host's run, and to ONNX Runtime on the source model.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.bundle import open_bundle
from edgevit.runtimes.session import read_selfcheck
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.offload import Accelerator, OffloadedFast, OffloadedWave
from edgevit.sim4f.wave import WaveProduct
from edgevit.targets.optical.study import Point, effects_of, open_subject

Array = np.ndarray[Any, Any]
NOISE = effects_of(Point(photons=1e4, adc_bits=12, read_noise=5.0))
PATHS = ("fast", "wave")
# Host runs longer than this many seconds are not repeated.
LONG = 5.0


class Timed:
    """A product that counts its seconds."""

    def __init__(self, product: Any) -> None:
        self._product, self.seconds = product, 0.0

    def __call__(self, step: Any, x: Array, kernel: Array) -> Array:
        """The product."""
        start = time.perf_counter()
        found = self._product(step, x, kernel)
        self.seconds += time.perf_counter() - start
        return np.asarray(found)


def measure(
    run: Callable[[Timed], Array], product: Any, rounds: int
) -> tuple[Array, float, float]:
    """The output, and median seconds of an image and of its products."""
    whole, inside = [], []
    for i in range(rounds + 1):
        timed = Timed(product)
        start = time.perf_counter()
        found = run(timed)
        seconds = time.perf_counter() - start
        if i or seconds > LONG:
            whole.append(seconds)
            inside.append(timed.seconds)
        if seconds > LONG:
            break
    return found, statistics.median(whole), statistics.median(inside)


def error(found: Array, expected: Array) -> float:
    """Largest difference, relative to the largest output."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def products(shapes: Mapping[str, Any], at: Accelerator, threads: int) -> dict[str, Any]:
    """Path -> makers on the host and on the accelerator."""

    def rng() -> np.random.Generator:
        return np.random.default_rng(0)

    return {
        "fast": (FastProduct(shapes), OffloadedFast(shapes, at)),
        "fast, noise": (
            FastProduct(shapes, NOISE, rng()),
            OffloadedFast(shapes, at, effects=NOISE, rng=rng()),
        ),
        "wave": (WaveProduct(shapes, workers=threads), OffloadedWave(shapes, at)),
    }


def rows(
    bundle: Path, at: Accelerator, threads: int, rounds: int, host: Sequence[str]
) -> None:
    """Print one bundle's rows."""
    subject = open_subject(bundle, threads=threads)
    feeds, outputs = read_selfcheck(bundle, open_bundle(bundle))[0]
    program = subject.program
    inputs = {program.inputs[0].name: next(iter(feeds.values()))}
    expected = next(iter(outputs.values()))

    def run(product: Timed) -> Array:
        found = subject.executor.run_with(product, inputs)[program.outputs[0].name]
        return np.asarray(found)

    for path, (here, there) in products(program.shapes, at, threads).items():
        got, whole, inside = measure(run, there, rounds)
        plane = "x".join(map(str, program.optical[0].plane))
        line = f"| {bundle.stem} | {path} | {plane} | {whole * 1e3:.4g} | {inside * 1e3:.4g} "
        if path.split(",")[0] in host:
            own, own_whole, own_inside = measure(run, here, rounds)
            line += f"| {own_whole * 1e3:.4g} | {own_inside * 1e3:.4g} "
            line += f"| {own_whole / whole:.3g} | {own_inside / inside:.3g} "
            line += f"| {'' if 'noise' in path else format(error(got, own), '.1e')} "
        elif host:
            line += "| | | | | "
        print(f"{line}| {error(got, expected):.1e} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--library", choices=("torch", "cupy"), default="torch")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--host", nargs="*", choices=PATHS, default=PATHS, help="paths there")
    options = parser.parse_args()
    library: Any = import_module(options.library)
    xp: Any = import_module(f"array_api_compat.{options.library}")
    at = Accelerator(xp, options.device if options.library == "torch" else None)
    print(f"{options.library} {library.__version__}, {options.threads} host threads")
    columns = ["model", "path", "plane", "ms", "products"]
    if options.host:
        columns += ["host ms", "host products", "ratio", "ratio of products", "to host"]
    columns.append("to ONNX Runtime")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for bundle in options.bundles:
        rows(bundle, at, options.threads, options.rounds, options.host)


if __name__ == "__main__":
    main()
