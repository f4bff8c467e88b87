"""Tables of operators: names of nodes in them, and several tables as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import onnx_ir as ir

__all__ = ["key", "merged"]

Entry = TypeVar("Entry")


def key(node: ir.Node) -> str:
    """Name of a node's operator in the tables."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def merged(*tables: Mapping[str, Entry]) -> dict[str, Entry]:
    """All tables in one.

    Raises:
        ValueError: Two of them have an operator of the same name.
    """
    whole: dict[str, Entry] = {}
    for table in tables:
        twice = whole.keys() & table.keys()
        if twice:
            raise ValueError(f"operators with two lowerings: {sorted(twice)}")
        whole |= table
    return whole
