"""Answer test images with a model file or a bundle, in a process of its own.

    python -m benchmarks.quantization.worker SUBJECT CASE COUNT LEAST SECONDS OUT.json

Prints nothing; ``OUT.json`` gets the answers and the processor seconds. After ``SECONDS`` of
runs it stops at a full hundred of images, ``LEAST`` or more.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quantization.cases import choose

__all__: list[str] = []

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Array]


def _bundle(path: Path) -> Run:
    from edgevit.runtimes.session import load

    session = load(path, threads=1)
    given, answer = session.inputs[0].name, session.outputs[0].name
    return lambda x: np.asarray(session.run({given: x})[answer])


def _onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = opened.get_inputs()[0].name
    return lambda x: np.asarray(opened.run(None, {name: x})[0])


def _openvino(path: Path) -> Run:
    openvino: Any = import_module("openvino")
    # As our own engine does: by default a CPU with bfloat16 units would round the floats.
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    return lambda x: np.array(compiled(x)[0])


def _litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_path=str(path), num_threads=1)
    opened.allocate_tensors()
    given, answer = opened.get_input_details()[0], opened.get_output_details()[0]

    def run(x: Array) -> Array:
        opened.set_tensor(given["index"], _encode(x, given))
        opened.invoke()
        return _decode(np.asarray(opened.get_tensor(answer["index"])), answer)

    return run


def _encode(x: Array, detail: dict[str, Any]) -> Array:
    """Floats as the input's type: itself, or codes."""
    if detail["dtype"] == np.float32:
        return x
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    codes = np.clip(np.rint(x / scale) + zero, limits.min, limits.max)
    return np.asarray(codes.astype(detail["dtype"]))


def _decode(y: Array, detail: dict[str, Any]) -> Array:
    if y.dtype == np.float32:
        return y
    scale, zero = detail["quantization"]
    return np.asarray((y.astype(np.float32) - zero) * np.float32(scale))


_OPENERS: dict[str, Callable[[Path], Run]] = {
    ".edgevit": _bundle,
    ".onnx": _onnx,
    ".xml": _openvino,
    ".tflite": _litert,
}


def main() -> None:
    """Run and write."""
    subject, name, count, least, longest, out = sys.argv[1:]
    (case,) = choose([name])
    run, answer = _OPENERS[Path(subject).suffix](Path(subject)), case.answer(case.find())
    answers: list[Any] = []
    seconds = 0.0
    for image in case.images("test", int(count)):
        start = time.process_time()
        output = run(image)
        seconds += time.process_time() - start
        answers.append(answer(output))
        full = len(answers) >= int(least) and len(answers) % 100 == 0
        if full and seconds > float(longest):
            break
    Path(out).write_text(json.dumps({"answers": answers, "seconds": seconds}))


if __name__ == "__main__":
    main()
