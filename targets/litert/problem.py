"""The layout problem: groups, anchors, readers, and what a choice of orders costs.

An anchor is a value with a tensor of its own; Reshape and Transpose make views of it. A
reader takes a value in some order; a transpose is needed where it does not lie that way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.movement import is_movement, moved
from edgevit.targets.litert.rules import Perm, Rule, channels_last, identity_perm
from edgevit.targets.views import Factor, View, identity, joined, order_perm

__all__ = ["OVERHEAD", "Problem", "Reader"]

OVERHEAD = 2000  # elements that an operator's dispatch is worth


@dataclass(frozen=True)
class Reader:
    """Someone who reads a value that lies in an anchor's tensor."""

    group: int | None  # None: the graph's boundary
    value: ir.Value


class Problem:
    """The graph as the planner sees it: groups, anchors, readers."""

    def __init__(
        self,
        graph: ir.Graph,
        groups: Sequence[Group],
        rule: Callable[[Group], Rule],
        boundary: Callable[[ir.Value], Perm],
    ) -> None:
        self.groups = [g for g in groups if not is_movement(g.head)]
        self.rules = [rule(g) for g in self.groups]
        self.boundary = boundary
        self.views: dict[ir.Value, tuple[ir.Value, View]] = {}
        self.maker: dict[ir.Value, int | None] = {}
        self.computed: set[ir.Value] = set()
        self.readers: dict[ir.Value, list[Reader]] = {}
        self._orders: dict[tuple[ir.Value, Perm, tuple[Perm, ...]], tuple[Factor, ...]] = {}
        self._wishes: dict[tuple[int, ir.Value, Perm], tuple[Perm, ...]] = {}
        self._anchors(graph, groups)
        for i, group in enumerate(self.groups):
            for value in dict.fromkeys(self.rules[i].operands(group)):
                self._reader(Reader(i, value))
        for value in dict.fromkeys(graph.outputs):
            self._reader(Reader(None, value))
        self.labels: list[Perm] = [self.rules[i].fixed(g) for i, g in enumerate(self.groups)]

    def _anchor(self, value: ir.Value, maker: int | None) -> None:
        self.views[value] = (value, identity(shape_of(value)))
        self.maker[value] = maker

    def _anchors(self, graph: ir.Graph, groups: Sequence[Group]) -> None:
        for value in graph.inputs:
            self._anchor(value, None)
        index = {id(g): i for i, g in enumerate(self.groups)}
        for group in groups:
            if is_movement(group.head):
                self._movement(group.head)
                continue
            for value in group.nodes[-1].outputs:
                self._anchor(value, index[id(group)])

    def _movement(self, node: ir.Node) -> None:
        source, out = node.inputs[0], node.outputs[0]
        if source is None or source.const_value is not None:
            self._anchor(out, None)
            return
        anchor, view = self.views[source]
        after = moved(node, view)
        if after is not None:
            self.views[out] = (anchor, after)
            return
        self.computed.add(out)
        self._reader(Reader(None, source))
        self._anchor(out, None)

    def _reader(self, reader: Reader) -> None:
        if reader.value in self.views:
            self.readers.setdefault(self.views[reader.value][0], []).append(reader)

    def anchor_perm(self, anchor: ir.Value) -> Perm:
        """The order in which an anchor lies."""
        maker = self.maker[anchor]
        if maker is None:
            fixed = anchor.is_graph_input()
            return self.boundary(anchor) if fixed else identity_perm(len(shape_of(anchor)))
        return self.rules[maker].result(self.groups[maker], anchor, self.labels[maker])

    def physical(self, value: ir.Value) -> View:
        """Where a value's elements lie, given the labels."""
        anchor, view = self.views[value]
        return _physical(view, shape_of(anchor), self.anchor_perm(anchor))

    def wanted(self, reader: Reader) -> tuple[Perm, ...]:
        """The orders in which a reader takes its value."""
        if reader.group is None:
            if reader.value.is_graph_output():
                return (self.boundary(reader.value),)
            return (identity_perm(len(shape_of(reader.value))),)
        label = self.labels[reader.group]
        key = (reader.group, reader.value, label)
        if key not in self._wishes:
            reads = self.rules[reader.group].reads(self.groups[reader.group], label)
            self._wishes[key] = tuple(
                p for read in reads if read.value is reader.value for p in read.perms
            )
        return self._wishes[key]

    def anchor_cost(self, anchor: ir.Value) -> int:
        """What the transposes behind an anchor cost; equal ones count once."""
        readers = self.readers.get(anchor, ())
        perm = self.anchor_perm(anchor) if readers else ()
        orders = {self._order(r.value, perm, self.wanted(r)) for r in readers} - {()}
        return len(orders) * (math.prod(shape_of(anchor)) + OVERHEAD)

    def _order(
        self, value: ir.Value, lying: Perm, perms: tuple[Perm, ...]
    ) -> tuple[Factor, ...]:
        """The order a transpose would have to make; empty if none is needed."""
        key = (value, lying, perms)
        if key not in self._orders:
            anchor, view = self.views[value]
            physical = _physical(view, shape_of(anchor), lying)
            free = any(physical.free(p) for p in perms)
            self._orders[key] = () if free else tuple(physical.order(perms[0]))
        return self._orders[key]

    def local_cost(self, i: int) -> int:
        """The cost of the anchors that a group's label has a say in."""
        group = self.groups[i]
        anchors = dict.fromkeys(
            self.views[v][0] for v in self.rules[i].operands(group) if v in self.views
        )
        anchors.update(dict.fromkeys(group.nodes[-1].outputs))
        own = self.rules[i].surcharge(group, self.labels[i])
        return own + sum(self.anchor_cost(a) for a in anchors)

    def total(self) -> int:
        """The cost of the whole graph."""
        own = zip(self.rules, self.groups, self.labels, strict=True)
        surcharges = sum(rule.surcharge(group, label) for rule, group, label in own)
        return surcharges + sum(self.anchor_cost(a) for a in self.readers)

    def candidates(self, i: int) -> list[Perm]:
        """Orders worth trying for a group: the neighbors' wishes."""
        group, rule = self.groups[i], self.rules[i]
        rank = len(rule.space(group))
        found = [*self.upstream(i), *self.downstream(i)]
        found += [identity_perm(rank), channels_last(rank)]
        fitting = [rule.repaired(group, p) for p in found if len(p) == rank]
        return [p for p in dict.fromkeys(fitting) if rule.valid(group, p)]

    def upstream(self, i: int) -> Iterator[Perm]:
        """Orders in which an operand already lies."""
        group, rule = self.groups[i], self.rules[i]
        for value in rule.operands(group):
            if value in self.views:
                natural = self.physical(value).natural()
                perm = natural and rule.from_operand(group, value, natural)
                if perm:
                    yield perm

    def downstream(self, i: int) -> Iterator[Perm]:
        """Orders in which a reader would take an output as it lies."""
        group, rule = self.groups[i], self.rules[i]
        for out in group.nodes[-1].outputs:
            axes = identity(shape_of(out)).axes
            for reader in self.readers.get(out, ()):
                view = self.views[reader.value][1]
                for perm in self.wanted(reader):
                    order = order_perm(axes, joined(view.order(perm), axes))
                    found = order and rule.from_result(group, out, order)
                    if found:
                        yield found


def _physical(view: View, shape: tuple[int, ...], perm: Perm) -> View:
    """A view of a logical tensor, as a view of the buffer that holds it in order ``perm``."""
    logical = [axis[0] if axis else None for axis in identity(shape).axes]
    lying = [axis[0] if axis else None for axis in identity(shape, perm).axes]

    def place(factor: Factor) -> Factor:
        size, stride = factor
        for here, there in zip(logical, lying, strict=True):
            if here and there and here[1] <= stride < here[0] * here[1]:
                return (size, stride // here[1] * there[1])
        raise ValueError(f"stride {stride} lies outside of shape {shape}")

    return View(tuple(tuple(place(f) for f in axis) for axis in view.axes))
