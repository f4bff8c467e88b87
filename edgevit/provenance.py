"""Which nodes of the source model the nodes of a rewritten graph stand for.

Passes keep the name of every value of the source that they keep; verification proves that such
a value is the source's. Between two kept values the rewritten nodes stand for the source's, as
a group: a LayerNormalization for the nine nodes that an exporter wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Shares", "shares"]

# What they give is known as soon as the shapes are.
_KNOWN = frozenset({"Constant", "ConstantOfShape", "Shape", "Size"})


@dataclass(frozen=True)
class Shares:
    """Counts of source nodes that compute at run time.

    Attributes:
        nodes: Those that an output depends on.
        left_over: Those for which a node that was left over stands, alone or among others.
    """

    nodes: int
    left_over: int


def shares(source: ir.Model, rewritten: ir.Model, left_over: Collection[ir.Node]) -> Shares:
    """Count the source's compute nodes, and those behind some rewritten nodes.

    Args:
        source: The loaded model, its nodes sorted; those that only read
            constants and shapes do not count.
        rewritten: What passes made of it.
        left_over: Nodes of ``rewritten``.
    """
    computed = _computed(source)
    made = {str(v.name): n for n in rewritten.graph for v in n.outputs if v.name in computed}
    kept = made.keys()
    every: set[ir.Node] = set()
    behind: set[ir.Node] = set()
    for name, node in made.items():
        group = _until(computed[name], kept, computed)
        every |= group
        if not left_over:
            continue
        if any(n in left_over for n in _until(node, kept, None)):
            behind |= group
    return Shares(len(every), len(behind))


def _computed(source: ir.Model) -> dict[str, ir.Node]:
    """Value name -> node, of the nodes whose result depends on what is fed."""
    found: dict[str, ir.Node] = {}
    fed = {v.name for v in source.graph.inputs if v.const_value is None}
    for node in source.graph:
        if node.op_type in _KNOWN and not node.domain:
            continue
        if any(v is not None and (v.name in fed or v.name in found) for v in node.inputs):
            found.update({str(out.name): node for out in node.outputs if out.name})
    return found


def _until(
    node: ir.Node, kept: Collection[str], among: Mapping[str, ir.Node] | None
) -> set[ir.Node]:
    """The node and those behind its inputs, back to kept values.

    Args:
        node: Where to start.
        kept: Names of values that end the walk.
        among: Value name -> node of those that count; ``None``: all do.
    """
    found, pending = {node}, [node]
    while pending:
        for value in pending.pop().inputs:
            producer = None if value is None else value.producer()
            if value is None or producer is None or value.name in kept or producer in found:
                continue
            if among is None or value.name in among:
                found.add(producer)
                pending.append(producer)
    return found
