"""What the QuantizeLinear and DequantizeLinear nodes of a graph say: parameters and codes.

ONNX operator specification, QuantizeLinear and DequantizeLinear (opset 23): per tensor, per
axis, or block-wise along an axis; an absent zero point is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of

__all__ = [
    "Quantizer",
    "Stored",
    "dequantizer",
    "forget_marks",
    "keep_mark",
    "mark_as_run",
    "quantized_as_run",
    "quantizer_of",
    "stored",
]

Array = np.ndarray[Any, Any]
_AS_RUN = ("edgevit.activations", "as-run")  # metadata of a node


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Parameters of one quantizer.

    Attributes:
        scale: float32 of shape ``()`` (per tensor), ``[C]``, or block-wise.
        zero_point: int32 of the same shape.
        dtype: ONNX dtype of the codes.
        axis: Of more than one scale, non-negative; ``None`` per tensor.
        block: Elements that share a scale along ``axis``; 0 if not block-wise.
    """

    scale: Array
    zero_point: Array
    dtype: ir.DataType
    axis: int | None
    block: int = 0

    def same(self, other: Quantizer) -> bool:
        """Whether both map codes to the same numbers."""
        plain = (self.dtype, self.axis, self.block) == (other.dtype, other.axis, other.block)
        return (
            plain
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 0."""
        return not np.any(self.zero_point)


@dataclass(frozen=True, eq=False)
class Stored:
    """A constant that is kept as codes.

    Attributes:
        codes: int32 codes in the shape of the constant.
        quantizer: What they mean.
        name: Of the codes' initializer.
    """

    codes: Array
    quantizer: Quantizer
    name: str

    def numbers(self) -> Array:
        """The constant itself, float32."""
        q, shape = self.quantizer, self.codes.shape
        scale, zero = (_spread(a, q, shape) for a in (q.scale, q.zero_point))
        return np.asarray((self.codes - zero) * scale, np.float32)


def _spread(array: Array, q: Quantizer, shape: tuple[int, ...]) -> Array:
    if q.axis is None:
        return array
    if q.block:
        wide = np.repeat(array, q.block, axis=q.axis)
        return np.take(wide, np.arange(shape[q.axis]), axis=q.axis)
    return array.reshape([-1 if i == q.axis else 1 for i in range(len(shape))])


def quantizer_of(node: ir.Node) -> Quantizer | None:
    """Parameters of a quantize or dequantize node; ``None`` if they are not constant."""
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant(given)
    if scale is None or (given is not None and zero is None):
        return None
    coded = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    if coded is None or coded.dtype is None:
        return None
    rank = len(shape_of(coded))
    block = node.attributes.get_int("block_size", 0) or 0
    plain = scale.size == 1 and not block
    axis = None if plain or rank == 0 else (node.attributes.get_int("axis", 1) or 0) % rank
    shape = () if plain else scale.shape
    zeros = np.zeros(shape, np.int32) if zero is None else zero.astype(np.int32)
    return Quantizer(
        scale.astype(np.float32).reshape(shape), zeros.reshape(shape), coded.dtype, axis, block
    )


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a value, if one does."""
    maker = None if value is None else value.producer()
    found = maker is not None and maker.domain == "" and maker.op_type == "DequantizeLinear"
    return maker if found else None


def stored(value: ir.Value | None) -> Stored | None:
    """The codes behind a constant that comes out of a DequantizeLinear."""
    node = dequantizer(value)
    codes = None if node is None else constant(node.inputs[0])
    found = None if node is None else quantizer_of(node)
    if node is None or codes is None or found is None or node.inputs[0] is None:
        return None
    return Stored(codes.astype(np.int32), found, str(node.inputs[0].name))


def mark_as_run(node: ir.Node) -> None:
    """Let the kernel of a layer with stored weights quantize the rows it reads as it runs."""
    key, text = _AS_RUN
    node.metadata_props[key] = text


def quantized_as_run(node: ir.Node) -> bool:
    """Whether the graph asks for that; other engines than the one it is made for do not."""
    key, text = _AS_RUN
    return node.metadata_props.get(key) == text


def keep_mark(old: ir.Node, new: ir.Value) -> None:
    """Let the node that takes a layer's place, by what it makes, ask for it too."""
    node = new.producer()
    if quantized_as_run(old) and node is not None:
        mark_as_run(node)


def forget_marks(model: ir.Model) -> None:
    """What a file says of itself does not count: only passes of ours ask."""
    for node in model.graph:
        node.metadata_props.pop(_AS_RUN[0], None)
