"""Constant factors and offsets behind a convolution or linear layer into its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, attrs, given, operand, single_use, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["FoldAffine", "per_channel"]

_LINEAR = frozenset({"Conv", "ConvTranspose", "MatMul"})


@dataclass(frozen=True)
class FoldAffine(NodePass):
    """Fold ``Mul``, ``Div``, ``Add``, ``Sub`` by a constant into what is in front.

    ``Add(Mul(Conv(x, W, c), a), b)``  ->  ``Conv(x, a W, a c + b)``
    ``Mul(MatMul(x, W), a)``           ->  ``MatMul(x, a W)``
    ``Mul(Add(MatMul(x, W), c), a)``   ->  ``Add(MatMul(x, a W), a c)``
    ``Add(Add(x, c), b)``              ->  ``Add(x, c + b)``

    1. The constant has one number per output channel, or one for all; it does not broadcast
       the result to a larger shape.
    2. The weight is a constant; what is in front is read by this node only.
    3. An offset behind ``MatMul`` is the canonical bias and stays an ``Add``; an offset of
       rank above one that is constant along all but the last axis becomes rank one.

    Products are computed in float64 and rounded once: up to a reassociated sum the function
    is the same.
    """

    name: ClassVar[str] = "fold-affine"
    ops: ClassVar[frozenset[str]] = frozenset({"Mul", "Div", "Add", "Sub"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Find the layer in front and fold, or say what is in the way."""
        x, shape = operand(node, 0), static(node.outputs[0])
        array = constant(operand(node, 1))
        producer = x.producer()
        if array is None or producer is None or producer.domain or shape is None:
            return None
        if array.dtype.kind != "f" or static(x) != shape:
            return None
        offset = node.op_type in ("Add", "Sub")
        fold = _fold_of(producer, offset)
        if fold is None:
            return None
        if not single_use(x):  # case 2
            return Refused(f"the {producer.op_type} in front has other readers")
        axis = 1 if producer.op_type in ("Conv", "ConvTranspose") else len(shape) - 1
        vector = per_channel(array, shape, axis)
        if vector is None:  # case 1
            return Refused(f"a constant of shape {array.shape} is not one number per channel")
        wide = vector.astype(np.float64)
        if node.op_type == "Div" and not wide.all():
            return Refused("the constant divides by zero")
        wide = {"Div": np.reciprocal, "Sub": np.negative}.get(node.op_type, np.positive)(wide)
        return fold(producer, wide, op)


def _fold_of(
    producer: ir.Node, offset: bool
) -> Callable[[ir.Node, Array, Builder], Result] | None:
    kind = producer.op_type
    if kind in ("Conv", "ConvTranspose"):
        if constant(given(producer, 1)) is None or not _constant_bias(producer):
            return None
        return _shift_conv if offset else _scale_conv
    if kind == "MatMul" and not offset and _vector_weight(producer):
        return _scale_matmul
    if kind != "Add":
        return None
    inner = operand(producer, 0).producer()
    bias = constant(operand(producer, 1))
    if inner is None or inner.op_type != "MatMul" or bias is None or bias.ndim != 1:
        return None
    if offset:
        return _shift_bias
    return _scale_linear if _vector_weight(inner) and single_use(inner.outputs[0]) else None


def _constant_bias(node: ir.Node) -> bool:
    return given(node, 2) is None or constant(given(node, 2)) is not None


def _vector_weight(node: ir.Node) -> bool:
    weight = constant(given(node, 1))
    return weight is not None and weight.ndim == 2


def per_channel(array: Array, shape: tuple[int, ...], axis: int) -> Array | None:
    """The constant as one number per channel; ``None`` if it varies along another axis."""
    dims = (1,) * (len(shape) - array.ndim) + array.shape
    if any(d != 1 for i, d in enumerate(dims) if i != axis):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[axis],))


def _narrow(wide: Array, like: Array) -> Array:
    return wide.astype(like.dtype)


def _shift_conv(node: ir.Node, offset: Array, op: Builder) -> Result:
    weight = constant(operand(node, 1))
    bias = constant(given(node, 2))
    if weight is None:
        return None
    total = offset if bias is None else bias.astype(np.float64) + offset
    return _conv(node, op, operand(node, 1), op.constant(_narrow(total, weight)))


def _scale_conv(node: ir.Node, factor: Array, op: Builder) -> Result:
    weight = constant(operand(node, 1))
    bias = constant(given(node, 2))
    if weight is None:
        return None
    if node.op_type == "Conv":
        scaled = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    else:  # [C_in, C_out / group, ...]: output channels run over groups, then axis 1
        group = int(attr(node, "group", 1))
        parts = weight.reshape(group, -1, *weight.shape[1:])
        spread = factor.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        scaled = (parts * spread).reshape(weight.shape)
    new_bias = None if bias is None else op.constant(_narrow(bias * factor, weight))
    return _conv(node, op, op.constant(_narrow(scaled, weight)), new_bias)


def _conv(node: ir.Node, op: Builder, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    x, out = operand(node, 0), node.outputs[0]
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return op.op(node.op_type, inputs, attrs(node), shape=out.shape, dtype=out.dtype)


def _scale_matmul(node: ir.Node, factor: Array, op: Builder) -> Result:
    weight = constant(operand(node, 1))
    if weight is None:
        return None
    scaled = op.constant(_narrow(weight * factor, weight))
    out = node.outputs[0]
    return op.op("MatMul", [operand(node, 0), scaled], shape=out.shape, dtype=out.dtype)


def _scale_linear(node: ir.Node, factor: Array, op: Builder) -> Result:
    inner = operand(node, 0).producer()
    bias = constant(operand(node, 1))
    if inner is None or bias is None:
        return None
    product = _scale_matmul(inner, factor, op)
    if not isinstance(product, ir.Value):
        return product
    offset = op.constant(_narrow(bias * factor, bias))
    out = node.outputs[0]
    return op.op("Add", [product, offset], shape=out.shape, dtype=out.dtype)


def _shift_bias(node: ir.Node, offset: Array, op: Builder) -> Result:
    bias = constant(operand(node, 1))
    if bias is None:
        return None
    total = op.constant(_narrow(bias.astype(np.float64) + offset, bias))
    out = node.outputs[0]
    return op.op("Add", [operand(node, 0), total], shape=out.shape, dtype=out.dtype)
