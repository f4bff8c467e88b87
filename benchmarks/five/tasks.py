"""Measure what counts to a user: the words read, the garments told apart."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import Labeled, load_full, load_slice
from benchmarks.corpus.fashion import preprocess as fashion_preprocess
from benchmarks.corpus.recognizer import characters, collapse
from benchmarks.corpus.text_images import default_source, generate
from benchmarks.corpus.text_images import preprocess as text_preprocess
from benchmarks.five.cases import Case, Setting

__all__ = ["TaskFigure", "measure"]

Array = np.ndarray[Any, Any]
ACCURACY_LIMIT = 0.001  # 0.1 points
TEXT_SEED = 1
TIMEOUT_S = 3600
# The products of these models are small: threads of numpy's BLAS would only wait for each
# other (measured: 6 times the processor time on fashion_vit).
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class TaskFigure:
    """A task measured on the same samples with the source and with an artifact.

    Attributes:
        task: ``text`` or ``fashion``.
        samples: How many.
        same: How many have the same answer from both.
        source: Share of right answers of the source.
        artifact: Share of right answers of the artifact.
        passed: Whether it is close enough.
        differ: The first answers that differ, one line each.
        seconds: Of the artifact's runs.
    """

    task: str
    samples: int
    same: int
    source: float
    artifact: float
    passed: bool
    differ: tuple[str, ...]
    seconds: float

    def text(self) -> str:
        """One line."""
        verdict = "pass" if self.passed else "FAIL"
        return (
            f"{self.same} of {self.samples} answers as the source's; right: "
            f"{self.artifact:.4f}, source {self.source:.4f}; {self.seconds:.0f} s, "
            f"{1e3 * self.seconds / self.samples:.1f} ms each: {verdict}"
        )


def measure(case: Case, setting: Setting, bundle: Path, use_slice: bool) -> TaskFigure:
    """Measure the task of a case on a bundle and on its source.

    Raises:
        CorpusUnavailableError: The images cannot be had.
        RuntimeError: A worker failed.
    """
    if case.task == "text":
        return _text(case.find(), bundle, setting.texts)
    return _fashion(case.find(), bundle, use_slice)


def _text(source: Path, bundle: Path, count: int) -> TaskFigure:
    inputs, labels = _text_samples(count)
    names = characters(source)
    expected = [collapse(best, names) for best in _source_texts(source, count)]
    answer, seconds = classes(bundle, inputs)
    found = [collapse(best, names) for best in answer]
    differ = [
        f"image {i}: source {e!r}, artifact {f!r}, label {labels[i]!r}"
        for i, (e, f) in enumerate(zip(expected, found, strict=True))
        if e != f
    ]
    return TaskFigure(
        task="text",
        samples=count,
        same=count - len(differ),
        source=_share(expected, labels),
        artifact=_share(found, labels),
        passed=not differ,
        differ=tuple(differ[:10]),
        seconds=seconds,
    )


@cache
def _source_texts(source: Path, count: int) -> Array:
    return classes(source, _text_samples(count)[0])[0]


@cache
def _source_garments(source: Path, use_slice: bool) -> Array:
    return classes(source, fashion_preprocess(_fashion_data(use_slice).images))[0]


def _share(found: Sequence[str], labels: Sequence[str]) -> float:
    return sum(f == label for f, label in zip(found, labels, strict=True)) / len(labels)


@cache
def _text_samples(count: int) -> tuple[Array, tuple[str, ...]]:
    samples = list(generate(default_source(), "hard", TEXT_SEED, count))
    tensors = np.concatenate([text_preprocess(s.image) for s in samples])
    return tensors, tuple(s.label for s in samples)


def _fashion(source: Path, bundle: Path, use_slice: bool) -> TaskFigure:
    data = _fashion_data(use_slice)
    inputs = fashion_preprocess(data.images)
    expected = _source_garments(source, use_slice)
    found, seconds = classes(bundle, inputs)
    source_right = float(np.mean(expected == data.labels))
    found_right = float(np.mean(found == data.labels))
    changed = np.flatnonzero(expected != found)
    count = len(data.labels)
    return TaskFigure(
        task="fashion",
        samples=count,
        same=count - len(changed),
        source=source_right,
        artifact=found_right,
        # Both shares are multiples of 1/n: the slack only undoes their rounding.
        passed=abs(found_right - source_right) <= ACCURACY_LIMIT + math.ulp(1.0),
        differ=tuple(
            f"image {i}: source {expected[i]}, artifact {found[i]}, label {data.labels[i]}"
            for i in changed[:10]
        ),
        seconds=seconds,
    )


@cache
def _fashion_data(use_slice: bool) -> Labeled:
    return load_slice() if use_slice else load_full("test")


def classes(subject: Path, inputs: Array) -> tuple[Array, float]:
    """Best classes of a bundle or source model for each sample, and the seconds it took.

    Raises:
        RuntimeError: The worker failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="edgevit-five-") as folder:
        given, made = Path(folder) / "inputs.npy", Path(folder) / "classes.npy"
        np.save(given, inputs)
        command = [sys.executable, "-m", "benchmarks.five.worker"]
        done = subprocess.run(
            [*command, str(subject), str(given), str(made)],
            env={**os.environ, **_ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            tail = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise RuntimeError(f"{subject.name}: {tail[0]}")
        return np.load(made), float(done.stdout)
