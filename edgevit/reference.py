"""The reference: ONNX Runtime on the *source* model, graph optimizations off.

The only place in the compiler that runs ONNX Runtime. It runs in a child process, so that a
crash of the native library is an error message and not a dead compiler. This module is also
that child's program: ``python -m edgevit.reference DIRECTORY``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.errors import InputError

__all__ = ["Arrays", "Reference", "run_reference"]

Arrays = dict[str, "np.ndarray[Any, Any]"]
TIMEOUT_S = 1800
_MODULE = "edgevit.runtimes.ort:onnxruntime"  # imports it with telemetry off


@dataclass(frozen=True)
class Reference:
    """What the source model computes.

    Attributes:
        outputs: For each sample, output name -> array.
        traces: For the first samples, value name -> array of every traced value.
        version: ONNX Runtime's version.
    """

    outputs: tuple[Arrays, ...]
    traces: tuple[Arrays, ...]
    version: str


def run_reference(
    model: bytes | Path,
    samples: Sequence[Mapping[str, np.ndarray[Any, Any]]],
    trace: int = 0,
    what: str = "source",
) -> Reference:
    """Run a serialized ONNX model on every sample.

    Args:
        model: ONNX model with its weights inside, at its own opset, or the file of one: then
            its weights are in the child's memory only.
        samples: One mapping input name -> array per sample.
        trace: Number of leading samples for which every node output is kept.
        what: Which model this is, for errors: the ``source``, or one made from it.

    Raises:
        InputError: ONNX Runtime refuses the model, fails on a sample, or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="edgevit-reference-") as name:
        folder = Path(name)
        file = folder / "model.onnx"
        if isinstance(model, Path):
            file.symlink_to(model.resolve())
        else:
            file.write_bytes(model)
        for i, sample in enumerate(samples):
            np.savez(folder / f"in{i}.npz", **_named(sample))
        _call(folder, len(samples), min(trace, len(samples)), what)
        outputs = tuple(_load(folder / f"out{i}.npz") for i in range(len(samples)))
        traces = tuple(_load(folder / f"trace{i}.npz") for i in range(trace))
        return Reference(outputs, traces, (folder / "version").read_text())


def _named(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Arrays under positional keys: value names may hold any character."""
    named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays.values())}
    named["names"] = np.array(list(arrays), dtype=np.str_)
    return named


def _load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as data:
        return {str(name): data[f"a{i}"] for i, name in enumerate(data["names"])}


def _call(folder: Path, count: int, trace: int, what: str) -> None:
    # -P and PYTHONPATH: the child imports what the parent does, never the working directory.
    arguments = [str(folder), str(count), str(trace)]
    command = [sys.executable, "-P", "-m", "edgevit.reference", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise InputError(
            f"the reference did not finish within {TIMEOUT_S} s on {count} samples",
            hint="give fewer samples with --inputs",
        ) from e
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:]
        why = said or [f"it ended with status {done.returncode}"]
        raise InputError(
            f"ONNX Runtime cannot run the {what} model: {why[0]}",
            hint="check that the model runs in ONNX Runtime by itself",
        )


def _session(model: bytes | str) -> Any:
    ort = registry.load_attribute(_MODULE)()

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _with_all_outputs(model: bytes) -> bytes:
    import onnx

    proto = onnx.load_model_from_string(model)
    have = {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        for name in node.output:
            if name and name not in have:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
                have.add(name)
    return bytes(proto.SerializeToString())


def _run(session: Any, feeds: Arrays) -> Arrays:
    names = [o.name for o in session.get_outputs()]
    kept = {i.name: feeds[i.name] for i in session.get_inputs() if i.name in feeds}
    found = zip(names, session.run(None, kept), strict=True)
    return {n: a for n, a in found if isinstance(a, np.ndarray)}


def _main(folder: Path, count: int, trace: int) -> None:
    ort = registry.load_attribute(_MODULE)()

    model = folder / "model.onnx"
    session = _session(str(model))
    tracer = _session(_with_all_outputs(model.read_bytes())) if trace else None
    for i in range(count):
        feeds = _load(folder / f"in{i}.npz")
        np.savez(folder / f"out{i}.npz", **_named(_run(session, feeds)))
        if tracer is not None and i < trace:
            np.savez(folder / f"trace{i}.npz", **_named(_run(tracer, feeds)))
    (folder / "version").write_text(str(ort.__version__))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
