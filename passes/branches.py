"""What ``merge-branches`` sums: convolutions, and factors per channel, of one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, given, operand, single_use, static
from edgevit.passes.fold_affine import per_channel

__all__ = ["Branch", "Joined", "branch_of", "joined"]


@dataclass(frozen=True)
class Branch:
    """One summand, ``sign * (Conv(x) or x * factor + offset)``.

    Attributes:
        sign: 1 or -1.
        conv: The convolution; ``None`` for a factor per channel.
        factor: Per channel; ``None`` means one.
        offset: Per channel; ``None`` means zero.
        alone: Whether nothing but the sum reads what is between.
    """

    sign: float
    conv: ir.Node | None
    factor: Array | None = None
    offset: Array | None = None
    alone: bool = True

    @property
    def plain(self) -> bool:
        """Whether it is the value itself."""
        return self.conv is None and self.factor is None and self.offset is None


@dataclass(frozen=True)
class Joined:
    """The one convolution: the node that gives its attributes, its weight and bias."""

    conv: ir.Node
    weight: Array
    bias: Array | None


def branch_of(value: ir.Value, sign: float, x: ir.Value) -> Branch | None:
    """``value`` as a function of ``x``; ``None`` if it is no branch of it."""
    if value is x:
        return Branch(sign, None)
    node, shape = value.producer(), static(value)
    if node is None or node.domain or shape is None or len(shape) != 4:
        return None
    if node.op_type == "Conv":
        alone = single_use(value)
        return Branch(sign, node, alone=alone) if node.inputs[0] is x else None
    found = _affine(value, shape)
    if found is None or found[0] is not x:
        return None
    return Branch(sign, None, found[1], found[2], alone=found[3])


def _affine(
    value: ir.Value, shape: tuple[int, ...]
) -> tuple[ir.Value, Array | None, Array | None, bool] | None:
    """``x * factor + offset``: (x, factor, offset, whether nothing else reads the parts)."""
    factor = offset = None
    alone, node = single_use(value), value.producer()
    if node is not None and node.op_type == "Add":
        offset = _vector(node, shape)
        if offset is None:
            return None
        value, node = operand(node, 0), operand(node, 0).producer()
        alone = alone and (node is None or node.op_type != "Mul" or single_use(value))
    if node is not None and node.op_type == "Mul" and static(operand(node, 0)) == shape:
        factor = _vector(node, shape)
        value = operand(node, 0) if factor is not None else value
    return (value, factor, offset, alone) if static(value) == shape else None


def _vector(node: ir.Node, shape: tuple[int, ...]) -> Array | None:
    array = constant(operand(node, 1))
    return None if array is None or array.dtype.kind != "f" else per_channel(array, shape, 1)


def joined(branches: Sequence[Branch], shape: tuple[int, ...] | None) -> Joined | str:
    """One convolution for all branches, or why there is none.

    Args:
        branches: At least one of them a convolution.
        shape: Of the sum.
    """
    convs = [b.conv for b in branches if b.conv is not None]
    largest = max(convs, key=lambda n: _area(n))
    reason = _obstacle(branches, largest, shape)
    if reason:
        return reason
    weight = constant(operand(largest, 1))
    if weight is None:
        return "a weight is not constant"
    total = np.zeros(weight.shape, np.float64)
    bias = np.zeros(weight.shape[0], np.float64)
    for branch in branches:
        total += branch.sign * _kernel(branch, largest, weight.shape)
        bias += branch.sign * _offset(branch)
    some = bool(bias.any())
    return Joined(
        largest, total.astype(weight.dtype), bias.astype(weight.dtype) if some else None
    )


def _area(conv: ir.Node) -> int:
    return int(np.prod(attr(conv, "kernel_shape", (0,))))


def _obstacle(
    branches: Sequence[Branch], largest: ir.Node, shape: tuple[int, ...] | None
) -> str:
    if not all(b.alone for b in branches):  # case 5
        return "a branch has other readers than the sum"
    for branch in branches:
        if branch.conv is not None:
            reason = _conv_obstacle(branch.conv, largest)
        else:
            reason = _identity_obstacle(largest, shape)
        if reason:
            return reason
    return ""


def _conv_obstacle(conv: ir.Node, largest: ir.Node) -> str:
    bias = given(conv, 2)
    if constant(given(conv, 1)) is None or (bias is not None and constant(bias) is None):
        return "a weight is not constant"
    if set(attr(conv, "dilations", (1, 1))) != {1}:
        return "a branch is dilated"
    if any(attr(conv, name) != attr(largest, name) for name in ("strides", "group")):
        return "strides or groups differ"
    return "" if _margins(conv, largest) else "the kernels are not centered on one element"


def _identity_obstacle(conv: ir.Node, shape: tuple[int, ...] | None) -> str:
    if static(operand(conv, 0)) != shape or set(attr(conv, "strides")) != {1}:
        return "the convolution changes the shape"
    kernel, pads = attr(conv, "kernel_shape"), attr(conv, "pads")
    odd = all(k % 2 and pads[i] == k // 2 for i, k in enumerate(kernel))
    return "" if odd else "the kernel is not centered"


def _margins(conv: ir.Node, largest: ir.Node) -> list[tuple[int, int]] | None:
    """Zeros around a kernel that make it the largest one's size, by the pads (case 4)."""
    big, pads = attr(largest, "pads"), attr(conv, "pads")
    differ = [p - q for p, q in zip(big, pads, strict=True)]
    half = len(differ) // 2
    sizes = zip(attr(largest, "kernel_shape"), attr(conv, "kernel_shape"), strict=True)
    grown = [k - m for k, m in sizes]
    fits = all(differ[i] + differ[i + half] == grown[i] for i in range(half))
    if not fits or min(differ) < 0:
        return None
    return [(differ[i], differ[i + half]) for i in range(half)]


def _kernel(branch: Branch, largest: ir.Node, shape: tuple[int, ...]) -> Array:
    if branch.conv is not None:
        weight = constant(operand(branch.conv, 1))
        margins = _margins(branch.conv, largest)
        if weight is None or margins is None:
            raise ValueError("a branch passed the check but cannot be placed")
        return np.pad(weight.astype(np.float64), [(0, 0), (0, 0), *margins])
    kernel = np.zeros(shape, np.float64)
    channels = np.arange(shape[0])  # as many in as out: see ``_identity_obstacle``
    row, column = (size // 2 for size in shape[2:])
    factor = 1.0 if branch.factor is None else branch.factor
    kernel[channels, channels % shape[1], row, column] = factor
    return kernel


def _offset(branch: Branch) -> Array | float:
    found = branch.offset if branch.conv is None else constant(given(branch.conv, 2))
    return 0.0 if found is None else found.astype(np.float64)
