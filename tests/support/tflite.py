"""Lowers graphs and runs the artifacts in a child process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Binding
from edgevit.target import load_target
from edgevit.targets.litert.lower import LiteRTBackend

__all__ = ["Result", "lower", "run_all", "to_artifact", "to_source"]

Array = np.ndarray[Any, Any]
_WORKER = Path(__file__).with_name("tflite_worker.py")


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        outputs: By source name, in source layout; empty after an error.
        error: The interpreter's message; empty if it ran.
        operators: Names of the operators.
        outside: Names of those that XNNPACK did not take.
    """

    outputs: Mapping[str, Array]
    error: str
    operators: tuple[str, ...]
    outside: tuple[str, ...]


def lower(model: ir.Model, precision: str = "fp32", io: Any = "source") -> Lowered:
    """Lower for linux-x86."""
    target = load_target("linux-x86")
    backend = LiteRTBackend()
    for node in model.graph:
        reason = backend.unsupported(node, target, precision)
        assert reason is None, f"{node.op_type}: {reason}"
    return backend.lower(model, target, LowerOptions(precision, io, "m"))


def to_artifact(binding: Binding, array: Array) -> Array:
    """Bring a source tensor into the artifact's form."""
    made = array if binding.perm is None else array.transpose(binding.perm)
    shaped = made.reshape(binding.artifact_shape).astype(binding.artifact_dtype)
    return np.array(shaped, order="C").reshape(binding.artifact_shape)


def to_source(binding: Binding, array: Array) -> Array:
    """Inverse of ``to_artifact``."""
    if binding.perm is None:
        return array.reshape(binding.shape).astype(binding.dtype)
    moved = array.reshape([binding.shape[p] for p in binding.perm])
    return moved.transpose(np.argsort(binding.perm)).astype(binding.dtype)


def run_all(
    jobs: Sequence[tuple[Lowered, Mapping[str, Array]]], kernels: str = "AUTO"
) -> list[Result]:
    """Run artifacts on source inputs, all in one child process.

    Args:
        jobs: Artifacts with their inputs.
        kernels: ``AUTO`` (XNNPACK), ``BUILTIN_WITHOUT_DEFAULT_DELEGATES`` or ``BUILTIN_REF``.

    Raises:
        RuntimeError: The child died; the message names the job.
    """
    packed = [
        (
            next(iter(lowered.files.values())),
            {b.artifact: to_artifact(b, feeds[b.name]) for b in lowered.part.inputs},
        )
        for lowered, feeds in jobs
    ]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "jobs"), Path(folder, "results")
        before.write_bytes(pickle.dumps(packed))
        command = [sys.executable, str(_WORKER), str(before), str(after), kernels]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        raw = pickle.loads(after.read_bytes()) if after.exists() else []
    if child.returncode != 0:
        raise RuntimeError(
            f"the interpreter died in job {len(raw)} (exit {child.returncode}): "
            f"{child.stderr[-500:]}"
        )
    return [_result(lowered, r) for (lowered, _), r in zip(jobs, raw, strict=True)]


def _result(lowered: Lowered, raw: tuple[Any, str, list[str], list[str]]) -> Result:
    outputs, error, operators, outside = raw
    found = (
        {}
        if outputs is None
        else {b.name: to_source(b, outputs[b.artifact]) for b in lowered.part.outputs}
    )
    return Result(found, error, tuple(operators), tuple(outside))
