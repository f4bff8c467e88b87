"""``Clip`` with both bounds; ``Min`` and ``Max`` by a number become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import given, operand, scalar, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeClip"]


@dataclass(frozen=True)
class NormalizeClip(NodePass):
    """One form for bounds that are numbers.

    ``Min(Max(x, 0), 6)``  ->  ``Clip(x, 0, 6)``;  ``Clip(x, 0, inf)``  ->  ``Relu(x)``

    1. The bounds are constant numbers, and the other operand does not broadcast.
    2. A missing bound is infinite (for integers: the dtype's own).
    3. A clip of a clip is one, with the first bounds clipped by the second.
    4. No bound at all: the node goes. From 0 up, for floats: ``Relu``.
    """

    name: ClassVar[str] = "normalize-clip"
    ops: ClassVar[frozenset[str]] = frozenset({"Clip", "Min", "Max"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the form is reached."""
        x, shape = operand(node, 0), static(node.outputs[0])
        if node.op_type != "Clip" and (len(node.inputs) != 2 or static(x) != shape):
            return None
        dtype = x.dtype
        if dtype is None or shape is None:
            return Refused("dtype or shape is not known")
        least, most = _limits(dtype)
        bounds = _bounds(node, least, most)
        if bounds is None:
            return None if node.op_type != "Clip" else Refused("the bounds are not constant")
        source, (low, high) = _merged(x, bounds, least, most)
        if (low, high) == (least, most):  # case 4
            return source
        if low == 0.0 and high == most and dtype.is_floating_point():
            return op.op("Relu", [source], shape=shape, dtype=dtype)
        if source is x and node.op_type == "Clip" and _written(node):
            return None
        limits = [op.constant(np.array(b, dtype.numpy())) for b in (low, high)]
        return op.op("Clip", [source, *limits], shape=shape, dtype=dtype)


def _merged(
    x: ir.Value, bounds: tuple[float, float], least: float, most: float
) -> tuple[ir.Value, tuple[float, float]]:
    """Case 3: the start of a chain of clips, and the bounds of all of them together."""
    inner = x.producer()
    if inner is None or inner.domain or inner.op_type not in ("Clip", "Relu"):
        return x, bounds
    first = (0.0, most) if inner.op_type == "Relu" else _bounds(inner, least, most)
    if first is None:
        return x, bounds
    low, high = (min(max(b, bounds[0]), bounds[1]) for b in first)
    return operand(inner, 0), (low, high)


def _limits(dtype: ir.DataType) -> tuple[float, float]:
    if dtype.is_floating_point():
        return -np.inf, np.inf
    info = np.iinfo(dtype.numpy())
    return float(info.min), float(info.max)


def _bounds(node: ir.Node, least: float, most: float) -> tuple[float, float] | None:
    if node.op_type != "Clip":
        number = scalar(given(node, 1))
        if number is None:
            return None
        return (number, most) if node.op_type == "Max" else (least, number)
    low = least if given(node, 1) is None else scalar(given(node, 1))
    high = most if given(node, 2) is None else scalar(given(node, 2))
    # With crossed bounds ONNX gives the upper one everywhere.
    return None if low is None or high is None else (min(low, high), high)


def _written(node: ir.Node) -> bool:
    arrays = [constant(given(node, i)) for i in (1, 2)]
    return all(a is not None and a.ndim == 0 for a in arrays)
