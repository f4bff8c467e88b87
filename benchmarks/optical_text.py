"""The PP-OCRv4 recognizer on the ideal 4f device: is every text the source model's?

python -m benchmarks.optical_text [--count 50]; fast path, generated text images, seed 1.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.corpus.recognizer import characters, decode
from benchmarks.corpus.text_images import default_source, generate, preprocess
from benchmarks.optical_exactness import find, opened
from benchmarks.recognizer_fp32 import open_session


def main() -> None:
    """Print how many texts agree, and the largest error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    count = parser.parse_args().count
    path = find("ppocrv4_rec")
    session, names = open_session(path, 1), characters(path)
    feed = session.get_inputs()[0].name
    same, worst = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        _, executor = opened(path, Path(folder), "optical-4f", "optical", 1)
        for sample in generate(default_source(), "clean", 1, count):
            image = preprocess(sample.image)
            expected = session.run(None, {feed: image})[0]
            found = next(iter(executor.run({feed: image}).values()))
            same += decode(found[0], names) == decode(expected[0], names)
            worst = max(worst, float(abs(found - expected).max() / abs(expected).max()))
        executor.close()
    print(f"texts identical: {same} of {count}; largest error {worst:.2e} of the maximum")


if __name__ == "__main__":
    main()
