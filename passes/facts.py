"""Questions that canonicalization passes ask about a node; none of them edits anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant

__all__ = [
    "Array",
    "attr",
    "attrs",
    "given",
    "ints",
    "is_float",
    "operand",
    "positive_axes",
    "rank",
    "scalar",
    "single_use",
    "static",
]

Array = np.ndarray[Any, Any]


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, or ``default`` if it is absent."""
    found = node.attributes.get(name)
    return default if found is None or found.value is None else found.value


def attrs(node: ir.Node, **changes: Any) -> dict[str, Any]:
    """All attributes of a node as values, with changes; a change to ``None`` removes one."""
    merged: dict[str, Any] = {**node.attributes, **changes}
    return {k: v for k, v in merged.items() if v is not None}


def given(node: ir.Node, index: int) -> ir.Value | None:
    """The input at ``index``; ``None`` if it is absent or empty."""
    return node.inputs[index] if index < len(node.inputs) else None


def operand(node: ir.Node, index: int) -> ir.Value:
    """The input at ``index`` of an operator that requires it.

    Raises:
        ValueError: It is absent (an invalid model: the loader checks this).
    """
    value = given(node, index)
    if value is None:
        raise ValueError(f"{node.op_type} {node.name!r} has no input {index}")
    return value


def static(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value if all of it is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape.numpy())


def rank(value: ir.Value) -> int | None:
    """The rank of a value if it is known."""
    return None if value.shape is None else len(value.shape)


def ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """The elements of a constant integer tensor, flattened; ``None`` if it is not one."""
    array = constant(value)
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(x) for x in array.reshape(-1))


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant whose elements are all equal; ``None`` otherwise."""
    array = constant(value)
    if array is None or array.size == 0 or array.dtype.kind not in "fiu":
        return None
    first = array.reshape(-1)[0]
    return float(first) if bool((array == first).all()) else None


def is_float(value: ir.Value) -> bool:
    """True if the dtype is known and is a floating-point one."""
    return value.dtype is not None and value.dtype.is_floating_point()


def single_use(value: ir.Value) -> bool:
    """True if exactly one node input reads the value and it is no graph output."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def positive_axes(axes: Sequence[int], size: int) -> tuple[int, ...]:
    """Axes as non-negative numbers, in the order given."""
    return tuple(a + size if a < 0 else a for a in axes)
