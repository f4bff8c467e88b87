"""Decode the ML program inside a Core ML model specification.

Field numbers are those of ``Model.proto`` and ``MIL.proto`` (format of iOS 15 to 18); each
is a constant below, named like the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil.blob import NIBBLES, nibbles
from edgevit.runtimes.mil.spec import (
    Array,
    Binding,
    Function,
    Literal,
    Operation,
    Program,
    TensorType,
)
from edgevit.runtimes.mil.wire import Message

__all__ = ["BlobReader", "read_model"]

BlobReader = Callable[[str, int, str, tuple[int, ...]], Array]
"""(file name in the program, record offset, dtype name, shape) -> array."""

# Model: description 2 (defaultFunctionName 21), mlProgram 502
_DESCRIPTION, _DEFAULT_FUNCTION, _ML_PROGRAM = 2, 21, 502
_DEFAULT_NAME = "main"

_DTYPES = {
    1: "bool",
    2: "str",
    10: "float16",
    11: "float32",
    12: "float64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
}


def read_model(data: bytes | memoryview, blob: BlobReader) -> Program:
    """The ML program of a serialized ``CoreML.Specification.Model``.

    Args:
        data: Contents of ``model.mlmodel``.
        blob: Reads the constants that live in the weight file.

    Raises:
        ArtifactError: The data is not a model, or the model is not an ML program.
    """
    model = Message(data)
    if not model.has(_ML_PROGRAM):
        kinds = [n for n in model.numbers() if n >= 200]
        raise ArtifactError(
            f"expected an ML program (field {_ML_PROGRAM} of Core ML's Model), found"
            f" {f'model type {kinds[0]}' if kinds else 'no model'}",
            hint="neural networks (.mlmodel before iOS 15) and pipelines are not evaluated",
        )
    # Program: functions 2
    functions = {
        name: _function(name, message, blob)
        for name, message in model.message(_ML_PROGRAM).entries(2).items()
    }
    default = model.message(_DESCRIPTION).text(_DEFAULT_FUNCTION) or _DEFAULT_NAME
    if default not in functions:
        raise ArtifactError(
            f"expected the function {default!r} in the ML program, found"
            f" {sorted(functions) or 'none'}"
        )
    return Program(functions, default)


def _function(name: str, message: Message, blob: BlobReader) -> Function:
    # Function: inputs 1, opset 2, block_specializations 3; Block: outputs 2, operations 3
    opset = message.text(2)
    blocks = message.entries(3)
    if opset not in blocks:
        raise ArtifactError(
            f"function {name!r} names the operator set {opset!r}, found code for"
            f" {sorted(blocks) or 'none'}"
        )
    body = blocks[opset]
    return Function(
        name=name,
        opset=opset,
        inputs=tuple(_named_type(m) for m in message.messages(1)),
        operations=tuple(_operation(m, blob) for m in body.messages(3)),
        outputs=body.texts(2),
    )


def _operation(message: Message, blob: BlobReader) -> Operation:
    # Operation: type 1, inputs 2, outputs 3, blocks 4, attributes 5
    kind = message.text(1)
    attributes = message.entries(5)
    outputs = tuple(_named_type(m) for m in message.messages(3))
    name = _literal(attributes["name"], blob) if "name" in attributes else ""
    wanted = _constants(kind, attributes)
    return Operation(
        type=kind,
        name=name if isinstance(name, str) and name else (outputs[0].name if outputs else ""),
        inputs={key: _bindings(m, blob) for key, m in message.entries(2).items()},
        outputs=outputs,
        attributes={key: _literal(m, blob) for key, m in wanted.items()},
        blocks=len(message.messages(4)),
    )


def _constants(kind: str, attributes: Mapping[str, Message]) -> dict[str, Message]:
    """The attributes that hold tensors an operator computes with."""
    if kind == "const":
        return {key: m for key, m in attributes.items() if key == "val"}
    if kind.startswith("constexpr_"):
        return {key: m for key, m in attributes.items() if key != "name"}
    return {}


def _bindings(message: Message, blob: BlobReader) -> tuple[Binding, ...]:
    # Argument: arguments 1; Binding: name 1, value 2
    return tuple(
        Binding(literal=_literal(m.message(2), blob)) if m.has(2) else Binding(name=m.text(1))
        for m in message.messages(1)
    )


def _named_type(message: Message) -> TensorType:
    # NamedValueType: name 1, type 2
    return _tensor_type(message.text(1), message.message(2))


def _tensor_type(name: str, message: Message) -> TensorType:
    # ValueType: tensorType 1; TensorType: dataType 1, rank 2, dimensions 3
    # Dimension: constant 1 (size 1), unknown 2 (variadic 1)
    if not message.has(1):
        return TensorType(name, "unsupported", (), variadic=True)
    tensor = message.message(1)
    dtype = _DTYPES.get(tensor.integer(1), "unsupported")
    dimensions = tensor.messages(3)
    if any(d.message(2).integer(1) for d in dimensions):
        return TensorType(name, dtype, (), variadic=True)
    shape = tuple(d.message(1).integer(1) if d.has(1) else None for d in dimensions)
    return TensorType(name, dtype, shape)


def _literal(message: Message, blob: BlobReader) -> Literal:
    # Value: type 2, immediateValue 3 (tensor 1), blobFileValue 5 (fileName 1, offset 2)
    declared = _tensor_type("", message.message(2))
    shape = tuple(d for d in declared.shape if d is not None)
    if declared.dtype == "unsupported" or len(shape) != len(declared.shape):
        raise ArtifactError(
            "expected constants to be tensors of known shape of bool, string, or 8- to 64-bit"
            " numbers, found another type",
            hint="compile for iOS 17 or below: sub-byte types are not evaluated yet",
        )
    if message.has(5):
        place = message.message(5)
        return blob(place.text(1), place.integer(2), declared.dtype, shape)
    size = int(np.prod(shape, dtype=np.int64))
    values = _immediate(message.message(3).message(1), declared.dtype, size)
    if declared.dtype == "str" and not shape and len(values) == 1:
        return str(values[0])
    if len(values) != size:
        raise ArtifactError(
            f"expected {size} elements of a {declared.dtype}{list(shape)} constant, found"
            f" {len(values)}"
        )
    array: Array = np.asarray(values).reshape(shape)
    return array


def _immediate(tensor: Message, dtype: str, count: int) -> np.ndarray[Any, Any]:
    # TensorValue: floats 1, ints 2, bools 3, strings 4, longInts 5, doubles 6, bytes 7,
    # each a message whose values are field 1
    if dtype == "str":
        return np.array(tensor.message(4).texts(1), dtype=np.str_)
    if tensor.has(7):
        data = tensor.message(7).raw(1)
        if dtype in NIBBLES:
            return nibbles(np.frombuffer(data, np.uint8), dtype, count)
        size = np.dtype(dtype).itemsize
        if len(data) % size:
            raise ArtifactError(f"expected whole {dtype} elements, found {len(data)} bytes")
        return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<"))
    if tensor.has(1):
        return tensor.message(1).floats(1, 4).astype(dtype)
    if tensor.has(6):
        return tensor.message(6).floats(1, 8).astype(dtype)
    number = next((n for n in (2, 3, 5) if tensor.has(n)), 2)
    # int64 first: a value that the declared type cannot hold must not wrap silently
    wide = np.array(tensor.message(number).integers(1), dtype=np.int64)
    narrow: np.ndarray[Any, Any] = wide.astype(dtype)
    if dtype not in ("bool", "uint64") and not np.array_equal(narrow.astype(np.int64), wide):
        raise ArtifactError(f"expected {dtype} elements, found values outside its range")
    return narrow
