"""Writes TFLite flatbuffers: tensors, constants and operators of one subgraph.

Deterministic: indices follow the order of the calls, equal constants share a buffer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["DTYPES", "Writer", "pack", "parameters"]

Array = np.ndarray[Any, Any]

DTYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int4": schema.TensorType.INT4,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}

_ALIGNMENT = 16  # bytes; XNNPACK and NEON loads read weights in place
_FIRST_EXTENDED = 127  # operator codes above it live in the 32-bit field only
_RUNTIME = b"2.14.0"  # tflite-runtime stopped there; nothing newer is written


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data starts at a multiple of 16 bytes (the generated one: at 1)."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - name of the generated class
        if self.data is None or len(self.data) == 0:
            schema.BufferStart(builder)
            return schema.BufferEnd(builder)
        raw = np.ascontiguousarray(self.data).view(np.uint8).tobytes()
        builder.StartVector(1, len(raw), _ALIGNMENT)
        builder.head = builder.head - len(raw)
        builder.Bytes[builder.head : builder.head + len(raw)] = raw
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def pack(model: schema.ModelT) -> bytes:
    """Serialize with the TFL3 identifier and aligned buffers."""
    total = sum(0 if b.data is None else len(b.data) for b in model.buffers)
    for i, old in enumerate(model.buffers):
        model.buffers[i] = _AlignedBuffer(data=old.data)
    builder = flatbuffers.Builder(total + (1 << 20))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class Writer:
    """Collects one subgraph."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: list[Any] = [schema.BufferT()]  # by convention the first is empty
        self._by_content: dict[tuple[str, bytes], int] = {}
        self._constants: dict[tuple[int, str, tuple[int, ...]], int] = {}
        self._names: dict[str, int] = {}
        self.arrays: dict[int, Array] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self.tensors[tensor].shape)

    def dtype(self, tensor: int) -> str:
        """Name of a tensor's numpy dtype."""
        code = self.tensors[tensor].type
        return next(name for name, value in DTYPES.items() if value == code)

    def name(self, tensor: int) -> str:
        """Name of a tensor, unique in the file."""
        return str(self.tensors[tensor].name)

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self._unique(f"{name}.{count}")

    def rename(self, tensor: int, name: str) -> None:
        """Give a tensor another name; it gets a suffix if it is taken."""
        self.tensors[tensor].name = self._unique(name)

    def quantization(self, tensor: int) -> Any:
        """What a tensor's codes mean; ``None`` if they are plain numbers."""
        return self.tensors[tensor].quantization

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        buffer: int = 0,
        quantization: Any = None,
    ) -> int:
        """Add a tensor; the name gets a suffix if it is taken."""
        made = schema.TensorT(
            shape=[int(d) for d in shape],
            type=DTYPES[dtype],
            buffer=buffer,
            name=self._unique(name),
            quantization=quantization,
            hasRank=True,
        )
        self.tensors.append(made)
        return len(self.tensors) - 1

    def codes(self, name: str, codes: Array, dtype: str, quantization: Any) -> int:
        """Add a constant tensor of codes; int4 is packed, low nibble first.

        Args:
            name: Of the tensor.
            codes: Integers that fit ``dtype``.
            dtype: ``"int4"``, ``"int8"``, ``"int32"`` or ``"int64"``.
            quantization: A ``QuantizationParametersT``.
        """
        packed = dtype == "int4"
        array = _nibbles(codes) if packed else np.ascontiguousarray(codes.astype(dtype))
        self._buffers.append(schema.BufferT(data=np.frombuffer(array.tobytes(), np.uint8)))
        buffer = len(self._buffers) - 1
        return self.tensor(name, codes.shape, dtype, buffer, quantization)

    def constant(self, name: str, array: Array) -> int:
        """Add a constant tensor, or find an equal one."""
        array = np.asarray(array)
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        digest = hashlib.sha256(raw.data).digest()
        dtype = str(array.dtype)
        content = (dtype, digest)
        if content not in self._by_content:
            self._buffers.append(schema.BufferT(data=raw))
            self._by_content[content] = len(self._buffers) - 1
        key = (self._by_content[content], dtype, array.shape)
        if key not in self._constants:
            made = self.tensor(name, array.shape, dtype, key[0])
            self._constants[key] = made
            self.arrays[made] = array
        return self._constants[key]

    def operator(
        self,
        op: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        options: Any = None,
    ) -> None:
        """Add an operator.

        Args:
            op: Name in ``BuiltinOperator``, for example ``"CONV_2D"``.
            inputs: Tensor indices, -1 for an absent one.
            outputs: Tensor indices.
            version: Operator version; the lowest that says what is meant.
            options: An ``...OptionsT`` object of the schema, or ``None``.
        """
        code = getattr(schema.BuiltinOperator, op)
        index = self._codes.setdefault((code, version), len(self._codes))
        made = schema.OperatorT(opcodeIndex=index, inputs=list(inputs), outputs=list(outputs))
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = options
        self._operators.append(made)

    def count(self, op: str) -> int:
        """How many operators of this kind were written."""
        code = getattr(schema.BuiltinOperator, op)
        indices = {i for (c, _), i in self._codes.items() if c == code}
        return sum(made.opcodeIndex in indices for made in self._operators)

    def finish(
        self, inputs: Mapping[str, int], outputs: Mapping[str, int], name: str
    ) -> bytes:
        """Serialize.

        Args:
            inputs: Signature name -> tensor, in order.
            outputs: Signature name -> tensor, in order.
            name: Name of the subgraph.
        """
        buffers = [*self._buffers, schema.BufferT(data=np.frombuffer(_RUNTIME, np.uint8))]
        graph = schema.SubGraphT(
            tensors=self.tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name=name,
        )
        model = schema.ModelT(
            version=3,
            description="edgevit",
            operatorCodes=[self._code(c, v) for c, v in self._codes],
            subgraphs=[graph],
            buffers=buffers,
            metadata=[schema.MetadataT("min_runtime_version", len(buffers) - 1)],
            signatureDefs=[signature(inputs, outputs)],
        )
        return pack(model)

    @staticmethod
    def _code(code: int, version: int) -> Any:
        deprecated = min(code, _FIRST_EXTENDED)
        return schema.OperatorCodeT(
            deprecatedBuiltinCode=deprecated, builtinCode=code, version=version
        )


def _nibbles(codes: Array) -> Array:
    """Two 4-bit codes a byte, the first in the low half."""
    flat = codes.reshape(-1).astype(np.int8).view(np.uint8) & 0x0F
    even = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
    return np.asarray(even[0::2] | (even[1::2] << 4), np.uint8)


def parameters(scale: Array, zero_point: Array, axis: int | None) -> Any:
    """Quantization of a tensor: per tensor, or along ``axis``."""
    return schema.QuantizationParametersT(
        scale=[float(s) for s in np.reshape(scale, -1)],
        zeroPoint=[int(z) for z in np.reshape(zero_point, -1)],
        quantizedDimension=axis or 0,
    )


def signature(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    """The ``serving_default`` signature."""
    return schema.SignatureDefT(
        inputs=[schema.TensorMapT(n, t) for n, t in inputs.items()],
        outputs=[schema.TensorMapT(n, t) for n, t in outputs.items()],
        signatureKey="serving_default",
        subgraphIndex=0,
    )
