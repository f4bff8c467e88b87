"""How close forms of weights stay to float32 on development images.

    python -m benchmarks.shiftadd.fidelity CASE COUNT [--device]
                                           [--calibration SEED] [SPEC ...]

Accuracy of a few thousand images says little where noise flips answers either way. The
outputs' SQNR and divergence say more. A ``SPEC`` is a pass, ``shiftadd{terms=3}``; an empty
one leaves weights float. Artifacts are lowered and run as in ``benchmarks.shiftadd``. What
only other calibration samples change is no property of a form: ``--calibration`` draws 64
texts of another seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.text_images import default_source, generate, preprocess
from benchmarks.quantization.cases import CALIBRATION, TEST_SEED, Case, choose
from benchmarks.quantization.cells import BUILD
from benchmarks.quantization.development import SEED, development, score
from benchmarks.shiftadd.forms import SOURCE, Form
from benchmarks.shiftadd.subject import Subject, answered

__all__ = ["divergence", "other_samples", "probabilities"]

Array = np.ndarray[Any, Any]
_LEAST = 1e-9  # probabilities below it count as it


def probabilities(output: Array) -> Array:
    """An output as probabilities along its last axis: itself if it has them, else softmax."""
    y = output.astype(np.float64)
    if (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=1e-3):
        return y
    e = np.exp(y - y.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def divergence(true: Sequence[Array], found: Sequence[Array]) -> float:
    """Mean Kullback-Leibler divergence of ``found`` from ``true``, nats a position."""
    total = []
    for y, q in zip(true, found, strict=True):
        p, r = probabilities(y), probabilities(q)
        total.append((p * (np.log(p + _LEAST) - np.log(r + _LEAST))).sum(-1).mean())
    return float(np.mean(total))


def other_samples(case: Case, seed: int) -> Path:
    """As many calibration texts, of another seed.

    Raises:
        ValueError: The case reads no texts, or the seed is that of texts it is judged on.
    """
    if not case.shapes or seed in (SEED, TEST_SEED):
        raise ValueError(f"{case.name}: no other calibration samples of seed {seed}")
    path = BUILD / "calibration" / f"{case.name}-seed-{seed}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = generate(default_source(), "hard", seed, CALIBRATION)
        (name,) = case.shapes
        array = np.stack([preprocess(t.image) for t in texts])
        np.savez(path, **{name: array})  # type: ignore[arg-type]
    return path


def main() -> None:
    """Print a Markdown row for each form."""
    parser = argparse.ArgumentParser(description="Closeness to float32, development images.")
    parser.add_argument("case")
    parser.add_argument("count", type=int)
    parser.add_argument("specs", nargs="*", help="passes; empty: weights stay float")
    parser.add_argument("--device", action="store_true", help="float inputs as in w8a8")
    parser.add_argument("--calibration", type=int, help="seed of other calibration texts")
    options = parser.parse_intermixed_args()  # passes stand behind options
    (case,) = choose([options.case])
    images, labels = development(case, options.count)
    given = options.calibration
    samples = None if given is None else other_samples(case, given)
    subject = Subject(case, 0, not options.device, samples)
    read = case.answer(case.find())

    def outputs(form: Form) -> list[Array]:
        content = subject.made(form).content
        return answered(case, content, iter(images), np.inf, keep=True)[0]

    true = outputs(SOURCE)
    print(f"{case.name}, {options.count} development images")
    print("| form | SQNR, dB | divergence, 1e-4 nats | same answer | to fp32, points |")
    print("|---|---|---|---|---|")
    for spec in options.specs or ("",):
        found = outputs(Form(spec, spec))
        s = score(true, found, read, labels)
        print(
            f"| {spec or 'activations alone'} | {s.sqnr_db:.1f} "
            f"| {1e4 * divergence(true, found):.0f} | {s.agreement:.4f} "
            f"| {s.change:+.2f} ± {s.half:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
