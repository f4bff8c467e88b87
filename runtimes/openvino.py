"""Runs ``.onnx`` artifacts with OpenVINO on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, probe_package
from edgevit.runtimes.engine import Arrays, Closing

__all__ = ["OpenVINOEngine", "OpenVINOExecutor", "compiled_model"]

# By default CPUs with bfloat16 units round what the artifact computes in float32, and layers
# whose weights alone are codes round what they read to 8 bits, group by group.
_CONFIG = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}


class OpenVINOExecutor(Closing):
    """One compiled ``.onnx`` file."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._inputs = {_name(port): port for port in compiled.inputs}
        self._outputs = compiled.outputs

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; artifact input name -> array to artifact output name -> array.

        Raises:
            InputError: A name, shape or dtype is not the artifact's.
            ArtifactError: An operator of the artifact fails.
        """
        if self._compiled is None:
            raise InputError("this OpenVINO session is closed")
        if feeds.keys() != self._inputs.keys():
            raise InputError(f"expected inputs {sorted(self._inputs)}, found {sorted(feeds)}")
        for name, port in self._inputs.items():
            _check(name, port, feeds[name])
        try:
            found = self._compiled(dict(feeds))
        except RuntimeError as e:
            raise ArtifactError(f"OpenVINO fails: {_first_line(e)}") from e
        return {
            name: np.array(found[port])
            for port in self._outputs
            for name in sorted(port.get_names())
        }

    def close(self) -> None:
        """Release the compiled model."""
        self._compiled = None


class OpenVINOEngine:
    """OpenVINO's CPU plug-in, in float32 where the artifact computes on floats."""

    name: ClassVar[str] = "openvino"

    def probe(self) -> Availability:
        """Whether ``openvino`` is installed."""
        return probe_package(self.name, "openvino", "openvino")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> OpenVINOExecutor:
        """Open an ``.onnx`` file.

        Raises:
            BackendMissingError: ``openvino`` is not installed.
            ArtifactError: OpenVINO cannot read or compile the file.
        """
        return OpenVINOExecutor(compiled_model(artifact, threads))


def compiled_model(artifact: Path, threads: int | None) -> Any:
    """A file that OpenVINO reads, compiled for the CPU as ``OpenVINOEngine`` does.

    Raises:
        BackendMissingError: ``openvino`` is not installed.
        ArtifactError: OpenVINO cannot read or compile the file.
    """
    OpenVINOEngine().probe().require()
    core = importlib.import_module("openvino").Core()
    config: dict[str, Any] = dict(_CONFIG)
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        return core.compile_model(core.read_model(str(artifact)), "CPU", config)
    except RuntimeError as e:
        raise ArtifactError(f"OpenVINO refuses {artifact}: {_first_line(e)}") from e


def _name(port: Any) -> str:
    return str(port.get_any_name())


def _check(name: str, port: Any, array: np.ndarray[Any, Any]) -> None:
    shape, dtype = tuple(port.get_shape()), np.dtype(port.get_element_type().to_dtype())
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"input {name!r}: expected {dtype} {shape}, found {array.dtype} {array.shape}"
        )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
