"""The graph that ONNX Runtime runs, after its own optimizations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

__all__ = ["optimized"]

_SCRIPT = """
import sys
from edgevit.runtimes.ort import onnxruntime
ort = onnxruntime()
options = ort.SessionOptions()
options.optimized_model_filepath = sys.argv[2]
options.log_severity_level = 4
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


def optimized(model: Path, out: Path) -> onnx.ModelProto:
    """Open a session in a child process and read what it wrote."""
    command = [sys.executable, "-c", _SCRIPT, str(model), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return onnx.load_model(out)
