"""The record of one canonical operator in the tables, and the conditions they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.attributes import data_of
from edgevit.targets.litert.context import Context
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule
from edgevit.targets.neighbors import fixed

__all__ = ["Check", "Op", "all_of", "any_node", "floats", "scalar"]

Check = Callable[[ir.Node], str | None]


def any_node(node: ir.Node) -> str | None:
    """No condition."""
    del node
    return None


@dataclass(frozen=True)
class Op:
    """A canonical operator.

    Attributes:
        lower: Emits the TFLite operators of a group.
        rule: Orders of axes it can work in; a function where that depends on the node.
        check: Why a node cannot be lowered; ``None`` if it can.
    """

    lower: Callable[[Context, Group], None]
    rule: Rule | Callable[[Group], Rule]
    check: Check = any_node


def all_of(*checks: Check) -> Check:
    """The first reason that any of the checks gives."""

    def check(node: ir.Node) -> str | None:
        return next((r for c in checks if (r := c(node)) is not None), None)

    return check


def floats(node: ir.Node) -> str | None:
    """The first operand must be float32."""
    dtype = dtype_of(data_of(node)).name
    return None if dtype == "float32" else f"dtype {dtype}: only float32 has a kernel"


def rank(*ranks: int) -> Check:
    """The first operand must have one of these ranks."""

    def check(node: ir.Node) -> str | None:
        found = len(shape_of(data_of(node)))
        wanted = " or ".join(str(r) for r in ranks)
        return None if found in ranks else f"rank {found}: only rank {wanted} has a kernel"

    return check


def constant_input(index: int, what: str) -> Check:
    """Input ``index`` must be a constant."""

    def check(node: ir.Node) -> str | None:
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if fixed(value) else f"{what} must be constant"

    return check


def scalar(ctx: Context, value: float) -> int:
    """A constant float32 scalar of shape [1]."""
    return ctx.constant(f"scalar {value:.9g}", [value], "float32")
