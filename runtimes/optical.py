"""Runs optical artifacts on a simulated 4f system: fast (matrix products) or by waves (FFT).

The device is ideal here: what a bundle computes is a question of its program, what a real
device adds is asked with ``edgevit simulate``. Electronic parts run in ONNX Runtime.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, probe_packages
from edgevit.runtimes.engine import Arrays, Closing
from edgevit.runtimes.ort import OrtEngine, OrtExecutor

__all__ = ["OpticalEngine", "OpticalExecutor", "WaveEngine", "read_weights"]

Array = np.ndarray[Any, Any]


class _Product(Protocol):
    def __call__(self, step: Any, x: Array, kernel: Array) -> Array: ...


class OpticalExecutor(Closing):
    """One opened program.

    Attributes:
        program: ``edgevit.sim4f.program.Program``.
        weights: Stored kernels and biases by name.
        product: The interpreter that ``run`` uses.
    """

    def __init__(
        self,
        program: Any,
        weights: Mapping[str, Array],
        parts: Mapping[str, OrtExecutor],
        product: _Product,
    ) -> None:
        self.program, self.weights = program, weights
        self._parts = dict(parts)
        self.product = product
        self._open = True

    def run(self, feeds: Arrays) -> dict[str, Array]:
        """Run once.

        Raises:
            InputError: An input is missing, or of another shape or dtype.
            ArtifactError: A step does not fit its tensors.
        """
        return self.run_with(self.product, feeds)

    def run_with(
        self, product: _Product, feeds: Arrays, watch: Any = None
    ) -> dict[str, Array]:
        """Run once with another interpreter; ``watch`` is told of each optical step."""
        from edgevit.sim4f.interpret import run

        if not self._open:
            raise InputError("this optical program is closed")
        _check(self.program.inputs, feeds)
        parts = {name: part.run for name, part in self._parts.items()}
        try:
            return run(self.program, self.weights, parts, product, feeds, watch)
        except (ValueError, KeyError) as e:
            raise ArtifactError(f"the frame program fails: {e}") from e

    def run_many(
        self, product: _Product, samples: Sequence[Arrays], watch: Any = None
    ) -> dict[str, Array]:
        """Run samples at once, each by itself as ``run_with`` would run it.

        Args:
            product: An interpreter that takes ``[samples, *shape]``.
            samples: At least one.
            watch: As for ``run_with``; tensors have samples first.

        Returns:
            Output name -> ``[samples, *shape]``.
        """
        from edgevit.sim4f.interpret import run

        if not self._open:
            raise InputError("this optical program is closed")
        for feeds in samples:
            _check(self.program.inputs, feeds)
        stacked = {t.name: np.stack([f[t.name] for f in samples]) for t in self.program.inputs}
        count = len(samples)
        parts = {name: _each(part.run, count) for name, part in self._parts.items()}
        try:
            return run(self.program, self.weights, parts, product, stacked, watch)
        except (ValueError, KeyError) as e:
            raise ArtifactError(f"the frame program fails: {e}") from e

    def close(self) -> None:
        """Close the electronic parts."""
        self._open = False
        for part in self._parts.values():
            part.close()
        self._parts = {}


def _each(run: Callable[[Arrays], Arrays], count: int) -> Callable[[Arrays], Arrays]:
    """An electronic part for ``count`` stacked samples: one run for each."""

    def every(feeds: Arrays) -> Arrays:
        found = [run({name: a[i] for name, a in feeds.items()}) for i in range(count)]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    return every


class OpticalEngine:
    """The fast path."""

    name: ClassVar[str] = "optical"

    def probe(self) -> Availability:
        """The simulator needs scipy, the electronic parts ONNX Runtime."""
        return probe_packages(self.name, "optical", "scipy", ("onnxruntime", "ort"))

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> OpticalExecutor:
        """Open the directory of a program.

        Raises:
            BackendMissingError: scipy or ONNX Runtime is not installed.
            ArtifactError: A file is missing or cannot be read.
        """
        self.probe().require()
        program, weights = _program(artifact), read_weights(artifact)
        _check_bindings(program, part)
        parts: dict[str, OrtExecutor] = {}
        for step in program.steps:
            if hasattr(step, "inputs"):
                parts[step.name] = OrtEngine().open(
                    artifact / step.name, part, threads=threads
                )
        product = self._product(program.shapes, threads)
        return OpticalExecutor(program, weights, parts, product)

    def _product(self, shapes: Mapping[str, Sequence[int]], threads: int | None) -> _Product:
        from edgevit.sim4f.fast import FastProduct

        return FastProduct(shapes)


class WaveEngine(OpticalEngine):
    """The wave path: two Fourier transforms a frame."""

    name: ClassVar[str] = "optical-wave"

    def _product(self, shapes: Mapping[str, Sequence[int]], threads: int | None) -> _Product:
        from edgevit.sim4f.wave import WaveProduct

        return WaveProduct(shapes, workers=threads or 1)


def _program(artifact: Path) -> Any:
    from edgevit.sim4f.errors import OpticsError
    from edgevit.sim4f.serial import from_json

    try:
        return from_json((artifact / "program.json").read_bytes())
    except (OSError, OpticsError) as e:
        raise ArtifactError(f"{artifact}: {e}") from e


def read_weights(artifact: Path) -> dict[str, Array]:
    """Stored weights of an artifact by name.

    Raises:
        ArtifactError: They cannot be read.
    """
    try:
        names = json.loads((artifact / "weights.json").read_text(encoding="utf-8"))
        with np.load(artifact / "weights.npz", allow_pickle=False) as data:
            return {str(name): data[str(i)] for i, name in enumerate(names)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise ArtifactError(f"{artifact}: weights cannot be read: {e}") from e


def _check_bindings(program: Any, part: Part) -> None:
    known = {t.name for t in program.inputs}, {t.name for t in program.outputs}
    wanted = {b.artifact for b in part.inputs}, {b.artifact for b in part.outputs}
    for have, want in zip(known, wanted, strict=True):
        missing = sorted(want - have)
        if missing:
            raise ArtifactError(f"the frame program has no tensor {missing[0]!r}")


def _check(inputs: Sequence[Any], feeds: Arrays) -> None:
    for tensor in inputs:
        if tensor.name not in feeds:
            raise InputError(f"input {tensor.name!r} is missing")
        found = feeds[tensor.name]
        if found.shape != tensor.shape or found.dtype != np.dtype(tensor.dtype):
            raise InputError(
                f"input {tensor.name!r}: expected {tensor.dtype} {tensor.shape}, found "
                f"{found.dtype} {found.shape}"
            )
