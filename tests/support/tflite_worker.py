"""Child process: runs many ``.tflite`` files, so that a native crash is a test's result.

Reads a pickle of ``[(content, feeds), ...]`` from the file in argv[1]; writes one of
``[(outputs | None, error, operators, outside), ...]`` to the file in argv[2]. argv[3] names
the kernels: an ``OpResolverType``, ``AUTO`` for the built-in ones with XNNPACK.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any


def _outside(interpreter: Any, operators: list[dict[str, Any]]) -> list[str]:
    """Operators that run outside of the delegate.

    The interpreter lists the delegated operators and, behind them, the delegates. Walking
    back from the outputs, a tensor comes from a delegate if one has it as its output.
    """
    makers: dict[int, dict[str, Any]] = {}
    for operator in operators:
        makers |= {int(t): operator for t in operator["outputs"]}
    seen: dict[int, dict[str, Any]] = {}
    queue = [int(d["index"]) for d in interpreter.get_output_details()]
    while queue:
        maker = makers.get(queue.pop())
        if maker is not None and maker["index"] not in seen:
            seen[maker["index"]] = maker
            queue += [int(t) for t in maker["inputs"]]
    return [op["op_name"] for _, op in sorted(seen.items()) if op["op_name"] != "DELEGATE"]


def _run(
    content: bytes, feeds: dict[str, Any], kernels: str
) -> tuple[Any, str, list[str], list[str]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType[kernels]
    try:
        interpreter = Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=resolver
        )
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], feeds[detail["name"]])
        interpreter.invoke()
    except (ValueError, RuntimeError) as e:
        return None, str(e), [], []
    outputs = {
        d["name"]: interpreter.get_tensor(d["index"]).copy()
        for d in interpreter.get_output_details()
    }
    operators = interpreter._get_ops_details()
    names = [d["op_name"] for d in operators if d["op_name"] != "DELEGATE"]
    return outputs, "", names, _outside(interpreter, operators)


def main() -> None:
    """Run all jobs; results so far survive a crash."""
    jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
    results = []
    for content, feeds in jobs:
        results.append(_run(content, feeds, sys.argv[3]))
        Path(sys.argv[2]).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main()
