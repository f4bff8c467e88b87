"""Measure what a text recognizer reads in float32, in ONNX Runtime, without optimizations.

    python -m benchmarks.recognizer_fp32 [--model NAME] [--count N --seed S]

Prints one JSON object. Without ``--count`` it measures both published settings: 200 images
of seed 1 and 1,000 of seed 2.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.recognizer import characters, decode, edit_distance
from benchmarks.corpus.text_images import (
    Variant,
    default_source,
    generate,
    preprocess,
)

_MODELS = ("ppocrv4_rec", "ppocrv6_rec_small")
_SETTINGS = ((200, 1), (1000, 2))
_VARIANTS: tuple[Variant, ...] = ("clean", "hard")


@dataclass(frozen=True)
class Figures:
    """What was measured on one set of images.

    Attributes:
        variant: ``clean`` or ``hard``.
        count: Number of images.
        seed: Seed of the images.
        exact: Share of images whose text is exactly the label.
        standard_error: Of ``exact``.
        cer: Character error rate: edit distance over label length, both summed.
    """

    variant: Variant
    count: int
    seed: int
    exact: float
    standard_error: float
    cer: float


def open_session(path: Path, threads: int) -> Any:
    """Open a model in ONNX Runtime on the CPU, graph optimizations off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def measure(
    session: Any, names: tuple[str, ...], variant: Variant, count: int, seed: int
) -> Figures:
    """Read ``count`` images and compare with their labels."""
    feed = session.get_inputs()[0].name
    right = wrong = length = 0
    for sample in generate(default_source(), variant, seed, count):
        scores = session.run(None, {feed: preprocess(sample.image)})[0]
        text = decode(scores[0], names)
        right += text == sample.label
        wrong += edit_distance(text, sample.label)
        length += len(sample.label)
    exact = right / count
    error = math.sqrt(exact * (1 - exact) / count)
    return Figures(
        variant, count, seed, round(exact, 4), round(error, 4), round(wrong / length, 4)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a text recognizer in float32.")
    parser.add_argument("--model", choices=_MODELS, default=_MODELS[0])
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    settings = _SETTINGS if options.count is None else ((options.count, options.seed),)
    path = fetch_model(options.model)
    session, names = open_session(path, options.threads), characters(path)
    figures = [
        asdict(measure(session, names, variant, count, seed))
        for count, seed in settings
        for variant in _VARIANTS
    ]
    print(json.dumps({"model": options.model, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
