"""Where a network mixes positions by weights it computes from the data, and around what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit import views
from edgevit.flow import End, Flow, Vertex

__all__ = ["Site", "is_activation", "is_linear", "sites"]

_ACTIVATIONS = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu"}
    | {"Selu", "Sigmoid", "Silu", "Softplus", "Tanh"}
)


@dataclass(frozen=True)
class Site:
    """One attention, recovered or in pieces.

    Attributes:
        mixers: The operators that mix: an ``Attention``, both products of an attention that
            was not recovered, or the softmax of a separable one. Topological order.
        query: What decides where to look; the output belongs to its stream.
        memory: What is looked at: keys and values. For a separable attention the query.
        crosses: Whether query and memory belong to two streams: one of them is constant, or
            another attention stands between them and the last node that both come from.
        entry: Where the stream stands before this attention: the fork of the skip around it,
            or, without a skip, the last node that query and memory both come from.
        exit: Where the stream stands after it: the end of the skip, or the last mixer.
    """

    mixers: tuple[ir.Node, ...]
    query: ir.Value
    memory: tuple[ir.Value, ...]
    crosses: bool
    entry: Vertex
    exit: ir.Node


def is_linear(node: ir.Node) -> bool:
    """Whether a node is a convolution or a product with a constant."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return True
    return node.op_type in ("MatMul", "Gemm") and not views.is_attention(node)


def is_activation(node: ir.Node) -> bool:
    """Whether a node bends its input element by element, as activation functions do."""
    return node.op_type in _ACTIVATIONS


def sites(model: ir.Model, flow: Flow) -> tuple[Site, ...]:
    """All attentions, in the order of the graph."""
    groups: list[list[ir.Node]] = []
    for node in filter(views.is_attention, model.graph):
        home = next((g for g in groups if _continues(flow, g, node)), None)
        if home is None:
            groups.append([node])
        else:
            home.append(node)
    mixers = {node for group in groups for node in group}
    return tuple(_site(flow, group, mixers) for group in groups)


def _operands(node: ir.Node) -> list[ir.Value]:
    """Query and memory of an ``Attention`` (the rest is a mask), else all inputs."""
    return [v for v in node.inputs[:3] if v is not None]


def _vertices(values: Iterable[ir.Value]) -> list[Vertex]:
    return [v.producer() or End.SOURCE for v in values if v.const_value is None]


def _continues(flow: Flow, group: Sequence[ir.Node], node: ir.Node) -> bool:
    """Whether a product takes the weights that a group made to values of the same stream.

    1. One operand comes out of the group, the other does not, and comes from where the
       group's own operands come from.
    2. From the group to the product there is a softmax, or nothing that is learned.
    3. No other attention lies in between.
    """
    import networkx as nx

    if node.op_type != "MatMul" or group[0].op_type != "MatMul":
        return False
    made = set(group).union(*(nx.descendants(flow.graph, m) for m in group))
    ends = _vertices(_operands(node))
    weights = [v for v in ends if v in made]
    values = [v for v in ends if v not in made]
    if not weights or not values:
        return False
    start = flow.common_dominator(_vertices(_operands(group[0])))
    if any(start not in flow.dominators(v) for v in values):
        return False
    between = (flow.behind(weights, group[-1]) & made) - set(group)
    if any(views.is_attention(n) for n in between):
        return False
    learned = any(is_linear(n) for n in between)
    return not learned or any(n.op_type == "Softmax" for n in between)


def _site(flow: Flow, group: Sequence[ir.Node], mixers: set[ir.Node]) -> Site:
    first = _operands(group[0])
    made = {out for node in group for out in node.outputs}
    later = [v for n in group[1:] for v in _operands(n) if not _comes_from(flow, v, made)]
    query, memory = first[0], tuple(first[1:] + later) or (first[0],)
    ends = _vertices((query, *memory))
    # Constants alone come from nowhere in particular.
    start = flow.common_dominator(ends or [End.SOURCE])
    others = flow.behind(ends, start) & (mixers - set(group))
    constant = len(ends) < len((query, *memory))
    fork = _fork(flow, group, start)
    return Site(
        mixers=tuple(group),
        query=query,
        memory=memory,
        crosses=constant or bool(others),
        entry=start if fork is None else fork[0],
        exit=group[-1] if fork is None else fork[1],
    )


def _comes_from(flow: Flow, value: ir.Value, made: set[ir.Value]) -> bool:
    import networkx as nx

    producer = value.producer()
    if producer is None:
        return False
    makers = [v.producer() for v in made]
    return any(m == producer or nx.has_path(flow.graph, m, producer) for m in makers)


def _fork(
    flow: Flow, group: Sequence[ir.Node], start: Vertex
) -> tuple[Vertex, ir.Node] | None:
    """The skip around an attention: where it leaves the stream and the Add where it ends.

    A skip on which nothing is learned is preferred; one with a projection (a stage that
    changes the width) counts where there is none. The search ends at an activation: what
    lies behind it is not part of this attention.
    """
    beyond = set(flow.post_dominators(group[-1]))
    projected: tuple[Vertex, ir.Node] | None = None
    for vertex in flow.dominators(start):
        if isinstance(vertex, ir.Node) and vertex != start and is_activation(vertex):
            break
        join = flow.after.get(vertex)
        if not isinstance(join, ir.Node) or join.op_type != "Add" or join not in beyond:
            continue
        if _passes_by(flow, vertex, join, lambda n: n in group or is_linear(n)):
            return vertex, join
        if projected is None and _passes_by(flow, vertex, join, lambda n: n in group):
            projected = vertex, join
    return projected


def _passes_by(
    flow: Flow, fork: Vertex, join: ir.Node, closed: Callable[[ir.Node], bool]
) -> bool:
    """Whether a path leads from ``fork`` to ``join`` around all closed nodes."""
    seen: set[Vertex] = set()
    stack: list[Vertex] = list(flow.graph.succ[fork])
    while stack:
        vertex = stack.pop()
        if vertex == join:
            return True
        if vertex in seen or not isinstance(vertex, ir.Node) or closed(vertex):
            continue
        seen.add(vertex)
        stack.extend(flow.graph.succ[vertex])
    return False
