"""A timing worker: opens one artifact, then runs it once per line read from stdin.

``python -m edgevit.runtimes.bench_worker SUBJECT THREADS [name=1,3,224,224 ...]``. One
process per subject, so that the interleaved subjects share no caches, pools or allocators.
Each answer is one JSON line: wall and process CPU milliseconds, and resident megabytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.bundle import TensorInfo
from edgevit.errors import EdgevitError, InputError, probe_package
from edgevit.runtimes.openvino import compiled_model
from edgevit.runtimes.ort import onnxruntime
from edgevit.runtimes.session import load

__all__ = ["main"]


class _OnnxSubject:
    """A plain ONNX file in ONNX Runtime with its own optimizations on."""

    def __init__(self, path: Path, threads: int, shapes: dict[str, tuple[int, ...]]) -> None:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise InputError(f"ONNX Runtime refuses {path}: {str(e).splitlines()[0]}") from e
        self.version = str(ort.__version__)
        self.engine = "ort"
        self.feeds = {
            i.name: _draw(_shape(i.name, i.shape, shapes), _DTYPES[i.type])
            for i in self._session.get_inputs()
        }

    def run(self) -> None:
        self._session.run(None, self.feeds)


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def _shape(
    name: str, declared: list[Any], shapes: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
    if name in shapes:
        return shapes[name]
    if not all(isinstance(d, int) and d > 0 for d in declared):
        raise InputError(
            f"input {name!r} has symbolic dimensions {declared}",
            hint=f"give --shape {name}=... with numbers",
        )
    return tuple(declared)


def _draw(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape).astype(dtype)


class _TfliteSubject:
    """A bare ``.tflite`` file, whoever wrote it: inputs in, invoke, outputs out."""

    engine = "litert"

    def __init__(self, path: Path, threads: int) -> None:
        availability = probe_package(self.engine, "ai-edge-litert", "litert")
        availability.require()
        from ai_edge_litert.interpreter import Interpreter

        self.version = availability.version
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise InputError(f"LiteRT refuses {path}: {str(e).splitlines()[0]}") from e
        self._feeds = [
            (d["index"], _draw(tuple(d["shape"].tolist()), np.dtype(d["dtype"]).name))
            for d in self._interpreter.get_input_details()
        ]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def run(self) -> None:
        for index, array in self._feeds:
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        for index in self._outputs:
            self._interpreter.get_tensor(index)


class _OpenVINOSubject:
    """A bare OpenVINO ``.xml``, whoever wrote it, compiled as our engine compiles."""

    engine = "openvino"

    def __init__(self, path: Path, threads: int) -> None:
        self.version = probe_package(self.engine, "openvino", "openvino").version
        compiled = compiled_model(path, threads)
        self._request = compiled.create_infer_request()
        self._feeds = [
            _draw(tuple(port.get_shape()), np.dtype(port.get_element_type().to_dtype()).name)
            for port in compiled.inputs
        ]

    def run(self) -> None:
        self._request.infer(self._feeds, share_outputs=True)


class _BundleSubject:
    """A bundle through its own runtime, as a device would run it."""

    def __init__(self, path: Path, threads: int, shapes: dict[str, tuple[int, ...]]) -> None:
        # The entry alone; whether code is trusted was decided where the worker was started.
        self._session = load(path, threads=threads, trust=True, shapes=shapes)
        entries = self._session.manifest.entries
        entry = next(e for e in entries if _has(e.inputs, shapes))
        names = dict.fromkeys(p.engine for p in entry.parts)
        engines = [registry.load("engines", name)().probe() for name in names]
        self.engine = "+".join(e.name for e in engines)
        self.version = "+".join(e.version for e in engines)
        self.feeds = {i.name: _draw(i.shape, i.dtype) for i in entry.inputs}

    def run(self) -> None:
        self._session.run(self.feeds)


def _has(inputs: Sequence[TensorInfo], shapes: dict[str, tuple[int, ...]]) -> bool:
    return all(shapes.get(i.name, i.shape) == i.shape for i in inputs)


def _peak_mb() -> float:
    """Most resident memory of this process so far, in MiB.

    On Linux not ``ru_maxrss``: a new program inherits that from the process that started it
    (getrusage(2)), so a small engine would be charged with its parent's memory.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(fields["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes, kibibytes


def _once(subject: Any) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    subject.run()
    return {
        "wall_ms": (time.perf_counter() - wall) * 1e3,
        "cpu_ms": (time.process_time() - cpu) * 1e3,
        "rss_mb": _peak_mb(),
    }


def _open(path: Path, threads: int, shapes: dict[str, tuple[int, ...]]) -> Any:
    if path.is_dir():
        return _BundleSubject(path, threads, shapes)
    if path.suffix == ".tflite":
        return _TfliteSubject(path, threads)
    if path.suffix == ".xml":
        return _OpenVINOSubject(path, threads)
    return _OnnxSubject(path, threads, shapes)


def main(argv: list[str]) -> int:
    """Serve runs until stdin closes; a failure to open is one JSON line with ``error``."""
    path, threads = Path(argv[0]), int(argv[1])
    shapes = {
        name: tuple(int(d) for d in dims.split(","))
        for name, _, dims in (text.partition("=") for text in argv[2:])
    }
    try:
        subject = _open(path, threads, shapes)
    except EdgevitError as e:
        print(json.dumps({"error": e.message, "hint": e.hint}), flush=True)  # noqa: T201
        return e.exit_code
    ready = {"engine": subject.engine, "version": subject.version}
    print(json.dumps(ready), flush=True)  # noqa: T201  (stdout is this worker's protocol)
    for _ in sys.stdin:
        print(json.dumps(_once(subject)), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
