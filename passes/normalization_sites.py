"""Where a normalization's statistics are computed: ``(x - mean(x))``, ``sqrt(var(x) + e)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.passes.algebra import offset, scalar, sole_consumer
from edgevit.passes.sites import has_static_shape, is_op
from edgevit.rewrite import Refused

__all__ = [
    "Array",
    "Deviation",
    "Statistics",
    "affine_operand",
    "deviation",
    "mean_of",
    "over_axes",
    "statistics",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Deviation:
    """``x - ReduceMean(x, axes)`` and the nodes that compute it."""

    x: ir.Value
    mean: ir.Value
    axes: tuple[int, ...]
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Statistics:
    """``sqrt(mean((x - mean(x))^2) + epsilon)``, or its reciprocal.

    Attributes:
        x: What is normalized.
        axes: Over these axes, sorted, non-negative.
        epsilon: Added to the variance.
        value: The standard deviation, or its reciprocal.
        reciprocal: Which of the two.
        nodes: All nodes from x to ``value``.
    """

    x: ir.Value
    axes: tuple[int, ...]
    epsilon: float
    value: ir.Value
    reciprocal: bool
    nodes: tuple[ir.Node, ...]


def mean_of(value: ir.Value) -> tuple[ir.Value, tuple[int, ...], tuple[ir.Node, ...]] | None:
    """Read ``ReduceMean(y, axes)`` with kept axes as (y, axes, nodes).

    The axes may also have been dropped and put back by ``Unsqueeze`` or ``Reshape``.
    """
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "Unsqueeze", "Reshape") and node.inputs[0] is not None:
        inner = mean_of(node.inputs[0])
        if inner is None or not has_static_shape(value, inner[0]):
            return None
        kept = [1 if i in inner[1] else d for i, d in enumerate(shape_of(inner[0]))]
        return (*inner[:2], (*inner[2], node)) if kept == list(shape_of(value)) else None
    if not is_op(node, "ReduceMean") or node.inputs[0] is None:
        return None
    axes = _axes(node)
    return None if axes is None else (node.inputs[0], axes, (node,))


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        return None
    rank = len(data.shape)
    found = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if found is None:
        return None
    return tuple(sorted(int(a) % rank for a in found.ravel()))


def deviation(value: ir.Value) -> Deviation | None:
    """Read ``x - mean(x)``."""
    node = value.producer()
    if node is None or not is_op(node, "Sub") or node.inputs[1] is None:
        return None
    found = mean_of(node.inputs[1])
    if found is None or found[0] is not node.inputs[0] or node.outputs[0].shape is None:
        return None
    if found[0].shape != node.outputs[0].shape:
        return None  # the mean's axes were dropped: it broadcasts another way
    return Deviation(found[0], node.inputs[1], found[1], (*found[2], node))


def _square(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Node] | None:
    """Read ``a * b`` or ``Pow(a, 2)`` as two factors."""
    node = value.producer()
    if node is None or node.inputs[0] is None:
        return None
    if is_op(node, "Mul") and node.inputs[1] is not None:
        return node.inputs[0], node.inputs[1], node
    if is_op(node, "Pow") and scalar(node.inputs[1]) == 2.0:
        return node.inputs[0], node.inputs[0], node
    return None


def _root(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """What a square root is taken of, and whether its reciprocal is meant."""
    if node.inputs[0] is None:
        return None
    if is_op(node, "Sqrt"):
        return node.inputs[0], False
    exponent = scalar(node.inputs[1]) if is_op(node, "Pow") else None
    return (node.inputs[0], exponent < 0) if exponent in (0.5, -0.5) and exponent else None


def statistics(node: ir.Node) -> Statistics | Refused | None:
    """The statistics whose square root is ``node``; ``None`` if it is another root."""
    root = _root(node)
    total = root[0].producer() if root is not None else None
    if root is None or not is_op(total, "Add") or total is None:
        return None
    shifted = offset(root[0])
    if shifted is None:
        operands = [mean_of(v) for v in total.inputs if v is not None]
        hit = any(m is not None and _variance(m[0]) is not None for m in operands)
        return Refused("epsilon is not a constant scalar") if hit else None
    variance = mean_of(shifted[0])
    squared = _variance(variance[0]) if variance is not None else None
    if variance is None or squared is None:
        return None
    d, nodes = squared
    if variance[1] != d.axes:
        return Refused(f"mean over axes {d.axes}, variance over axes {variance[1]}")
    every = (*d.nodes, *nodes, *variance[2], total, node)
    return Statistics(d.x, d.axes, shifted[1], node.outputs[0], root[1], every)


def _variance(squared: ir.Value) -> tuple[Deviation, tuple[ir.Node, ...]] | None:
    """Read ``(x - mean(x))^2``; the two factors may be computed twice."""
    found = _square(squared)
    if found is None:
        return None
    a, b, node = found
    first, second = deviation(a), deviation(b)
    if first is None or second is None:
        return None
    if first.x is not second.x or first.axes != second.axes:
        return None
    return first, (*second.nodes, node)


def over_axes(array: Array | None, shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a constant varies over the normalized axes only."""
    if array is None or array.ndim > len(shape):
        return False
    full = (1,) * (len(shape) - array.ndim) + array.shape
    return all(d == 1 or (i in axes and d == shape[i]) for i, d in enumerate(full))


def affine_operand(
    value: ir.Value, op_type: str, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[Array | None, ir.Value]:
    """The constant that the next node multiplies by or adds, and that node's output.

    ``(None, value)`` if the next node does something else, or the constant varies over
    other axes than these.
    """
    node = sole_consumer(value)
    if node is None or not is_op(node, op_type):
        return None, value
    others = [v for v in node.inputs if v is not None and v is not value]
    array = constant(others[0]) if len(others) == 1 else None
    if not over_axes(array, shape, axes):
        return None, value
    return array, node.outputs[0]
