"""Run a bundle, or a source model in ONNX Runtime, over many samples; keep the best classes.

    python -m benchmarks.five.worker SUBJECT INPUTS.npy CLASSES.npy

``INPUTS.npy`` is ``[n, ...]``, one sample of batch size one a row; ``CLASSES.npy`` gets the
arg max over the last axis of the first output, ``[n, ...]``. Prints the seconds of the runs.
A process of its own, so that a native crash is a message, and nothing shares its threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _open(path: Path) -> Callable[[Array], Array]:
    if path.is_dir():
        from edgevit.runtimes.session import load

        session = load(path, threads=1, trust=True)
        feed, answer = session.inputs[0].name, session.outputs[0].name
        return lambda x: np.asarray(session.run({feed: x})[answer])
    from benchmarks.recognizer_fp32 import open_session

    source = open_session(path, threads=1)
    name = source.get_inputs()[0].name
    return lambda x: np.asarray(source.run(None, {name: x})[0])


def main(argv: list[str]) -> None:
    """Run one subject."""
    subject, inputs, classes = (Path(text) for text in argv)
    run, samples = _open(subject), np.load(inputs, mmap_mode="r")
    start = time.perf_counter()
    found = [run(np.array(x)[None]).argmax(axis=-1)[0] for x in samples]
    print(f"{time.perf_counter() - start:.3f}")
    np.save(classes, np.stack(found))


if __name__ == "__main__":
    main(sys.argv[1:])
