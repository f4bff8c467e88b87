"""Dominance: the nodes that every path passes, and the regions between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgevit import views

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["End", "Flow", "Vertex", "flow"]


class End(Enum):
    """Where data comes from and where it goes: all graph inputs, all graph outputs."""

    SOURCE = "source"
    SINK = "sink"


Vertex = ir.Node | End


@dataclass(frozen=True)
class Flow:
    """A graph with one source and one sink, and who dominates whom in it.

    Attributes:
        graph: One edge between two nodes at most; constants are no edges.
        before: Vertex -> the last other vertex that every path to it passes.
        after: Vertex -> the first other vertex that every path from it passes.
    """

    graph: nx.DiGraph[Vertex]
    before: Mapping[Vertex, Vertex]
    after: Mapping[Vertex, Vertex]

    def dominators(self, start: Vertex) -> Iterator[Vertex]:
        """``start`` and all that every path to it passes, nearest first; the source last."""
        return _chain(start, self.before)

    def post_dominators(self, start: Vertex) -> Iterator[Vertex]:
        """``start`` and all that every path from it passes, nearest first; the sink last."""
        return _chain(start, self.after)

    def common_dominator(self, vertices: Iterable[Vertex]) -> Vertex:
        """The nearest vertex that every path to any of these passes."""
        first, *others = vertices
        above = [set(self.dominators(v)) for v in others]
        return next(v for v in self.dominators(first) if all(v in a for a in above))

    def behind(self, ends: Iterable[Vertex], entry: Vertex) -> set[ir.Node]:
        """Nodes on paths from ``entry`` to ``ends``, the ends included, the entry not."""
        return _reach(ends, entry, self.graph.pred)

    def ahead(self, start: Vertex, end: Vertex) -> set[ir.Node]:
        """Nodes on paths from ``start`` to ``end``, the end included, the start not."""
        found = _reach(self.graph.succ[start], end, self.graph.succ)
        return found | ({end} if isinstance(end, ir.Node) else set())


def _chain(start: Vertex, parent: Mapping[Vertex, Vertex]) -> Iterator[Vertex]:
    at: Vertex | None = start
    while at is not None:
        yield at
        at = parent.get(at)


def _reach(
    starts: Iterable[Vertex], stop: Vertex, step: Mapping[Vertex, Iterable[Vertex]]
) -> set[ir.Node]:
    seen: set[ir.Node] = set()
    stack = list(starts)
    while stack:
        vertex = stack.pop()
        if vertex == stop or vertex in seen or not isinstance(vertex, ir.Node):
            continue
        seen.add(vertex)
        stack.extend(step[vertex])
    return seen


def flow(model: ir.Model) -> Flow:
    """Dominators and post-dominators of a graph without dead nodes."""
    import networkx as nx

    graph: nx.DiGraph[Vertex] = nx.DiGraph()
    graph.add_nodes_from(End)
    view = views.graph(model)
    graph.add_nodes_from(view)
    graph.add_edges_from((a, b) for a, b, _ in view.edges)
    for node in view:
        if _reads_input(node) or not graph.pred[node]:
            graph.add_edge(End.SOURCE, node)
        if any(out.is_graph_output() for out in node.outputs) or not graph.succ[node]:
            graph.add_edge(node, End.SINK)
    before = nx.immediate_dominators(graph, End.SOURCE)
    after = nx.immediate_dominators(graph.reverse(copy=False), End.SINK)
    return Flow(nx.freeze(graph), _without(before, End.SOURCE), _without(after, End.SINK))


def _without(found: Mapping[Vertex, Vertex], root: Vertex) -> dict[Vertex, Vertex]:
    # Releases of networkx before 3.6 make the root its own dominator.
    return {vertex: parent for vertex, parent in found.items() if vertex != root}


def _reads_input(node: ir.Node) -> bool:
    given = (v for v in node.inputs if v is not None and v.const_value is None)
    return any(v.producer() is None for v in given)
