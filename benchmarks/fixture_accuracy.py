"""Measure the fixtures' float32 accuracy on the 10,000 official test images.

    python -m benchmarks.fixture_accuracy [--slice]

Runs each file in ONNX Runtime, one image at a time, without optimizations; prints one JSON
object. ``--slice`` measures on the 500 committed images, which needs no download.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from benchmarks.corpus.fashion import Labeled, load_full, load_slice, preprocess
from benchmarks.corpus.store import FIXTURES, CorpusUnavailableError
from benchmarks.recognizer_fp32 import open_session

__all__ = ["accuracy"]


def accuracy(path: Path, data: Labeled) -> float:
    """Return the share of images whose largest logit is at their label, 0..1."""
    session = open_session(path, threads=1)
    answers = [
        int(session.run(["logits"], {"x": image[None]})[0].argmax())
        for image in preprocess(data.images)
    ]
    return float(np.mean(np.array(answers) == data.labels))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the fixtures' accuracy.")
    parser.add_argument("--slice", action="store_true", help="use the 500 committed images")
    options = parser.parse_args()
    try:
        data = load_slice() if options.slice else load_full("test")
    except CorpusUnavailableError as error:
        raise SystemExit(str(error)) from error
    figures = {}
    for path in sorted((FIXTURES / "models").glob("fashion_*.onnx")):
        share = accuracy(path, data)
        error_bar = math.sqrt(share * (1 - share) / len(data.labels))
        figures[path.name] = {"accuracy": share, "standard_error": round(error_bar, 4)}
    print(json.dumps({"images": len(data.labels), "models": figures}, indent=2))


if __name__ == "__main__":
    main()
