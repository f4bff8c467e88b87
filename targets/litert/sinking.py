"""Splits behind a transpose instead of in front of it.

Canonical attention projects queries, keys and values at once, splits them, and moves the
heads of each to the front. Moving the heads of the whole once, with the parts as outermost
axis, leaves the same elements moved by one transpose instead of three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.movement import MAX_RANK
from edgevit.targets.litert.problem import OVERHEAD, Problem
from edgevit.targets.views import Factor, identity, squeezed

__all__ = ["Refined", "sunk_splits"]

Order = tuple[Factor, ...]


@dataclass(frozen=True)
class Refined:
    """The order in which all parts of a split are wanted.

    Attributes:
        shape: Shape of a part with its axes split into the factors that move on their own.
        perm: The wanted order of those axes.
        axis: Which of those axes stands, in the whole, behind the axis of parts.
    """

    shape: tuple[int, ...]
    perm: tuple[int, ...]
    axis: int


def sunk_splits(problem: Problem) -> Mapping[str, Refined]:
    """The splits of a solved problem that are better done after the transpose.

    Such a split takes its operand as it lies; ``problem.labels`` is changed accordingly.
    """
    found = {}
    for i, group in enumerate(problem.groups):
        if not _even(group.head):
            continue
        label, cost = problem.labels[i], problem.local_cost(i)
        problem.labels[i] = next(problem.upstream(i), label)
        order = _common_order(problem, i)
        refined = None if order is None else _refined(group, order)
        if refined is None or _sunk_cost(problem, i) >= cost:
            problem.labels[i] = label
            continue
        found[group.output.name or ""] = refined
    return found


def _sunk_cost(problem: Problem, i: int) -> int:
    """The local cost when one transpose of the whole replaces those of the parts."""
    parts = problem.groups[i].head.outputs
    spared = sum(problem.anchor_cost(part) for part in parts)
    whole = sum(math.prod(shape_of(part)) for part in parts)
    return problem.local_cost(i) - spared + whole + OVERHEAD


def _even(node: ir.Node) -> bool:
    sizes = constant(node.inputs[1]) if node.op_type == "Split" else None
    return sizes is not None and len(set(sizes.tolist())) == 1


def _common_order(problem: Problem, i: int) -> Order | None:
    """The one order in which all readers of all parts want them."""
    node = problem.groups[i].head
    common: set[Order] | None = None
    for part in node.outputs:
        for reader in problem.readers.get(part, ()):
            view = problem.views[reader.value][1]
            orders = {squeezed(view.order(p)) for p in problem.wanted(reader)}
            common = orders if common is None else common & orders
    return min(common) if common else None


def _refined(group: Group, order: Order) -> Refined | None:
    """Cut a part's axes where the order cuts them."""
    node = group.head
    part = shape_of(node.outputs[0])
    strides = sorted(order, key=lambda f: -f[1])
    view = identity(part).reshape(tuple(size for size, _ in strides))
    cut = None if view is None else view.axes
    if cut is None or any(len(axis) != 1 for axis in cut) or len(strides) >= MAX_RANK:
        return None
    split = identity(part).axes[node.attributes["axis"].as_int()]
    if not split:
        return None
    size, stride = split[0]
    inside = [i for i, (_, s) in enumerate(strides) if stride <= s < stride * size]
    perm = tuple(strides.index(f) for f in order)
    return Refined(tuple(f[0] for f in strides), perm, inside[0])
