"""The record of one canonical operator, and what the tables share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import dtype_of
from edgevit.targets.attributes import data_of
from edgevit.targets.tvm.context import Context

__all__ = ["Check", "Op", "any_node", "floats", "integers"]

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


def integers(node: ir.Node, name: str) -> tuple[int, ...]:
    """A list of integers that canonical nodes always have."""
    return tuple(node.attributes[name].as_ints())
