"""What rules that match by structure have in common: closed sites and shape helpers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.rewrite import Match, Refused

__all__ = [
    "closed_match",
    "compose",
    "has_static_shape",
    "is_op",
    "normalized_perm",
    "require_opset",
    "swapped",
]


def require_opset(model: ir.Model, version: int, rule: str) -> None:
    """Raise unless the model's default domain is at ``version`` or later.

    Raises:
        PreconditionError: The model is older; it was not loaded through ``edgevit.loading``.
    """
    found = model.opset_imports.get("", 0)
    if found < version:
        raise ir.passes.PreconditionError(
            f"{rule} expects opset {version} or later, found {found}: raise the opset first"
        )


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether a node is one of these operators of the default domain."""
    return node is not None and node.domain == "" and node.op_type in op_types


def has_static_shape(*values: ir.Value) -> bool:
    """Whether all values have fully known shapes."""
    return all(v.shape is not None and v.shape.is_static() for v in values)


def closed_match(
    output: ir.Value, nodes: Iterable[ir.Node], bound: Mapping[str, Any]
) -> Match | Refused:
    """A match of ``nodes`` that compute ``output``, if nothing else reads what is between.

    Args:
        output: The value that the replacement takes the place of.
        nodes: All nodes of the site; repeated ones count once.
        bound: Facts for ``check`` and ``rewrite``.
    """
    unique = {id(node): node for node in nodes}
    root = output.producer()
    if root is None:
        raise ValueError(f"{output.name!r} has no producer: not the output of a site")
    for node in unique.values():
        for value in node.outputs:
            if value is output:
                continue
            if value.is_graph_output():
                return Refused(f"intermediate {value.name!r} is an output of the graph")
            for consumer, _ in value.uses():
                if id(consumer) not in unique:
                    return Refused(
                        f"intermediate {value.name!r} is also used by {consumer.op_type} "
                        f"{consumer.outputs[0].name!r}"
                    )
    return Match(root, bound, tuple(unique.values()), (output,))


def compose(first: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation of ``Transpose(first)`` followed by ``Transpose(then)``."""
    return tuple(first[i] for i in then)


def swapped(rank: int) -> tuple[int, ...]:
    """The permutation that swaps the last two of ``rank`` axes."""
    return (*range(rank - 2), rank - 1, rank - 2)


def normalized_perm(node: ir.Node) -> tuple[int, ...]:
    """The permutation of a ``Transpose``; the default one reverses the axes."""
    found = node.attributes.get("perm")
    if found is not None:
        return tuple(int(i) for i in found.as_ints())
    data = node.inputs[0]
    if data is None:
        raise ValueError("a Transpose has one input")
    return tuple(reversed(range(len(shape_of(data)))))
