"""Linear layers as valid convolutions whose kernel is as large as a token's tile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.remove_dead import RemoveDead
from edgevit.pipeline import Outcome
from edgevit.rewrite import Builder, Refused

__all__ = ["ConvShare", "TokenProduct", "reshaped", "squarest", "token_product"]


def squarest(features: int) -> tuple[int, int]:
    """The factors of a number of features that are closest to each other, smaller first."""
    height = next(h for h in range(math.isqrt(features), 0, -1) if features % h == 0)
    return height, features // height


@dataclass(frozen=True, eq=False)
class TokenProduct:
    """A product of tokens with a constant matrix.

    Attributes:
        x: The tokens, ``[.., d]``.
        weight: ``[d, m]``, float.
        tokens: How many there are, all leading axes together.
        out: Shape of the result, ``[.., m]``.
    """

    x: ir.Value
    weight: np.ndarray[Any, Any]
    tokens: int
    out: tuple[int, ...]


def token_product(node: ir.Node) -> TokenProduct | Refused | None:
    """What a ``MatMul`` multiplies, if it is a linear layer over tokens of static shape."""
    x, weight = operand(node, 0), constant(operand(node, 1))
    shape, out = static(x), static(node.outputs[0])
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f":
        return None
    if shape is None or out is None or len(shape) < 2:
        return Refused("the shape of x is not static, or x is a vector")
    return TokenProduct(x, weight, math.prod(shape[:-1]), out)


def reshaped(op: Builder, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The value in another static shape of as many elements."""
    target = op.constant(np.asarray(shape, np.int64))
    return op.op("Reshape", [value, target], {"allowzero": 0}, shape=shape, dtype=value.dtype)


@dataclass(frozen=True)
class ConvShare(NodePass):
    """A linear layer as convolutions shared by all tokens, valid padding, kernel = tile.

    ``MatMul(x [.., d], W [d, m])``
    ->  ``Reshape(Conv(Reshape(x, [T, 1, a, b]), K [m, 1, a, b]), [.., m])``, ``a b = d``,
    ``K[j, 0, e // b, e % b] = W[e, j]``

    The exact limit of ConvShareViT (arXiv 2504.11517): a valid convolution with a kernel as
    large as the input is one inner product, ``y[t, j] = sum over e of x[t, e] W[e, j]``.
    The cheap form, few smaller kernels, is ``trained-convshare``.

    1. ``W`` is a float constant of rank 2; x has rank 2 at least.
    """

    name: ClassVar[str] = "convshare"
    ops: ClassVar[frozenset[str]] = frozenset({"MatMul"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite one product with a constant matrix."""
        site = token_product(node)  # case 1
        if not isinstance(site, TokenProduct):
            return site
        x, weight, tokens = site.x, site.weight, site.tokens
        features, outputs = weight.shape
        height, width = squarest(features)
        tiles = reshaped(op, x, (tokens, 1, height, width))
        kernels = op.constant(
            np.ascontiguousarray(weight.T).reshape(outputs, 1, height, width)
        )
        attributes = {
            "kernel_shape": (height, width),
            "strides": (height, width),
            "dilations": (1, 1),
            "pads": (0, 0, 0, 0),
            "group": 1,
        }
        made = op.op(
            "Conv", [tiles, kernels], attributes, shape=(tokens, outputs, 1, 1), dtype=x.dtype
        )
        return reshaped(op, made, site.out)

    def call(self, model: ir.Model) -> Outcome:
        """Rewrite every product, then drop the matrices that nothing reads any more."""
        done = super().call(model)
        if done.modified:
            RemoveDead().call(model)
        return done
