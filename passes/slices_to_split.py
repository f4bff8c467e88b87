"""Slices that partition an axis as one ``Split``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import static
from edgevit.passes.normalize_slice import Cut, cuts_of
from edgevit.passes.normalize_split import make_split
from edgevit.pipeline import Change, Effect, Outcome, Pass
from edgevit.rewrite import Builder

__all__ = ["SlicesToSplit"]

Parts = list[tuple[Cut, ir.Node]]


@dataclass(frozen=True)
class SlicesToSplit(Pass):
    """Recognize a partition: exporters write it as slices or as a split.

    ``x[:, :64], x[:, 64:128], x[:, 128:]``  ->  ``Split(x, [64, 64, 64], axis=1)``

    1. Each slice cuts one and the same axis, by step one.
    2. In order of their starts, they cover the axis without gap or overlap.
    3. Each slice is read: a part that nothing reads does not count, because a ``Split`` with
       such a part is slices (``normalize-split``).
    """

    name: ClassVar[str] = "slices-to-split"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Look at every value that slices read."""
        changes = []
        for source, axis, parts in _partitions(model.graph):
            site = parts[0][1].outputs[0].name or ""
            _replace(self.name, model.graph, source, axis, parts)
            changes.append(Change(self.name, site, f"{len(parts)} slices"))
        return Outcome(model, bool(changes), tuple(changes))


def _partitions(graph: ir.Graph) -> list[tuple[ir.Value, int, Parts]]:
    groups: dict[tuple[ir.Value, int], Parts] = {}
    for node in graph:
        if node.op_type != "Slice" or node.domain or node.inputs[0] is None:
            continue
        out = node.outputs[0]
        if not (out.uses() or out.is_graph_output()):  # case 3
            continue
        cuts = cuts_of(node)
        if cuts is None or len(cuts) != 1:
            continue
        [(axis, cut)] = cuts.items()
        groups.setdefault((node.inputs[0], axis), []).append((cut, node))
    found = []
    for (source, axis), parts in groups.items():
        parts.sort(key=lambda part: part[0].start)
        if _covers([cut for cut, _ in parts], (static(source) or ())[axis]):
            found.append((source, axis, parts))
    return found


def _covers(cuts: list[Cut], size: int) -> bool:
    at = 0
    for cut in cuts:
        if cut.start != at or cut.step != 1:
            return False
        at += cut.count
    return at == size and len(cuts) > 1


def _replace(rule: str, graph: ir.Graph, source: ir.Value, axis: int, parts: Parts) -> None:
    nodes = [node for _, node in parts]
    builder = Builder(rule, graph, source.name or rule)
    outputs = make_split(builder, source, axis, tuple(cut.count for cut, _ in parts))
    first = next(node for node in graph if node in nodes)
    graph.insert_before(first, builder.nodes)
    for node, new in zip(nodes, outputs, strict=True):
        old = node.outputs[0]
        new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(nodes, safe=True)
