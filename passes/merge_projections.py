"""Query, key and value projections of one tensor, as one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.passes.facts import Array, operand, single_use, static
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal
from edgevit.rewrite import Builder

__all__ = ["MergeProjections"]

_MOVES = frozenset({"Reshape", "Transpose"})


@dataclass(frozen=True)
class _Projection:
    """A linear layer that feeds an attention.

    Attributes:
        x: What it reads.
        weight: ``[K, N]``.
        bias: ``[N]``; ``None`` without one.
        out: Its result.
    """

    x: ir.Value
    weight: Array
    bias: Array | None
    out: ir.Value


@dataclass(frozen=True)
class MergeProjections(Pass):
    """Compute query, key and value by one product, as half of the exporters write it.

    ``Attention(m(x Wq + bq), m(x Wk + bk), m(x Wv + bv))``
    ->  ``q, k, v = Split(x [Wq Wk Wv] + [bq bk bv], axis=-1)``

    1. At least two operands of an ``Attention`` come, through reshapes and transposes that
       nothing else reads, from linear layers of the same tensor.
    2. Weights and biases are constants of one dtype. If one has a bias, the others get zeros.

    Every result is the same sum of products as before.
    """

    name: ClassVar[str] = "merge-projections"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Visit every attention once."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        names = Names(model.graph)
        for node in [n for n in model.graph if n.op_type == "Attention" and not n.domain]:
            found = [p for v in node.inputs[:3] if v is not None and (p := _projection(v))]
            for group in _siblings(found):
                site = str(group[0].out.name)
                _merge(model.graph, group, Builder(self.name, model.graph, site, names))
                changes.append(Change(self.name, site, f"{len(group)} projections"))
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))


def _siblings(found: Sequence[_Projection]) -> list[list[_Projection]]:
    """Those that read the same tensor, two and more; each once."""
    groups: dict[tuple[int, str], list[_Projection]] = {}
    for p in found:
        group = groups.setdefault((id(p.x), str(p.weight.dtype)), [])
        if all(p.out is not other.out for other in group):
            group.append(p)
    return [g for g in groups.values() if len(g) > 1]


def _projection(value: ir.Value) -> _Projection | None:
    """The linear layer that an operand comes from (cases 1 and 2)."""
    while single_use(value):
        node = value.producer()
        if node is None or node.domain:
            return None
        if node.op_type not in _MOVES:
            return _layer(value, node)
        value = operand(node, 0)
    return None


def _layer(out: ir.Value, node: ir.Node) -> _Projection | None:
    bias = None
    if node.op_type == "Add":
        bias = constant(operand(node, 1))
        inner = operand(node, 0).producer()
        if bias is None or bias.ndim != 1 or inner is None:
            return None
        if not single_use(operand(node, 0)):
            return None
        node = inner
    if node.op_type != "MatMul" or node.domain:
        return None
    weight, shape = constant(operand(node, 1)), static(out)
    if weight is None or weight.ndim != 2 or shape is None or len(shape) < 2:
        return None
    if bias is not None and bias.shape != weight.shape[1:]:
        return None
    return _Projection(operand(node, 0), weight, bias, out)


def _merge(graph: ir.Graph, group: Sequence[_Projection], op: Builder) -> None:
    first = group[0]
    shape, dtype = static(first.out) or (), first.out.dtype
    widths = [p.weight.shape[1] for p in group]
    wide = (*shape[:-1], sum(widths))
    weight = op.constant(np.concatenate([p.weight for p in group], axis=1))
    y = op.op("MatMul", [first.x, weight], shape=wide, dtype=dtype)
    if any(p.bias is not None for p in group):
        bias = np.concatenate([_bias(p) for p in group])
        y = op.op("Add", [y, op.constant(bias)], shape=wide, dtype=dtype)
    parts = op.op_n(
        "Split",
        [y, op.constant(np.array(widths, np.int64))],
        [(*shape[:-1], w) for w in widths],
        {"axis": len(shape) - 1},
        dtype=dtype,
    )
    _replace(graph, group, op.nodes, parts)


def _bias(p: _Projection) -> Array:
    return np.zeros(p.weight.shape[1], p.weight.dtype) if p.bias is None else p.bias


def _replace(
    graph: ir.Graph,
    group: Sequence[_Projection],
    made: Sequence[ir.Node],
    parts: Sequence[ir.Value],
) -> None:
    """Put the new nodes where the first old one is: all read the same tensor."""
    order = {node: index for index, node in enumerate(graph)}
    olds = [node for p in group if (node := p.out.producer()) is not None]
    graph.insert_before(min(olds, key=lambda n: order[n]), list(made))
    for p, part in zip(group, parts, strict=True):
        node = p.out.producer()
        part.name, p.out.name = p.out.name, None
        p.out.replace_all_uses_with(part)
        below = (
            operand(node, 0).producer() if node is not None and p.bias is not None else None
        )
        for dead in (node, below):
            if dead is not None:
                graph.remove(dead, safe=True)
