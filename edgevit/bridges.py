"""Bridge blocks: the regions that carry convolutional features into attention and back.

Post-training quantization of hybrid networks fails first where local features (convolution)
turn into global ones (attention) and back: Q-HyViT (Lee, Kim, Hwang, Moon: "Q-HyViT:
Post-Training Quantization of Hybrid Vision Transformers with Bridge Block Reconstruction for
IoT Systems", arXiv 2303.12557) calls those regions bridge blocks and names them model by
model. Here they follow from the graph. The words used:

*Trunk.* The chain of dominators of a value: nodes that every path to it passes. Between two
neighbors of the chain lies a *segment*: one operator, or a region that forks and joins.

*Feature extractor.* Segments with at least one local convolution (a window larger than one),
at least two learned layers and an activation between or behind them. A single convolution is
linear: it embeds patches, merges them or encodes positions, and extracts nothing.

*Feed-forward.* The first residual segment beside an attention on the trunk, also if it holds
a convolution (EfficientFormerV2, PVTv2): it belongs to the transformer block.

*Bridge in*, of an attention whose query, keys and values come from one stream: between the
attention before it (or the graph's input) and the stream that it reads, feed-forward left
out, the trunk holds a feature extractor. The region is the shortest piece of trunk that ends
at the stream and holds a local operator: the last local convolution, what projects its output
and what brings it into the layout of tokens.

*Bridge out*: the mirror image. Behind the attention and its feed-forward, the trunk holds a
feature extractor, or meets features of one that went around the attention. The region is the
piece of trunk through the first convolution, or up to the meeting. A region that leads out of
one attention and into the next is listed once, as the way in.

*Cross attention*, of a query and a memory from two streams, of which exactly one is
convolutional (behind it on the trunk there is a feature extractor, beside the attentions in
it too): the attention is itself a bridge, *in* if the memory is convolutional, *out* if the
query is (Mobile-Former's two directions).

The ways *in* are those that Q-HyViT counts: MobileViT 3, MobileViTv2 3, EfficientFormer 1,
EfficientFormerV2 2. None of this looks at names or at the order of nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from edgevit import flow as dominance
from edgevit.flow import End, Flow, Vertex
from edgevit.mixing import Site, is_activation, is_linear, sites
from edgevit.model import shape_of

__all__ = ["Bridge", "bridges"]

# What an attention does to a stream before it looks at it, beside products.
_PREPARES = frozenset(
    {"Add", "Gather", "GroupNormalization", "LayerNormalization", "Mul", "RMSNormalization"}
    | {"Reshape", "Split", "Transpose"}
)


@dataclass(frozen=True)
class Bridge:
    """A region with one entry.

    Attributes:
        direction: ``in`` (convolution to attention) or ``out``.
        entry: Name of the value that enters.
        exit: Name of the value that leaves: where an error of the region is measured.
        nodes: Names of its nodes, in the order of the graph.
        attention: Name of the output of the attention it leads to or comes from.
    """

    direction: Literal["in", "out"]
    entry: str
    exit: str
    nodes: tuple[str, ...]
    attention: str


@dataclass(frozen=True)
class _Segment:
    """A piece of trunk; it holds its last node and not its first."""

    first: Vertex
    last: Vertex
    nodes: frozenset[ir.Node]

    @property
    def residual(self) -> bool:
        join = self.last
        return len(self.nodes) > 1 and isinstance(join, ir.Node) and join.op_type == "Add"


@dataclass(frozen=True)
class _Region:
    direction: Literal["in", "out"]
    first: Vertex
    last: Vertex
    nodes: frozenset[ir.Node]
    site: Site


def bridges(model: ir.Model) -> tuple[Bridge, ...]:
    """Find the bridge blocks of a canonical graph, in its order.

    Args:
        model: A canonical graph without dead nodes.
    """
    flow = dominance.flow(model)
    found = sites(model, flow)
    mixers = frozenset(node for site in found for node in site.mixers)
    regions: dict[tuple[Vertex, Vertex], _Region] = {}
    for look in (_way_in, _across, _way_out):
        for region in filter(None, (look(flow, site, mixers) for site in found)):
            regions.setdefault((region.first, region.last), region)
    place = {node: index for index, node in enumerate(model.graph)}
    ordered = sorted(regions.values(), key=lambda r: max(place[n] for n in r.nodes))
    return tuple(_bridge(model, region, place) for region in ordered)


def _bridge(model: ir.Model, region: _Region, place: dict[ir.Node, int]) -> Bridge:
    nodes = sorted(region.nodes, key=place.__getitem__)
    return Bridge(
        direction=region.direction,
        entry=_value_name(model, region.first, nodes),
        exit=_value_name(model, region.last, nodes),
        nodes=tuple(str(n.name) for n in nodes),
        attention=str(region.site.mixers[-1].outputs[0].name),
    )


def _value_name(model: ir.Model, vertex: Vertex, nodes: Sequence[ir.Node]) -> str:
    if isinstance(vertex, ir.Node):
        return str(vertex.outputs[0].name)
    read = (v for node in nodes for v in node.inputs if v and v.is_graph_input())
    return next((str(v.name) for v in read), "")


def _way_in(flow: Flow, site: Site, mixers: frozenset[ir.Node]) -> _Region | None:
    if site.crosses:
        return None
    nodes: set[ir.Node] = set()
    trunk = _trunk_behind(flow, site.entry, mixers)
    for segment in trunk if _extracts(trunk) else ():
        nodes |= segment.nodes
        if any(_is_local(n) for n in segment.nodes):
            return _Region("in", segment.first, site.entry, frozenset(nodes), site)
    return None


def _way_out(flow: Flow, site: Site, mixers: frozenset[ir.Node]) -> _Region | None:
    if site.crosses:
        return None
    trunk, meets = _trunk_ahead(flow, site.exit, mixers)
    if not trunk or not (meets or _extracts(trunk)):
        return None
    nodes: set[ir.Node] = set()
    for segment in trunk:
        nodes |= segment.nodes
        if any(n.op_type in ("Conv", "ConvTranspose") for n in segment.nodes):
            break
    return _Region("out", trunk[0].first, segment.last, frozenset(nodes), site)


def _across(flow: Flow, site: Site, mixers: frozenset[ir.Node]) -> _Region | None:
    memory = [_vertex(v) for v in site.memory if v.const_value is None]
    if not site.crosses or not memory:
        return None
    query = [_vertex(site.query)] if site.query.const_value is None else []
    stream = flow.common_dominator(memory)
    convolutional = _is_convolutional(flow, stream, mixers)
    if convolutional == any(_is_convolutional(flow, v, mixers) for v in query):
        return None
    first = next(v for v in flow.dominators(stream) if not _prepares(flow, v))
    nodes = flow.behind(memory, first) | set(site.mixers)
    direction: Literal["in", "out"] = "in" if convolutional else "out"
    return _Region(direction, first, site.mixers[-1], frozenset(nodes), site)


def _vertex(value: ir.Value) -> Vertex:
    return value.producer() or End.SOURCE


def _prepares(flow: Flow, vertex: Vertex) -> bool:
    if not isinstance(vertex, ir.Node) or len(flow.graph.pred[vertex]) > 1:
        return False
    point = is_linear(vertex) and not _is_local(vertex)
    return point or vertex.op_type in _PREPARES


def _backward(flow: Flow, start: Vertex) -> Iterator[_Segment]:
    for last, first in itertools.pairwise(flow.dominators(start)):
        yield _Segment(first, last, frozenset(flow.behind([last], first)))


def _forward(flow: Flow, start: Vertex) -> Iterator[_Segment]:
    for first, last in itertools.pairwise(flow.post_dominators(start)):
        yield _Segment(first, last, frozenset(flow.ahead(first, last)))


def _trunk_behind(
    flow: Flow, start: Vertex, mixers: frozenset[ir.Node]
) -> tuple[_Segment, ...]:
    """Segments back to the attention before, nearest first, without its feed-forward."""
    found: list[_Segment] = []
    for segment in _backward(flow, start):
        if segment.nodes & mixers:
            return _past_feed_forward(found[::-1])[::-1]
        found.append(segment)
    return tuple(found)


def _trunk_ahead(
    flow: Flow, start: Vertex, mixers: frozenset[ir.Node]
) -> tuple[tuple[_Segment, ...], bool]:
    """Segments to the next attention, nearest first, without the feed-forward.

    Also whether they end where convolutional features come in from elsewhere.
    """
    found: list[_Segment] = []
    for segment in _forward(flow, start):
        if segment.nodes & mixers:  # where two streams meet in an attention: see _across
            break
        strangers = _strangers(flow, segment)
        if strangers:
            meets = any(_is_convolutional(flow, v, mixers) for v in strangers)
            return _past_feed_forward(found), meets
        found.append(segment)
    return _past_feed_forward(found), False


def _strangers(flow: Flow, segment: _Segment) -> set[Vertex]:
    """What a segment reads and neither made nor got from where it starts."""
    read = {v for node in segment.nodes for v in flow.graph.pred[node]}
    return read - segment.nodes - {segment.first}


def _past_feed_forward(segments: Sequence[_Segment]) -> tuple[_Segment, ...]:
    for index, segment in enumerate(segments):
        if any(is_linear(n) for n in segment.nodes):
            return tuple(segments[index + segment.residual :])
    return tuple(segments)


def _is_convolutional(flow: Flow, start: Vertex, mixers: frozenset[ir.Node]) -> bool:
    """Whether the stream at ``start`` was made by convolutions, last of all or beside."""
    if _extracts(_trunk_behind(flow, start, mixers)):
        return True
    for segment in _backward(flow, start):
        if segment.nodes & mixers:
            return _extracts([_beside(flow, segment, mixers)])
    return False


def _beside(flow: Flow, segment: _Segment, mixers: frozenset[ir.Node]) -> _Segment:
    """The part of a segment that does not go through an attention."""
    import networkx as nx

    kept = (segment.nodes - mixers) | {segment.first}
    view = flow.graph.subgraph(kept)
    if segment.last not in kept:
        return replace(segment, nodes=frozenset())
    free = nx.descendants(view, segment.first) & (
        nx.ancestors(view, segment.last) | {segment.last}
    )
    return replace(segment, nodes=frozenset(n for n in free if isinstance(n, ir.Node)))


def _extracts(segments: Iterable[_Segment]) -> bool:
    nodes = [node for segment in segments for node in segment.nodes]
    local = any(is_linear(n) and _is_local(n) for n in nodes)
    return local and sum(map(is_linear, nodes)) > 1 and any(map(is_activation, nodes))


def _is_local(node: ir.Node) -> bool:
    """Whether a convolution or a pooling looks at a window larger than one."""
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = node.inputs[1]
        return weight is not None and any(d != 1 for d in shape_of(weight)[2:])
    if node.op_type in ("AveragePool", "MaxPool"):
        return any(d > 1 for d in node.attributes["kernel_shape"].as_ints())
    return False
