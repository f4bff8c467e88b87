"""The accuracy of the trained models on Fashion-MNIST, upscaled as in their training.

    python -m benchmarks.zoo_tasks SUBJECT FIRST END CLASSES.npy     (the worker)

``CLASSES.npy`` gets the best class of each test image from ``FIRST`` up to ``END``. Two
workers of one thread each share the images: one image is too little work for two threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import MEAN, STD, load_full
from benchmarks.corpus.store import CACHE, sha256

__all__ = ["Accuracy", "accuracy", "upscale"]

Array = np.ndarray[Any, Any]
_WORKERS = 2
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Accuracy:
    """Right answers on the same samples.

    Attributes:
        samples: How many.
        source: Right answers of the source model, 0..1.
        artifact: Right answers of the artifact, 0..1.
        same: How many answers are the same.
        seconds: Of the artifact's runs, summed over the workers.
    """

    samples: int
    source: float
    artifact: float
    same: int
    seconds: float


def accuracy(source: Path, bundle: Path, samples: int, timeout_s: float) -> Accuracy:
    """Measure a bundle against its source; the source's answers are kept in the cache.

    Raises:
        CorpusUnavailableError: The images cannot be had.
        RuntimeError: A run failed or took too long.
    """
    labels = load_full("test").labels[:samples]
    kept = CACHE / "answers" / f"{sha256(source)[:16]}-{samples}.npy"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, _classes(source, samples, timeout_s)[0])
    expected = np.load(kept)
    found, seconds = _classes(bundle, samples, timeout_s)
    return Accuracy(
        samples,
        float(np.mean(expected == labels)),
        float(np.mean(found == labels)),
        int(np.sum(found == expected)),
        seconds,
    )


def _classes(subject: Path, samples: int, timeout_s: float) -> tuple[Array, float]:
    """Best classes of the first images, in order, and the seconds of all runs."""
    edges = [samples * i // _WORKERS for i in range(_WORKERS + 1)]
    spans = [(a, b) for a, b in pairwise(edges) if a < b]
    with ThreadPoolExecutor(_WORKERS) as pool:
        jobs = [pool.submit(_span, subject, a, b, timeout_s) for a, b in spans]
        found = [job.result() for job in jobs]
    return np.concatenate([classes for classes, _ in found]), sum(s for _, s in found)


def _span(subject: Path, first: int, end: int, timeout_s: float) -> tuple[Array, float]:
    with tempfile.TemporaryDirectory(prefix="edgevit-zoo-") as folder:
        made = Path(folder) / "classes.npy"
        command = [sys.executable, "-m", "benchmarks.zoo_tasks"]
        try:
            done = subprocess.run(
                [*command, str(subject), str(first), str(end), str(made)],
                env={**os.environ, **_ONE_THREAD},
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as e:
            raise RuntimeError(f"{subject.name}: not done after {timeout_s:.0f} s") from e
        if done.returncode:
            tail = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise RuntimeError(f"{subject.name}: {tail[0]}")
        return np.load(made), float(done.stdout)


def upscale(image: Array, size: tuple[int, int]) -> Array:
    """One ``[28, 28]`` uint8 image as ``[1, 3, *size]`` float32, normalized."""
    from PIL import Image

    grey = Image.fromarray(image.astype(np.float32))
    large = np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)
    normal = (large / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.repeat(normal[None, None], 3, axis=1)


def _open(path: Path) -> tuple[Callable[[Array], Array], tuple[int, int]]:
    if path.is_dir():
        from edgevit.runtimes.session import load

        session = load(path, threads=1, trust=True)
        given, answer = session.inputs[0], session.outputs[0].name
        size = (int(given.shape[2]), int(given.shape[3]))
        return lambda x: np.asarray(session.run({given.name: x})[answer]), size
    from benchmarks.recognizer_fp32 import open_session

    source = open_session(path, threads=1)
    node = source.get_inputs()[0]
    size = (int(node.shape[2]), int(node.shape[3]))
    return lambda x: np.asarray(source.run(None, {node.name: x})[0]), size


def main(argv: list[str]) -> None:
    """Run one subject."""
    subject, first, end, classes = Path(argv[0]), int(argv[1]), int(argv[2]), Path(argv[3])
    run, size = _open(subject)
    start = time.perf_counter()
    images = load_full("test").images[first:end]
    found = [int(run(upscale(image, size)).argmax()) for image in images]
    print(f"{time.perf_counter() - start:.3f}")
    np.save(classes, np.asarray(found))


if __name__ == "__main__":
    main(sys.argv[1:])
