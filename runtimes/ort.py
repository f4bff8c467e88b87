"""Runs ``.onnx`` artifacts with ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, UsageError, probe_package
from edgevit.runtimes.engine import Arrays, Closing

__all__ = ["Optimization", "OrtEngine", "OrtExecutor", "onnxruntime"]

Optimization = Literal["all", "extended", "basic", "off"]
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}
_FATAL_ONLY = 4


class OrtExecutor(Closing):
    """One opened ``.onnx`` file."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [o.name for o in session.get_outputs()]

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; artifact input name -> array to artifact output name -> array.

        Raises:
            InputError: A name, shape or dtype is not the artifact's.
            ArtifactError: An operator of the artifact fails.
        """
        if self._session is None:
            raise InputError("this ONNX Runtime session is closed")
        try:
            found = self._session.run(self._outputs, dict(feeds))
        except Exception as e:
            raise _explain(e) from e
        return {n: np.array(a) for n, a in zip(self._outputs, found, strict=True)}

    def close(self) -> None:
        """Release the session."""
        self._session = None


_ACCURACY_LEVEL, _FLOAT32 = "session.qdq_matmulnbits_accuracy_level", "1"


class OrtEngine:
    """ONNX Runtime's CPU provider.

    Args:
        optimization: How far it may rewrite the graph; ``"off"`` for reference runs.
    """

    name: ClassVar[str] = "ort"

    def __init__(self, optimization: Optimization = "all") -> None:
        if optimization not in get_args(Optimization):
            raise UsageError(
                f"unknown optimization level {optimization!r}",
                hint="known: " + ", ".join(get_args(Optimization)),
            )
        self._optimization = optimization

    def probe(self) -> Availability:
        """Whether ``onnxruntime`` is installed."""
        return probe_package(self.name, "onnxruntime", "ort")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> OrtExecutor:
        """Open an ``.onnx`` file.

        Raises:
            BackendMissingError: ``onnxruntime`` is not installed.
            ArtifactError: ONNX Runtime cannot read the file.
        """
        self.probe().require()
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(
            ort.GraphOptimizationLevel, _LEVELS[self._optimization]
        )
        options.log_severity_level = _FATAL_ONLY  # what it has to say is in the exception
        options.inter_op_num_threads = 1
        # By default products with 4-bit and 8-bit weights quantize their activations too.
        options.add_session_config_entry(_ACCURACY_LEVEL, _FLOAT32)
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = ort.InferenceSession(
                str(artifact), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise ArtifactError(f"ONNX Runtime refuses {artifact}: {_first_line(e)}") from e
        return OrtExecutor(session)


def onnxruntime() -> Any:
    """The ``onnxruntime`` module, imported with its vendor's telemetry off.

    Its wheels report from the import on, unless this variable is set before; a user's own
    setting is kept.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module


def _explain(error: Exception) -> InputError | ArtifactError:
    if type(error).__name__ in ("InvalidArgument", "ValueError"):
        return InputError(f"ONNX Runtime refuses the inputs: {_first_line(error)}")
    return ArtifactError(f"ONNX Runtime fails: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
