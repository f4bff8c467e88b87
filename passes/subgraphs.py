"""A piece of a graph as a model of its own: what lies between values and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Piece", "between", "reach"]


@dataclass(frozen=True)
class Piece:
    """A model that computes some values of another from others of its values.

    Attributes:
        content: Serialized ONNX model.
        inputs: Names of what it reads: the start, and what comes in beside it.
        outputs: Names of what it computes.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def reach(start: ir.Value) -> set[ir.Node]:
    """Every node that depends on a value."""
    found: set[ir.Node] = set()
    todo = [use.node for use in start.uses()]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        found.add(node)
        todo.extend(use.node for out in node.outputs for use in out.uses())
    return found


def _behind(ends: Sequence[ir.Value], inside: set[ir.Node]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    todo = [node for end in ends if (node := end.producer()) is not None]
    while todo:
        node = todo.pop()
        if node in found or node not in inside:
            continue
        found.add(node)
        todo.extend(p for v in node.inputs if v is not None and (p := v.producer()))
    return found


def between(model: ir.Model, start: ir.Value, ends: Sequence[ir.Value]) -> Piece:
    """What computes ``ends`` from ``start`` and from values that do not depend on it.

    Args:
        model: A model with static shapes.
        start: A value that is no constant.
        ends: Values that depend on it.

    Raises:
        ValueError: An end does not depend on the start.
    """
    kept = _behind(ends, reach(start))
    if any(end is not start and end.producer() not in kept for end in ends):
        raise ValueError(f"not every end depends on {start.name!r}")
    read = {v for node in kept for v in node.inputs if v is not None}
    made = {out for node in kept for out in node.outputs}
    outer = [v for v in read if v not in made and v.const_value is None and v is not start]
    inputs = [start, *sorted(outer, key=lambda v: str(v.name))]
    proto = ir.to_proto(model)
    wanted = {str(node.outputs[0].name) for node in kept}
    graph = proto.graph
    keep = [n for n in graph.node if n.output[0] in wanted]
    del graph.node[:]
    graph.node.extend(keep)
    used = {name for node in keep for name in node.input}
    constants = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for field, values in ((graph.input, inputs), (graph.output, ends)):
        del field[:]
        field.extend(ir.to_proto(v) for v in values)
    names = tuple(str(v.name) for v in inputs)
    return Piece(bytes(proto.SerializeToString()), names, tuple(str(v.name) for v in ends))
