"""Run a Core ML package: through Core ML on macOS, through our evaluator elsewhere.

The evaluator reads the saved package back from disk, so that what is checked is what ships.
Its arithmetic is defined in ``edgevit.runtimes.mil.arithmetic`` and is not the Neural
Engine's own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, probe_package
from edgevit.runtimes.engine import Arrays, Closing, Executor
from edgevit.runtimes.mil.evaluate import Accumulate, Evaluation, run
from edgevit.runtimes.mil.package import load_package
from edgevit.runtimes.mil.prepare import prepare

__all__ = ["CoreMLEngine", "Evaluator", "NativeModel", "PessimisticEngine"]

_EVALUATOR_VERSION = "evaluator 1"


class CoreMLEngine:
    """Engine ``coreml``."""

    name: ClassVar[str] = "coreml"

    def probe(self) -> Availability:
        """Core ML needs coremltools on macOS; the evaluator needs numpy only."""
        if sys.platform == "darwin":
            return probe_package(self.name, "coremltools", "coreml")
        return Availability(self.name, True, _EVALUATOR_VERSION, "", "coreml")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> Executor:
        """Open a ``.mlpackage``; Core ML and numpy choose their own number of threads.

        Raises:
            ArtifactError: The package is corrupt, is no ML program, or has other inputs or
                outputs than the part says.
        """
        del threads  # neither Core ML nor numpy's BLAS takes it after start-up
        executor: Evaluator | NativeModel
        if sys.platform == "darwin":
            executor = NativeModel(artifact, function=part.function)
        else:
            executor = Evaluator(artifact, function=part.function)
        names = {b.artifact for b in part.inputs}
        if names != set(executor.inputs):
            raise ArtifactError(
                f"expected {artifact} to have the inputs {sorted(names)}, found"
                f" {sorted(executor.inputs)}"
            )
        wanted = {b.artifact for b in part.outputs}
        if not wanted <= set(executor.outputs):
            raise ArtifactError(
                f"expected {artifact} to have the outputs {sorted(wanted)}, found"
                f" {sorted(executor.outputs)}"
            )
        return executor


class PessimisticEngine:
    """Engine ``coreml-fp16-accumulate``: the evaluator with sums in float16 too.

    Verification reports its figure beside the gate's; it is never what a bundle names.
    """

    name: ClassVar[str] = "coreml-fp16-accumulate"

    def probe(self) -> Availability:
        """The evaluator needs numpy only."""
        return Availability(self.name, True, _EVALUATOR_VERSION, "", "coreml")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> Executor:
        """Open a ``.mlpackage`` in the evaluator.

        Raises:
            ArtifactError: The package is corrupt or is no ML program.
        """
        del threads
        return Evaluator(artifact, accumulate="float16", function=part.function)


class Evaluator(Closing):
    """An opened package that our evaluator runs.

    Attributes:
        inputs: Input names.
        outputs: Output names.
        large: Float16 intermediates of the last run that exceeded 32,768 in magnitude:
            name -> largest magnitude, ``inf`` after overflow.
    """

    def __init__(
        self,
        package: Path,
        accumulate: Accumulate = "float32",
        function: str | None = None,
    ) -> None:
        self._accumulate = accumulate
        self._prepared = prepare(load_package(package), function)
        self.inputs = tuple(d.name for d in self._prepared.function.inputs)
        self.outputs = self._prepared.function.outputs
        self.large: dict[str, float] = {}

    def run(
        self, feeds: Arrays, accumulate: Accumulate | None = None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Input name -> array, to output name -> array (owned copies).

        Raises:
            InputError: A name, shape or dtype does not fit.
            ArtifactError: An operation meets arguments that MIL does not allow.
        """
        return self.evaluate(feeds, accumulate).outputs

    def evaluate(
        self,
        feeds: Arrays,
        accumulate: Accumulate | None = None,
        keep: Collection[str] = (),
    ) -> Evaluation:
        """As ``run``, with large values and the intermediates named in ``keep``.

        ``accumulate=None`` is what the evaluator was opened with.
        """
        result = run(self._prepared, feeds, accumulate or self._accumulate, keep)
        self.large = result.large
        return result

    def close(self) -> None:
        """Nothing to release: the weights' memory map goes with the object."""


class NativeModel(Closing):
    """An opened package that Core ML runs (macOS).

    Attributes:
        inputs: Input names.
        outputs: Output names.
    """

    def __init__(
        self,
        package: Path,
        compute_units: str = "CPU_AND_NE",
        function: str | None = None,
    ) -> None:
        """Compile and load the package.

        Args:
            package: The ``.mlpackage`` directory.
            compute_units: A member of ``coremltools.ComputeUnit``.
            function: Which of the program's functions; ``None`` if it has only one.

        Raises:
            ArtifactError: Core ML refuses the package.
        """
        # by name: the type checker must not follow an optional package
        coremltools = importlib.import_module("coremltools")
        units = getattr(coremltools.ComputeUnit, compute_units)
        options = {} if function is None else {"function_name": function}
        try:
            self._model = coremltools.models.MLModel(
                str(package), compute_units=units, **options
            )
        except (RuntimeError, ValueError, OSError) as e:
            raise ArtifactError(f"Core ML cannot load {package}: {e}") from e
        description = self._model.get_spec().description
        if function is not None:
            description = next(f for f in description.functions if f.name == function)
        self.inputs = tuple(str(feature.name) for feature in description.input)
        self.outputs = tuple(str(feature.name) for feature in description.output)

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Input name -> array, to output name -> array (owned copies).

        Raises:
            InputError: Core ML refuses the inputs.
        """
        try:
            results = self._model.predict(dict(feeds))
        except (RuntimeError, ValueError, TypeError) as e:
            raise InputError(f"Core ML refuses the inputs {sorted(feeds)}: {e}") from e
        return {name: np.array(results[name]) for name in self.outputs}

    def close(self) -> None:
        """Release the model."""
        self._model = None
