"""Transpose the parts of a tensor together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import Names
from edgevit.passes.facts import attr, operand, single_use, static
from edgevit.passes.normalize_split import make_split
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal
from edgevit.rewrite import Builder, Refused

__all__ = ["JoinTransposes"]


@dataclass(frozen=True)
class _Part:
    """What is done with a part of a ``Split``: ``Transpose(Reshape(part, shape), perm)``."""

    shape: tuple[int, ...]
    perm: tuple[int, ...]
    nodes: tuple[ir.Node, ir.Node]


@dataclass(frozen=True)
class JoinTransposes(Pass):
    """Put one ``Transpose`` in front of a ``Split`` instead of one behind each part.

    ``[Transpose(Reshape(p, [1,50,4,16]), [0,2,1,3]) for p in Split(x, axis=2)]``
    ->  ``[Reshape(p, [1,4,50,16])
    for p in Split(Transpose(Reshape(x, [1,50,3,4,16]), [2,0,3,1,4]), axis=0)]``

    The inverse of ``hoist-selections``, for engines that do not copy parts of the first axis
    (OpenVINO): query, key and value then come out of their projection by one movement.

    1. All parts have one size, and each is read by one ``Reshape`` to one shape alone, that by
       one ``Transpose`` of one permutation alone.
    2. The ``Reshape`` keeps what is in front of the split axis apart from what is in it.
    """

    name: ClassVar[str] = "join-transposes"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Visit every ``Split`` once."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        names = Names(model.graph)
        for node in list(model.graph):
            if node.op_type != "Split" or node.domain:
                continue
            site = str(node.outputs[0].name)
            parts = _parts(node)
            if parts is None:
                continue
            place = _place(node, parts)
            if isinstance(place, Refused):
                refusals.append(Refusal(self.name, site, place.reason))
                continue
            _join(
                model.graph, node, parts, place, Builder(self.name, model.graph, site, names)
            )
            changes.append(Change(self.name, site, f"{len(parts)} parts"))
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))


def _parts(node: ir.Node) -> list[_Part] | None:
    """What becomes of each part; ``None`` if not all are reshaped and transposed (case 1)."""
    found = [_part(out) for out in node.outputs]
    return [p for p in found if p is not None] if None not in found else None


def _part(out: ir.Value) -> _Part | None:
    reshape = _only_reader(out, "Reshape")
    transpose = None if reshape is None else _only_reader(reshape.outputs[0], "Transpose")
    if reshape is None or transpose is None:
        return None
    shape, perm = static(reshape.outputs[0]), tuple(attr(transpose, "perm", ()))
    return _Part(shape, perm, (reshape, transpose)) if shape and perm else None


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    if not single_use(value):
        return None
    (use,) = value.uses()
    fits = use.node.op_type == op_type and not use.node.domain and use.idx == 0
    return use.node if fits else None


def _place(node: ir.Node, parts: Sequence[_Part]) -> int | Refused:
    """Where the axis of the parts goes in the reshaped tensor."""
    shapes = {static(out) for out in node.outputs}
    (before, *others) = shapes
    if others or before is None or len({(p.shape, p.perm) for p in parts}) > 1:  # case 1
        return Refused("the parts differ in size or in how they are moved")
    outer = math.prod(before[: attr(node, "axis", 0)])
    shape = parts[0].shape
    places = [j for j in range(len(shape)) if math.prod(shape[:j]) == outer]
    return places[0] if places else Refused("the Reshape mixes the split axis with others")


def _join(
    graph: ir.Graph, node: ir.Node, parts: Sequence[_Part], place: int, op: Builder
) -> None:
    source, count = operand(node, 0), len(parts)
    shape, perm = parts[0].shape, parts[0].perm
    wide = (*shape[:place], count, *shape[place:])
    order = (place, *(p + (p >= place) for p in perm))
    x = _reshape(op, source, wide)
    turned = tuple(wide[p] for p in order)
    x = op.op("Transpose", [x], {"perm": order}, shape=turned, dtype=source.dtype)
    pieces = make_split(op, x, 0, (1,) * count)
    made = [_reshape(op, piece, turned[1:]) for piece in pieces]
    graph.insert_before(node, op.nodes)
    for part, new in zip(parts, made, strict=True):
        old = part.nodes[1].outputs[0]
        new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(part.nodes[1], safe=True)
        graph.remove(part.nodes[0], safe=True)
    graph.remove(node, safe=True)


def _reshape(op: Builder, source: ir.Value, target: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(target, np.int64))
    return op.op("Reshape", [source, to], {"allowzero": 0}, shape=target, dtype=source.dtype)
