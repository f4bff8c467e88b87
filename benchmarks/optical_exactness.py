"""Whole networks on the ideal 4f device against ONNX Runtime: error, frames, seconds.

python -m benchmarks.optical_exactness [--wave] [--samples N] [--plane RxC]
    [--attention joint] NAME|FILE...

Names are fixtures and cached models without ``.onnx``. Samples are seeded and normal, or the
committed Fashion-MNIST images for the networks of that size. ``--wave`` runs the wave path.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.loading import load
from edgevit.model import shape_of
from edgevit.reference import run_reference
from edgevit.target import load_target

REPO = Path(__file__).parents[1]
FOLDERS = (REPO / "tests/fixtures/models", REPO / ".cache/models")
IMAGES = REPO / "tests/fixtures/data/fashion_test_500.npz"
SHAPES = {"ppocrv4_rec": {"x": (1, 3, 48, 320)}}
Array = np.ndarray[Any, Any]


def find(name: str) -> Path:
    """The file of a model by name."""
    if Path(name).is_file():
        return Path(name)
    for folder in FOLDERS:
        if (folder / f"{name}.onnx").is_file():
            return folder / f"{name}.onnx"
    raise SystemExit(f"{name}: no such model; `make models` fetches the cached ones")


def images(name: str, inputs: list[Any], count: int) -> list[dict[str, Array]]:
    """Samples of a model's inputs."""
    if name.startswith(("fashion", "convshare")):
        with np.load(IMAGES) as data:
            key = next(k for k in data.files if data[k].ndim >= 3)
            raw = data[key][:count].reshape(-1, 1, 28, 28).astype(np.float32)
        scale = 255.0 if raw.max() > 1.5 else 1.0
        ready = ((raw / scale - 0.286) / 0.353).astype(np.float32)
        return [{str(inputs[0].name): one[None]} for one in ready]
    rng = np.random.default_rng(7)
    return [
        {str(v.name): rng.standard_normal(shape_of(v)).astype(np.float32) for v in inputs}
        for _ in range(count)
    ]


def opened(path: Path, folder: Path, target: str, engine: str, threads: int) -> Any:
    """Canonicalize, lower and open a model; with its loaded source."""
    source = load(path, SHAPES.get(path.stem, {}))
    model = source.model.clone()
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    backend = registry.load("backends", "optical")()
    options = LowerOptions("fp32", "source", "model")
    lowered = backend.lower(model, load_target(target), options)
    for file, content in lowered.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    part = lowered.part
    engine_of = registry.load("engines", engine)()
    return source, engine_of.open(folder / part.artifact, part, threads=threads)


def measure(name: str, engine: str, target: str, count: int, threads: int) -> str:
    """One row of the table."""
    from edgevit.sim4f.program import frame_count

    path = find(name)
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        source, executor = opened(path, Path(temporary), target, engine, threads)
        planned = time.perf_counter() - start
        samples = images(path.stem, list(source.model.graph.inputs), count)
        expected = run_reference(path.read_bytes(), samples).outputs
        worst, seconds = 0.0, []
        for sample, reference in zip(samples, expected, strict=True):
            start = time.perf_counter()
            found = executor.run(sample)
            seconds.append(time.perf_counter() - start)
            for key, array in reference.items():
                error = np.abs(found[key] - array).max() / np.abs(array).max()
                worst = max(worst, float(error))
        steps = executor.program.optical
        frames = sum(frame_count(s, executor.program.shapes) for s in steps)
        shown = sum(
            frame_count(s, executor.program.shapes) * len(s.signs.exposures) for s in steps
        )
        macs = sum(s.macs for s in steps)
        executor.close()
    return (
        f"| {path.stem} | {engine} | {target} | {len(steps)} | {frames} | {shown} "
        f"| {macs / 1e6:.1f} | {worst:.2e} | {count} | {planned:.1f} | {min(seconds):.3f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--wave", action="store_true")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plane", default="1080x1920")
    parser.add_argument("--attention", choices=("mask", "joint"), default="mask")
    given = parser.parse_args()
    print(
        "| model | path | target | layers | frames | exposures | M MAC | max error | n "
        "| planning s | best s |"
    )
    print("|" + "---|" * 11, flush=True)
    engine = "optical-wave" if given.wave else "optical"
    target = f"optical-4f:plane={given.plane},attention={given.attention}"
    for name in given.models:
        print(measure(name, engine, target, given.samples, given.threads), flush=True)


if __name__ == "__main__":
    main()
