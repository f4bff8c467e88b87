"""Groups of nodes that become one thing in the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.op_linear import fused_linear
from edgevit.targets.coreml.permute import wide_transpose

__all__ = ["Group", "Groups", "plan"]


class Group(Protocol):
    """Nodes lowered together."""

    def lower(self, ctx: Context) -> None:
        """Add the operations that compute the last node's output."""


@dataclass(frozen=True)
class Groups:
    """The groups of a graph.

    Attributes:
        by_last: Last node of each group -> the group, lowered in its place.
        swallowed: The other nodes of all groups.
    """

    by_last: Mapping[ir.Node, Group]
    swallowed: frozenset[ir.Node]


def plan(graph: ir.Graph) -> Groups:
    """Find the groups; they do not overlap."""
    by_last: dict[ir.Node, Group] = {}
    swallowed: set[ir.Node] = set()
    for node in graph:
        linear = fused_linear(node)
        if linear is not None:
            by_last[linear.add] = linear
            swallowed.add(linear.product)
        wide = wide_transpose(node) if node.op_type == "Transpose" else None
        if wide is not None:
            by_last[wide.after] = wide
            swallowed |= {wide.before, wide.transpose}
    return Groups(by_last, frozenset(swallowed))
