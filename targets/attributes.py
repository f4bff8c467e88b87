"""Inputs and attributes of canonical nodes, as every table of operators reads them."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["attribute", "data_of", "optional", "text", "whole"]


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


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()
