"""The record of one canonical operator, and what the tables share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.tvm.context import Context

__all__ = ["Check", "Op", "any_node", "attribute", "data_of", "floats", "integers", "optional"]

Check = Callable[[ir.Node], str | None]


def any_node(node: ir.Node) -> str | None:
    """No condition."""
    del node
    return None


def floats(node: ir.Node) -> str | None:
    """The first operand must be float32."""
    dtype = dtype_of(data_of(node)).name
    return None if dtype == "float32" else f"dtype {dtype}: only float32 has a kernel"


@dataclass(frozen=True)
class Op:
    """A canonical operator.

    Attributes:
        lower: Appends the calls of a node.
        check: Why a node cannot be lowered; ``None`` if it can.
    """

    lower: Callable[[Context, ir.Node], None]
    check: Check = any_node


def data_of(node: ir.Node, index: int = 0) -> ir.Value:
    """An input that must be there."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise ValueError(f"node {node.name!r} ({node.op_type}) has no input {index}")
    return value


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: float) -> float:
    """A numeric attribute."""
    found = node.attributes.get(name)
    return default if found is None else float(found.value)


def whole(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def integers(node: ir.Node, name: str) -> tuple[int, ...]:
    """A list of integers that canonical nodes always have."""
    return tuple(node.attributes[name].as_ints())


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def rank_of(value: ir.Value) -> int:
    """Number of axes."""
    return len(shape_of(value))
