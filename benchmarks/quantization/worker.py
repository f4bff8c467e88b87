"""Answer test images with a model file or a bundle, in a process of its own.

    python -m benchmarks.quantization.worker SUBJECT CASE COUNT OUT.json

Prints nothing; ``OUT.json`` gets the answers, the seconds and the peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quantization.cases import choose

__all__: list[str] = []

Array = np.ndarray[Any, Any]


def _open(path: Path) -> Callable[[Array], Array]:
    if path.is_dir():
        from edgevit.runtimes.session import load

        session = load(path, threads=1)
        given, answer = session.inputs[0].name, session.outputs[0].name
        return lambda x: np.asarray(session.run({given: x})[answer])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = opened.get_inputs()[0].name
    return lambda x: np.asarray(opened.run(None, {name: x})[0])


def main() -> None:
    """Run and write."""
    subject, name, count, out = sys.argv[1:]
    (case,) = choose([name])
    run, answer = _open(Path(subject)), case.answer(case.find())
    answers, seconds = [], 0.0
    for image in case.images("test", int(count)):
        start = time.perf_counter()
        output = run(image)
        seconds += time.perf_counter() - start
        answers.append(answer(output))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(out).write_text(json.dumps({"answers": answers, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
