"""Batch normalization into the weights in front of it, else into a product and a sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm(NodePass):
    """Replace ``BatchNormalization`` by ``Mul`` and ``Add`` of constants.

    ``BN(x)``  ->  ``Add(Mul(x, a), b)``, a = gamma / sqrt(var + eps), b = beta - mean a

    1. Scale, bias, mean and variance are constant; the output shape is known.
    2. Not in training mode, and the training outputs are not read.
    3. The variances with epsilon are positive.

    ``fold-affine`` then moves ``a`` and ``b`` into a convolution or linear layer in front.
    ``a`` and ``b`` are computed in float64 and rounded once.
    """

    name: ClassVar[str] = "fold-batchnorm"
    ops: ClassVar[frozenset[str]] = frozenset({"BatchNormalization"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Decompose, or say why not."""
        x, shape = operand(node, 0), static(node.outputs[0])
        arrays = [constant(operand(node, i)) for i in range(1, 5)]
        if any(a is None for a in arrays) or shape is None:
            return Refused("the statistics are not constant, or the shape is not known")
        if attr(node, "training_mode", 0) or len(node.outputs) > 1:  # case 2
            return Refused("in training mode: it normalizes by the batch's own statistics")
        wide = [np.asarray(a, np.float64) for a in arrays]
        if not (wide[3] + float(attr(node, "epsilon", 1e-5)) > 0).all():  # case 3
            return Refused("a variance is not positive")
        factor, offset = _affine(wide, float(attr(node, "epsilon", 1e-5)))
        spread = (-1, *(1,) * (len(shape) - 2))
        dtype = np.float32 if x.dtype is None else x.dtype.numpy()
        a = op.constant(factor.reshape(spread).astype(dtype))
        b = op.constant(offset.reshape(spread).astype(dtype))
        scaled = op.op("Mul", [x, a], shape=shape, dtype=x.dtype)
        return op.op("Add", [scaled, b], shape=shape, dtype=x.dtype)


def _affine(wide: list[Array], epsilon: float) -> tuple[Array, Array]:
    gamma, beta, mean, variance = wide
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor
