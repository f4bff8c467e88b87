"""Small questions and edits on ``onnx_ir`` models that every pass and backend needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Names", "constant", "dtype_of", "fresh_name", "shape_of"]


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The constant array behind a value; ``None`` if it is not constant.

    Args:
        value: An initializer (or any value with ``const_value``); ``None`` is allowed.
    """
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value of a canonical model.

    Raises:
        ValueError: The shape is unknown or symbolic (a bug: canonical shapes are static).
    """
    if value.shape is None or not value.shape.is_static():
        raise ValueError(f"value {value.name!r} has no static shape: {value.shape}")
    return tuple(int(d) for d in value.shape.numpy())


def dtype_of(value: ir.Value) -> np.dtype[Any]:
    """The numpy dtype of a value.

    Raises:
        ValueError: The dtype is unknown.
    """
    if value.dtype is None:
        raise ValueError(f"value {value.name!r} has no dtype")
    return np.dtype(value.dtype.numpy())


class Names:
    """Hands out value names that a graph does not use; scans the graph once, when first asked.

    One object serves any number of edits: the names it gives are never given again, and an
    edit that adds no names of its own choosing cannot collide with them.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._taken: set[str] = set()

    def fresh(self, base: str) -> str:
        """``base`` if it is free, else ``base.1``, ``base.2``, ..."""
        if not self._taken:
            self._taken = _names(self._graph)
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}.{number}"
        self._taken.add(name)
        return name


def _names(graph: ir.Graph) -> set[str]:
    used = {v.name or "" for v in graph.inputs} | set(graph.initializers)
    return used | {out.name or "" for node in graph for out in node.outputs}


def fresh_name(graph: ir.Graph, base: str) -> str:
    """A value name not used in ``graph``: ``base``, else ``base.1``, ``base.2``, ..."""
    return Names(graph).fresh(base)
