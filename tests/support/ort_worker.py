"""Run ONNX models of one operator each in ONNX Runtime, in a process of its own.

Usage: ``python ort_worker.py JOBS.pkl RESULTS.npz``; a job is (model bytes, feeds).
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np


def main(jobs: Path, results: Path) -> None:
    """Write result ``i`` of job ``j`` as array ``j.i``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    arrays = {}
    for j, (model, feeds) in enumerate(pickle.loads(jobs.read_bytes())):
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        for i, value in enumerate(session.run(None, feeds)):
            arrays[f"{j}.{i}"] = value
    np.savez(results, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
