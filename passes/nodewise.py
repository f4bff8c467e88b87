"""A base for passes that look at one node (and its neighbors) at a time.

``edgevit.rewrite`` matches expressions; most normal forms need only one node's operator,
and visiting those directly is both shorter and much faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.model import Names
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal
from edgevit.quantizers import keep_mark
from edgevit.rewrite import Builder, Refused

__all__ = ["NodePass", "Result", "substitute"]

Result = ir.Value | Sequence[ir.Value] | Refused | None


@dataclass(frozen=True)
class NodePass(Pass):
    """A pass that replaces single nodes of given operators, in topological order.

    Attributes:
        ops: Operators of the default domain that are visited; empty means all.
    """

    effect: ClassVar[Effect] = Effect.EXACT
    ops: ClassVar[frozenset[str]] = frozenset()

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Decide what takes the place of a node.

        Args:
            node: A node of the main graph.
            op: Makes the new nodes and constants; unused if the node stays.

        Returns:
            ``None`` if the node is in normal form already; ``Refused`` with the reason if it
            must stay as it is; else the values (new or existing) that replace its outputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define visit()")

    def call(self, model: ir.Model) -> Outcome:
        """Visit every node once."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        names = Names(model.graph)
        for node in list(model.graph):
            if node.graph is not model.graph or not self._wants(node):
                continue
            self._step(node, names, changes, refusals)
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))

    def _wants(self, node: ir.Node) -> bool:
        return not self.ops or (node.domain == "" and node.op_type in self.ops)

    def _step(
        self, node: ir.Node, names: Names, changes: list[Change], refusals: list[Refusal]
    ) -> None:
        site, graph = node.outputs[0].name or node.op_type, node.graph
        if not isinstance(graph, ir.Graph):
            raise TypeError(f"{site!r} is not a node of a graph")
        builder = Builder(self.name, graph, site, names)
        result = self.visit(node, builder)
        if result is None:
            return
        if isinstance(result, Refused):
            refusals.append(Refusal(self.name, site, result.reason))
            return
        new = (result,) if isinstance(result, ir.Value) else tuple(result)
        substitute(graph, node, new, builder.nodes)
        changes.append(Change(self.name, site, node.op_type))


def substitute(
    graph: ir.Graph, node: ir.Node, new: Sequence[ir.Value], made: Iterable[ir.Node]
) -> None:
    """Put ``made`` in the place of ``node``; ``new`` replaces its outputs one for one.

    A new value takes the name of the one it replaces, because it holds the same tensor. An
    existing value keeps its own name, unless the replaced one is a graph output. What
    ``mark_as_run`` asked of ``node`` is asked of the one that makes its result now.
    """
    made = list(made)
    graph.insert_before(node, made)
    for old, value in zip(node.outputs, new, strict=True):
        if value.producer() in made:
            _inherit(old, value)
            keep_mark(node, value)
        else:
            value = _alias(graph, node, old, value)
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _inherit(old: ir.Value, new: ir.Value) -> None:
    new.name, old.name = old.name, None
    if old.shape is not None and (new.shape is None or not new.shape.is_static()):
        new.shape = old.shape
    if new.type is None:
        new.type = old.type


def _alias(graph: ir.Graph, node: ir.Node, old: ir.Value, value: ir.Value) -> ir.Value:
    if not old.is_graph_output():
        return value
    name, old.name = old.name, None
    if value.producer() is not None and not value.is_graph_output():
        value.name = name
        return value
    # An input, a constant or another output cannot carry this output's name.
    identity = ir.Node("", "Identity", [value])
    graph.insert_before(node, identity)
    out = identity.outputs[0]
    out.name, out.shape, out.type = name, value.shape, value.type
    return out
