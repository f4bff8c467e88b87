"""Questions about the shape of a graph, answered on NetworkX views that are never edited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import networkx as nx

__all__ = [
    "Block",
    "BlockGroup",
    "ancestors",
    "blocks",
    "critical_path",
    "cut_values",
    "descendants",
    "graph",
    "group",
    "is_attention",
    "is_convex",
]


def graph(model: ir.Model) -> nx.MultiDiGraph[ir.Node]:
    """A frozen view: nodes are ``ir.Node``, edges are keyed by (value name, input index)."""
    import networkx as nx

    view: nx.MultiDiGraph[ir.Node] = nx.MultiDiGraph()
    for node in model.graph:
        view.add_node(node)
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            producer = value.producer() if value is not None else None
            if value is not None and producer is not None:
                view.add_edge(producer, node, key=(value.name, index))
    return nx.freeze(view)


def ancestors(view: nx.MultiDiGraph[ir.Node], node: ir.Node) -> frozenset[ir.Node]:
    """All nodes from which a path leads to ``node``, without itself."""
    import networkx as nx

    return frozenset(nx.ancestors(view, node))


def descendants(view: nx.MultiDiGraph[ir.Node], node: ir.Node) -> frozenset[ir.Node]:
    """All nodes to which a path leads from ``node``, without itself."""
    import networkx as nx

    return frozenset(nx.descendants(view, node))


def is_convex(view: nx.MultiDiGraph[ir.Node], region: Iterable[ir.Node]) -> bool:
    """Whether no path leaves the region and comes back to it."""
    inside = frozenset(region)
    seen: set[ir.Node] = set()
    stack = [s for node in inside for s in view.successors(node) if s not in inside]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        after = list(view.successors(node))
        if any(s in inside for s in after):
            return False
        stack.extend(after)
    return True


def critical_path(
    model: ir.Model, weight: Callable[[ir.Node], float]
) -> tuple[tuple[ir.Node, ...], float]:
    """The heaviest path through the graph and its weight; the first one among equals."""
    best: dict[ir.Node, tuple[float, ir.Node | None]] = {}
    for node in model.graph:
        before = [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        heaviest = max(before, key=lambda p: best[p][0], default=None)
        base = best[heaviest][0] if heaviest is not None else 0.0
        best[node] = (base + weight(node), heaviest)
    if not best:
        return (), 0.0
    end = max(best, key=lambda n: best[n][0])
    path: list[ir.Node] = []
    at: ir.Node | None = end
    while at is not None:
        path.append(at)
        at = best[at][1]
    return tuple(reversed(path)), best[end][0]


def _activations(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None and v.const_value is None]


def cut_values(nodes: Iterable[ir.Node], entry: Iterable[ir.Value]) -> list[ir.Value]:
    """Values through which everything flows: those alone alive after their producer ran.

    A value is a cut exactly if every node is before it or after it, which is why the order
    in which the nodes are listed does not matter, as long as it is topological.

    Args:
        nodes: A region in topological order.
        entry: Values that the region reads from outside.
    """
    order = list(nodes)
    inside = set(order)
    left: dict[ir.Value, int] = {v: _uses(v, inside) for v in entry}
    alive = {v for v, n in left.items() if n}
    cuts = []
    for node in order:
        for value in _activations(node):
            left[value] = left.get(value, 0) - 1
            if left[value] <= 0:
                alive.discard(value)
        for out in node.outputs:
            left[out] = _uses(out, inside)
            outside = out.is_graph_output() or len(out.uses()) > left[out]
            if left[out] or outside:
                alive.add(out)
            left[out] += outside  # one more use, never taken: it stays alive
        if len(alive) == 1 and next(iter(alive)) in node.outputs:
            cuts.append(next(iter(alive)))
    return cuts


def _uses(value: ir.Value, inside: set[ir.Node]) -> int:
    return sum(use.node in inside for use in value.uses())


def is_attention(node: ir.Node) -> bool:
    """Whether a node mixes positions by weights that it computes from the data.

    Attention, a product of two activations, or a softmax that scales another activation (the
    separable attention of MobileViTv2).
    """
    if node.op_type == "Softmax":
        users = [use.node for use in node.outputs[0].uses()]
        return any(u.op_type == "Mul" and len(_activations(u)) == 2 for u in users)
    product = node.op_type == "MatMul" and len(_activations(node)) == 2
    return product or node.op_type == "Attention"


@dataclass(frozen=True)
class Block:
    """A region between two cut values.

    Attributes:
        kind: ``attention``, ``hybrid`` (attention and convolution), ``conv``, ``mlp`` or
            ``other``, by the operators in it.
        entry: Name of the value that enters.
        exit: Name of the value that leaves.
        nodes: Node names in topological order.
        signature: Equal for blocks with the same operators, wiring and shapes.
        children: Blocks inside, where a branch around them (a skip) hides them.
    """

    kind: str
    entry: str
    exit: str
    nodes: tuple[str, ...]
    signature: str
    children: tuple[Block, ...] = ()


@dataclass(frozen=True)
class BlockGroup:
    """The same sequence of blocks several times in a row.

    Attributes:
        count: Repetitions, at least 1.
        kinds: Kinds of the blocks of one repetition.
        first: Entry of the first block.
        last: Exit of the last one.
        nodes: Nodes of all repetitions together.
        inner: Blocks inside the first repetition, if any are hidden behind a skip.
    """

    count: int
    kinds: tuple[str, ...]
    first: str
    last: str
    nodes: int
    inner: tuple[Block, ...] = ()

    def __str__(self) -> str:
        inner = " + ".join(self.kinds)
        return f"{self.count} x {inner}" if self.count > 1 else inner


def blocks(model: ir.Model) -> tuple[Block, ...]:
    """Cut the graph where everything flows through one value.

    Each region that branches is a block (a residual branch, an inverted bottleneck, an
    attention); operators in a chain between two such regions form one block together.
    """
    return _blocks(list(model.graph), list(model.graph.inputs))


def _blocks(nodes: list[ir.Node], entry: list[ir.Value]) -> tuple[Block, ...]:
    cuts = set(cut_values(nodes, entry))
    segments: list[list[ir.Node]] = [[]]
    for node in nodes:
        segments[-1].append(node)
        if any(out in cuts for out in node.outputs):
            segments.append([])
    merged: list[list[ir.Node]] = []
    chain = False
    for segment in filter(None, segments):
        if chain and len(segment) == 1:
            merged[-1].extend(segment)
        else:
            merged.append(list(segment))
        chain = len(segment) == 1
    return tuple(_block(part) for part in merged)


def _entries(nodes: list[ir.Node]) -> list[ir.Value]:
    inside = set(nodes)
    found: dict[ir.Value, None] = {}
    for node in nodes:
        for value in _activations(node):
            if value.producer() not in inside:
                found[value] = None
    return list(found)


def _block(nodes: list[ir.Node]) -> Block:
    entries = _entries(nodes)
    last = nodes[-1]
    return Block(
        kind=_kind(nodes),
        entry=str(entries[0].name) if entries else "",
        exit=str(last.outputs[0].name),
        nodes=tuple(str(n.name) for n in nodes),
        signature=_signature(nodes),
        children=_children(nodes, entries),
    )


def _children(nodes: list[ir.Node], entries: list[ir.Value]) -> tuple[Block, ...]:
    """Look behind a skip: without the joining node, the branches hold blocks of their own."""
    attentions = sum(n.op_type == "Attention" for n in nodes)
    if attentions < 2 or not entries:
        return ()
    found = _blocks(nodes[:-1], entries)
    return found if len(found) > 1 else ()


def _kind(nodes: list[ir.Node]) -> str:
    attention = any(is_attention(n) for n in nodes)
    conv = any(n.op_type in ("Conv", "ConvTranspose") for n in nodes)
    if attention:
        return "hybrid" if conv else "attention"
    if conv:
        return "conv"
    return "mlp" if any(n.op_type in ("MatMul", "Gemm") for n in nodes) else "other"


def _signature(nodes: list[ir.Node]) -> str:
    """Digest of operators, output shapes and wiring, with nodes numbered in order."""
    number = {node: index for index, node in enumerate(nodes)}
    parts = []
    for node in nodes:
        wires = []
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if value is None:
                wires.append("-")
            elif value.const_value is not None:
                wires.append(f"c{value.const_value.shape}")
            else:
                wires.append(str(number.get(producer, "in")) if producer else "in")
        shapes = [str(out.shape) for out in node.outputs]
        parts.append(f"{node.domain}.{node.op_type}({','.join(wires)})->{shapes}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


_PERIODS = (1, 2, 3, 4)


def group(found: tuple[Block, ...]) -> tuple[BlockGroup, ...]:
    """Fold repetitions of up to four blocks, the longest run first."""
    groups = []
    at = 0
    while at < len(found):
        runs = [(p, _repeats(found, at, p)) for p in _PERIODS]
        # The run that folds most blocks away; of equals, the shortest period.
        period, count = max(runs, key=lambda run: (run[0] * (run[1] - 1), -run[0]))
        run = found[at : at + period * count]
        groups.append(
            BlockGroup(
                count,
                tuple(b.kind for b in run[:period]),
                run[0].entry,
                run[-1].exit,
                sum(len(b.nodes) for b in run),
                tuple(child for b in run[:period] for child in b.children),
            )
        )
        at += len(run)
    return tuple(groups)


def _repeats(found: tuple[Block, ...], at: int, period: int) -> int:
    if at + period > len(found):
        return 1 if period == 1 else 0
    want = [b.signature for b in found[at : at + period]]
    count = 1
    while [
        b.signature for b in found[at + period * count : at + period * (count + 1)]
    ] == want:
        count += 1
    return count
