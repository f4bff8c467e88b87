"""Runs ``.tflite`` artifacts with LiteRT, or with tflite-runtime where only that exists."""

from __future__ import annotations

import importlib
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, probe_package
from edgevit.runtimes.engine import Arrays, Closing

__all__ = ["LiteRTEngine", "LiteRTExecutor"]

_PACKAGES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
)
_IDENTIFIER = b"TFL3"


@dataclass(frozen=True, eq=False)
class _Opened:
    """An interpreter, and the file whose weights it reads in place."""

    interpreter: Any
    content: bytes


class LiteRTExecutor(Closing):
    """One opened ``.tflite`` file, or one signature of it."""

    def __init__(self, opened: _Opened, runner: Any = None) -> None:
        self._opened: _Opened | None = opened
        self._interpreter = interpreter = opened.interpreter
        self._runner = runner
        if runner is not None:
            self._inputs, self._outputs = runner.get_input_details(), {}
            return
        self._inputs = {d["name"]: d for d in interpreter.get_input_details()}
        self._outputs = {d["name"]: d for d in interpreter.get_output_details()}

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run once.

        Args:
            feeds: Artifact input name -> array of the artifact's shape and dtype.

        Returns:
            Artifact output name -> array, owned by the caller.

        Raises:
            InputError: A name, shape or dtype is not the artifact's, or the engine fails on
                these values (an index outside of its axis).
        """
        if self._interpreter is None:
            raise InputError("this LiteRT session is closed")
        if feeds.keys() != self._inputs.keys():
            raise InputError(f"expected inputs {sorted(self._inputs)}, found {sorted(feeds)}")
        given = {}
        for name, detail in self._inputs.items():
            array = np.ascontiguousarray(feeds[name])
            shape, dtype = tuple(detail["shape"].tolist()), np.dtype(detail["dtype"])
            # A rank-0 tensor has no axes to compare; ascontiguousarray makes it rank 1.
            if array.dtype != dtype or np.shape(feeds[name]) != shape:
                raise InputError(
                    f"input {name!r}: expected {dtype} {shape}, found "
                    f"{array.dtype} {np.shape(feeds[name])}"
                )
            given[name] = array.reshape(shape)
        try:
            return self._invoke(given)
        except RuntimeError as e:
            raise InputError(f"LiteRT fails on these inputs: {e}") from e

    def _invoke(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        if self._runner is not None:
            return {name: np.array(a) for name, a in self._runner(**feeds).items()}
        for name, array in feeds.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        self._interpreter.invoke()
        return {
            name: np.array(self._interpreter.get_tensor(detail["index"]))
            for name, detail in self._outputs.items()
        }

    def close(self) -> None:
        """Release the interpreter; it ends with the last signature that is open."""
        self._opened = self._interpreter = self._runner = None


class LiteRTEngine:
    """LiteRT's interpreter on the CPU, with XNNPACK where the package applies it.

    An engine opens a file once for all of its signatures: XNNPACK packs the weights of every
    subgraph for every interpreter.
    """

    name: ClassVar[str] = "litert"

    def __init__(self) -> None:
        self._several = weakref.WeakValueDictionary[tuple[Path, int | None], _Opened]()

    def probe(self) -> Availability:
        """Whether one of the two packages is installed."""
        found = [probe_package(self.name, dist, "litert") for dist, _ in _PACKAGES]
        return next((a for a in found if a.ok), found[0])

    def _interpreter_class(self) -> Any:
        self.probe().require()
        for distribution, module in _PACKAGES:
            if probe_package(self.name, distribution, "litert").ok:
                return importlib.import_module(module).Interpreter
        raise ArtifactError("no LiteRT interpreter")  # require() has raised before

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> LiteRTExecutor:
        """Open a ``.tflite`` file.

        Raises:
            BackendMissingError: Neither package is installed.
            ArtifactError: The file cannot be read, or the interpreter refuses it.
        """
        try:
            if part.function is None:
                opened = self._read(artifact, threads)
                opened.interpreter.allocate_tensors()
                return LiteRTExecutor(opened)
            opened = self._shared(artifact, threads)
            runner = opened.interpreter.get_signature_runner(part.function)
            return LiteRTExecutor(opened, runner)
        except (ValueError, RuntimeError) as e:
            raise ArtifactError(f"LiteRT refuses {artifact}: {e}") from e

    def _shared(self, artifact: Path, threads: int | None) -> _Opened:
        """The file's interpreter, if a signature of it is open, else a new one."""
        opened = self._several.get((artifact, threads))
        if opened is None:
            opened = self._several[artifact, threads] = self._read(artifact, threads)
        return opened

    def _read(self, artifact: Path, threads: int | None) -> _Opened:
        interpreter_class = self._interpreter_class()
        try:
            content = artifact.read_bytes()
        except OSError as e:
            raise ArtifactError(f"artifact {artifact} cannot be read: {e.strerror}") from e
        if content[4:8] != _IDENTIFIER:
            raise ArtifactError(
                f"artifact {artifact}: expected a TFLite file, found identifier "
                f"{content[4:8]!r}"
            )
        return _Opened(interpreter_class(model_content=content, num_threads=threads), content)
