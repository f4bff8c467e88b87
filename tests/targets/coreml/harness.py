"""Canonical graphs written by hand, lowered, and read back from their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import ArrayLike

from edgevit.backend import Lowered, LowerOptions
from edgevit.target import Target, load_target
from edgevit.targets.coreml.lower import CoreMLBackend
from edgevit.targets.coreml.package import MODEL, parse_model
from edgevit.targets.coreml.quiet import quiet_coremltools

Array = np.ndarray[Any, Any]

FUNCTIONS = """
<domain: "ai.edgevit", opset_import: ["": 23]>
Silu (x) => (y) { s = Sigmoid(x) y = Mul(x, s) }
"""


@dataclass(frozen=True)
class Case:
    """One canonical graph.

    Attributes:
        name: Shown by pytest.
        graph: ``(inputs) => (outputs) { nodes }`` in ONNX's text format.
        constants: Initializers. Floats must be float16 numbers: then both precisions hold
            the same constants, and only arithmetic differs.
        ops: Operations that the program must consist of, boundary casts and constants
            apart.
        inputs: Arrays to feed; random normal float16 numbers where absent.
        reach: Length of the longest sum; float32's error grows with it.
        roundings: Float16 roundings on the way, each weighted by how much it can grow.
    """

    name: str
    graph: str
    ops: tuple[str, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)
    reach: int = 1
    roundings: float = 1.0

    def proto(self) -> onnx.ModelProto:
        """The model, shapes inferred."""
        head = '<ir_version: 10, opset_import: ["": 23, "ai.edgevit": 1]>\n'
        model = onnx.parser.parse_model(f"{head}{self.name} {self.graph}\n{FUNCTIONS}")
        for name, array in self.constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        full: onnx.ModelProto = onnx.shape_inference.infer_shapes(
            model, strict_mode=True, data_prop=True
        )
        return full

    def model(self) -> ir.Model:
        """The model as ``onnx_ir``."""
        model: ir.Model = ir.from_proto(self.proto())
        return model

    def feeds(self) -> dict[str, Array]:
        """An array for each input, floats exact in float16."""
        rng = np.random.default_rng(sum(self.name.encode()))
        feeds = {}
        for value in self.proto().graph.input:
            kind = value.type.tensor_type
            shape = [d.dim_value for d in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            drawn = rng.normal(size=shape).astype(np.float16).astype(dtype)
            feeds[value.name] = np.asarray(self.inputs.get(value.name, drawn), dtype)
        return feeds


def f32(values: ArrayLike) -> Array:
    """A float32 array of any rank."""
    return np.asarray(values, np.float32)


def i64(values: ArrayLike) -> Array:
    """An int64 array of any rank."""
    return np.asarray(values, np.int64)


def half(array: ArrayLike) -> Array:
    """Float32 numbers that float16 holds exactly."""
    return np.asarray(array, np.float16).astype(np.float32)


def normal(seed: int, *shape: int) -> Array:
    """Seeded normal numbers, exact in float16."""
    return half(np.random.default_rng(seed).normal(size=shape))


def ints(*values: int) -> Array:
    """A 1-D int64 constant."""
    return np.asarray(values, np.int64)


def target(overrides: str = "layout=plain") -> Target:
    """The device that all tests lower for."""
    return load_target(f"iphone-npu:{overrides}")


def lower(
    model: ir.Model,
    precision: str,
    io: str = "source",
    stem: str = "m",
    overrides: str = "layout=plain",
) -> Lowered:
    """Lower for ``iphone-npu``, in the plain layout unless told otherwise."""
    options = LowerOptions(precision, "native" if io == "native" else "source", stem)
    return CoreMLBackend().lower(model, target(overrides), options)


def spec_of(lowered: Lowered) -> Any:
    """The model message inside the shipped bytes."""
    with quiet_coremltools() as ct:
        return parse_model(ct.proto, lowered.files, lowered.part.artifact)


@dataclass(frozen=True)
class Op:
    """One operation as it stands in the saved program."""

    kind: str
    outputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    inputs: Mapping[str, tuple[str, ...]]


# proto DataType in coremltools' MIL.proto
_DTYPES = {1: "bool", 10: "float16", 11: "float32", 21: "int8", 23: "int32", 31: "uint8"}


def operations(lowered: Lowered) -> list[Op]:
    """The operations of function ``main``, constants apart."""
    function = spec_of(lowered).mlProgram.functions["main"]
    found = []
    for op in function.block_specializations[function.opset].operations:
        if op.type == "const":
            continue
        types = [out.type.tensorType for out in op.outputs]
        found.append(
            Op(
                op.type,
                tuple(out.name for out in op.outputs),
                tuple(_DTYPES[t.dataType] for t in types),
                tuple(tuple(int(d.constant.size) for d in t.dimensions) for t in types),
                {k: tuple(a.name for a in v.arguments) for k, v in op.inputs.items()},
            )
        )
    return found


def write(lowered: Lowered, folder: Path) -> Path:
    """Write the files below ``folder``; gives the package's path."""
    for path, content in lowered.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder / lowered.part.artifact


def with_file(lowered: Lowered, path: str, content: bytes) -> Lowered:
    """The same artifact with one file replaced."""
    return replace(lowered, files={**lowered.files, path: content})


def model_path(lowered: Lowered) -> str:
    """Path of the specification among ``lowered.files``."""
    return f"{lowered.part.artifact}/{MODEL}"
