"""Child process: runs many ``.tflite`` files, so that a native crash is a test's result.

Reads a pickle of ``[(content, feeds), ...]`` from the file in argv[1]; writes one of
``[(outputs | None, error, operators), ...]`` to the file in argv[2].
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any


def _run(content: bytes, feeds: dict[str, Any]) -> tuple[Any, str, list[str]]:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], feeds[detail["name"]])
        interpreter.invoke()
    except (ValueError, RuntimeError) as e:
        return None, str(e), []
    outputs = {
        d["name"]: interpreter.get_tensor(d["index"]).copy()
        for d in interpreter.get_output_details()
    }
    # After delegation, operators listed after the last DELEGATE's inputs are those that
    # still run outside; the plan itself is not exposed, so all names are reported.
    return outputs, "", [d["op_name"] for d in interpreter._get_ops_details()]


def main() -> None:
    """Run all jobs; results so far survive a crash."""
    jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
    results = []
    for content, feeds in jobs:
        results.append(_run(content, feeds))
        Path(sys.argv[2]).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main()
