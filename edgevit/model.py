"""Small questions and edits on ``onnx_ir`` models that every pass and backend needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["constant", "dtype_of", "fresh_name", "shape_of"]


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


def fresh_name(graph: ir.Graph, base: str, promised: Collection[str] = ()) -> str:
    """A value name not used in ``graph``: ``base``, else ``base.1``, ``base.2``, ...

    Args:
        graph: Where the name is to be unique.
        base: The name wanted.
        promised: Names given already to values that are not in the graph yet.
    """
    used = {v.name for v in graph.inputs} | set(graph.initializers) | set(promised)
    used |= {out.name for node in graph for out in node.outputs}
    if base not in used:
        return base
    number = 1
    while f"{base}.{number}" in used:
        number += 1
    return f"{base}.{number}"
