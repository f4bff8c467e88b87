"""Constant factors and offsets in front of a convolution into its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, attrs, given, operand, single_use, static
from edgevit.passes.fold_affine import per_channel
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["FoldAffineAhead"]

# A float16 artifact must hold what is folded: the largest weight stays seven binades above
# float16's smallest normal number, and nothing passes half of its range.
_SMALLEST_PEAK = 2.0**-7
_LARGEST = 2.0**15


@dataclass(frozen=True)
class FoldAffineAhead(NodePass):
    """Fold ``Mul``, ``Div``, ``Add``, ``Sub`` by a constant into the convolution behind.

    ``Conv(Mul(x, a), W, c)``          ->  ``Conv(x, a W, c)``
    ``Conv(Add(x, b), W, c)``          ->  ``Conv(x, W, c + sum(b W))``
    ``Conv(Add(Mul(x, a), b), W, c)``  ->  ``Conv(Add(x, b / a), a W, c)``

    1. The constant has one number per input channel, or one for all.
    2. The weight and the bias are constants; nothing else reads what is folded.
    3. An offset goes into the bias only where the convolution does not pad: the offset is
       not added to padding. Where it pads, only the factor in front of the offset is folded
       (third line), and only if no factor is zero.
    4. The folded numbers stay in the range that float16 holds in full precision.

    Networks with a learned scalar factor and offset behind every activation (PP-OCRv4) lose
    a third of their elementwise operators, and half of the float16 error that these add.
    Products are computed in float64 and rounded once.
    """

    name: ClassVar[str] = "fold-affine-ahead"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Find the factor or offset in front and fold it, or say what is in the way."""
        x = operand(node, 0)
        before, weight = x.producer(), constant(operand(node, 1))
        if before is None or weight is None or not _is_affine(before):
            return None
        if given(node, 2) is not None and constant(given(node, 2)) is None:
            return None
        vector = _vector(before)
        if vector is None:  # case 1
            return Refused("the constant in front is not one number per channel")
        if not single_use(x):  # case 2
            return Refused(f"the {before.op_type} in front has other readers")
        if before.op_type in ("Mul", "Div"):
            scaled = _scaled(node, weight, vector)
            if scaled is None:  # case 4
                return Refused("the scaled weights would leave float16's range")
            return _conv(node, op, operand(before, 0), scaled, given(node, 2))
        if any(attr(node, "pads", ())):  # case 3
            return _move_factor(node, before, weight, vector, op)
        return _into_bias(node, before, weight, vector, op)


def _is_affine(node: ir.Node) -> bool:
    if node.domain or node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return False
    array, x = constant(operand(node, 1)), operand(node, 0)
    if array is None or array.dtype.kind != "f" or constant(x) is not None:
        return False
    return static(x) is not None and static(x) == static(node.outputs[0])


def _vector(node: ir.Node) -> Array | None:
    """Factor or offset of each channel in float64, as a product or a sum would have it."""
    array, shape = constant(operand(node, 1)), static(node.outputs[0])
    if array is None or shape is None:
        return None
    vector = per_channel(array.astype(np.float64), shape, 1)
    if vector is None or (node.op_type == "Div" and not vector.all()):
        return None
    signed = {"Div": np.reciprocal, "Sub": np.negative}.get(node.op_type, np.positive)
    return np.asarray(signed(vector))


def _by_input(node: ir.Node, weight: Array, vector: Array) -> Array:
    """``weight`` [O, I / group, h, w] times one number per input channel, in float64."""
    group = int(attr(node, "group", 1))
    parts = weight.astype(np.float64).reshape(group, -1, *weight.shape[1:])
    spread = vector.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
    return np.asarray((parts * spread).reshape(weight.shape))


def _scaled(node: ir.Node, weight: Array, factor: Array) -> Array | None:
    wide = _by_input(node, weight, factor)
    if not _SMALLEST_PEAK <= np.abs(wide).max(initial=0) <= _LARGEST:
        return None
    return wide.astype(weight.dtype)


def _conv(
    node: ir.Node, op: Builder, x: ir.Value, weight: Array, bias: ir.Value | None
) -> ir.Value:
    inputs = [x, op.constant(weight), *([] if bias is None else [bias])]
    out = node.outputs[0]
    return op.op("Conv", inputs, attrs(node), shape=out.shape, dtype=out.dtype)


def _into_bias(
    node: ir.Node, before: ir.Node, weight: Array, offset: Array, op: Builder
) -> Result:
    axes = tuple(range(1, weight.ndim))
    total = _by_input(node, weight, offset).sum(axis=axes)
    bias = constant(given(node, 2))
    total = total if bias is None else total + bias
    if np.abs(total).max(initial=0) > _LARGEST:  # case 4
        return Refused("the bias would leave float16's range")
    value = op.constant(total.astype(weight.dtype))
    inputs, out = [operand(before, 0), operand(node, 1), value], node.outputs[0]
    return op.op("Conv", inputs, attrs(node), shape=out.shape, dtype=out.dtype)


def _move_factor(
    node: ir.Node, before: ir.Node, weight: Array, offset: Array, op: Builder
) -> Result:
    """``a x + b`` as ``a (x + b / a)``: the factor goes through the padded convolution."""
    product = operand(before, 0)
    inner = product.producer()
    if inner is None or inner.op_type not in ("Mul", "Div") or not _is_affine(inner):
        return None
    factor = _vector(inner)
    if factor is None or not factor.all():
        return Refused("a factor is zero, or not one number per channel")
    if not single_use(product):
        return Refused(f"the {inner.op_type} in front has other readers")
    scaled, shift = _scaled(node, weight, factor), offset / factor
    if scaled is None or np.abs(shift).max() > _LARGEST:  # case 4
        return Refused("the scaled weights or offsets would leave float16's range")
    same = (shift == shift[0]).all()
    shape = (1,) if same else (-1, *(1,) * (weight.ndim - 2))
    shaped = (shift[:1] if same else shift).reshape(shape).astype(weight.dtype)
    x = operand(inner, 0)
    moved = op.op("Add", [x, op.constant(shaped)], shape=x.shape, dtype=x.dtype)
    return _conv(node, op, moved, scaled, given(node, 2))
