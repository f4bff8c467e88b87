"""Child process: run each ``*.onnx`` of a folder on its ``*.npz`` with ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    for path in sorted(folder.glob("*.onnx")):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        with np.load(path.with_suffix(".npz")) as feeds:
            results = session.run(None, dict(feeds))
        names = [o.name for o in session.get_outputs()]
        np.savez(path.with_suffix(".out.npz"), **dict(zip(names, results, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
