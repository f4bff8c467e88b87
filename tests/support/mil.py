"""One MIL operation at a time: built with coremltools, run by our evaluator, and checked.

The program is serialized by coremltools' exporter, without its optimization passes, and read
back by our reader, so each case tests the reader too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.runtimes.mil.blob import BlobFile
from edgevit.runtimes.mil.read import read_model
from edgevit.runtimes.mil.spec import Array, Program
from edgevit.targets.coreml.quiet import quiet_coremltools

__all__ = ["Case", "Onnx", "build", "built", "value_inference"]

Tensor = Array | tuple[Array, ...]


@dataclass(frozen=True)
class Onnx:
    """The equivalent ONNX operator, for operators that coremltools does not fold.

    Attributes:
        op: ONNX operator type.
        inputs: Its inputs in order: a key of the case's tensors, an array, or None.
        attributes: Its attributes.
        opset: Operator set in which ONNX Runtime has it.
    """

    op: str
    inputs: tuple[str | Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 22


@dataclass(frozen=True)
class Case:
    """One operation and how it is checked.

    Attributes:
        op: MIL operator.
        tensors: Arguments that are fed at run time.
        constants: Arguments that are constants of the program.
        opset: iOS release of the operator set.
        terms: Roundings between argument and result, at most: the limit of the difference is
            ``terms * 2^-23 * max|expected|``; 0 asks for equality.
        onnx: The oracle, if ONNX Runtime; else coremltools' ``value_inference``.
        expected: The oracle, if a closed form or recorded values.
    """

    op: str
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    terms: int = 8
    onnx: Onnx | None = None
    expected: Array | tuple[Array, ...] | None = None

    @property
    def checked_by(self) -> str:
        """Which oracle the case has."""
        if self.expected is not None:
            return "closed form"
        return "value_inference" if self.onnx is None else "onnxruntime"


def _flat(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    flat: dict[str, Array] = {}
    for name, value in tensors.items():
        if isinstance(value, tuple):
            flat.update({f"{name}_{i}": v for i, v in enumerate(value)})
        else:
            flat[name] = value
    return flat


def _builder_arguments(
    tensors: Mapping[str, Tensor], make: Callable[[str], Any]
) -> dict[str, Any]:
    return {
        name: [make(f"{name}_{i}") for i in range(len(value))]
        if isinstance(value, tuple)
        else make(name)
        for name, value in tensors.items()
    }


def built(
    body: Callable[[Any, Mapping[str, Any]], Any],
    inputs: Mapping[str, Array],
    opset: int = 17,
) -> tuple[bytes, bytes]:
    """``body(mb, variables)`` as a serialized model and its weight file.

    Args:
        body: Builds the operations, and returns the result or a list of results.
        inputs: Input name -> an array of its dtype and shape.
        opset: iOS release of the operator set.
    """
    with quiet_coremltools() as ct, tempfile.TemporaryDirectory() as folder:
        from coremltools import proto
        from coremltools.converters.mil.backend.mil.load import MILProtoExporter
        from coremltools.converters.mil.mil import Builder, Function, types
        from coremltools.converters.mil.mil import Program as MILProgram

        release = getattr(ct.target, f"iOS{opset}")
        placeholders = {
            name: Builder.placeholder(
                array.shape, dtype=types.numpy_type_to_builtin_type(array.dtype.type)
            )
            for name, array in inputs.items()
        }
        with Function(placeholders, opset_version=release) as function:
            results = body(Builder, function.inputs)
            results = list(results) if isinstance(results, list | tuple) else [results]
            function.set_outputs(results)
        program = MILProgram()
        program.add_function("main", function)
        exporter = MILProtoExporter(program, folder, int(release))
        model = proto.Model_pb2.Model()
        model.specificationVersion = int(release)
        model.mlProgram.CopyFrom(exporter.export())
        weights = Path(folder) / "weight.bin"
        exporter.blob_writers.clear()
        return model.SerializeToString(), weights.read_bytes() if weights.exists() else b""


def read_back(model: bytes, weights: bytes, folder: Path) -> Program:
    """The program of ``built``, read by our reader."""
    path = folder / "weight.bin"
    path.write_bytes(weights)
    blob = BlobFile(path) if weights else None

    def array(_: str, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        assert blob is not None
        return blob.array(offset, dtype, shape)

    return read_model(model, array)


def build(case: Case, folder: Path) -> tuple[Program, dict[str, Array]]:
    """The case as a program of one operation, and its feeds."""
    feeds = _flat(case.tensors)

    def body(mb: Any, variables: Mapping[str, Any]) -> Any:
        arguments = _builder_arguments(case.tensors, variables.__getitem__)
        return getattr(mb, case.op)(**arguments, **case.constants)

    model, weights = built(body, feeds, case.opset)
    return read_back(model, weights, folder), feeds


def value_inference(case: Case) -> tuple[Array, ...]:
    """What coremltools computes when it folds the operation on constants."""
    with quiet_coremltools() as ct:
        from coremltools.converters.mil.mil import Builder, Function

        release = getattr(ct.target, f"iOS{case.opset}")
        with Function({}, opset_version=release):
            feeds = _flat(case.tensors)
            arguments = _builder_arguments(case.tensors, lambda n: Builder.const(val=feeds[n]))
            result = getattr(Builder, case.op)(**arguments, **case.constants)
    results = result if isinstance(result, list | tuple) else (result,)
    values = []
    for r in results:
        value = r.val
        if value is None:
            value = r.op.materialized_val_inference()  # quantization is folded on request only
        assert value is not None, f"coremltools does not fold {case.op} here"
        values.append(np.asarray(value))
    return tuple(values)
