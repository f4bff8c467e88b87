"""Layout assignment: in which order of axes each operator works.

Reshape and Transpose become views and cost nothing by themselves; what costs is reading a
tensor in an order in which it does not lie. ``plan`` chooses orders so that few elements
are moved: first along the data flow, then by local improvement, then by moving whole
regions of order-agnostic operators from one order to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Perm, Rule, channels_last, identity_perm
from edgevit.targets.litert.views import Factor, View, identity, order_perm

__all__ = ["MAX_RANK", "Layout", "is_movement", "moved", "plan"]

MAX_RANK = 6  # of TFLite's TRANSPOSE
_OVERHEAD = 2000  # elements that an operator's dispatch is worth
_ROUNDS = 12
_TRIES = 400  # bounds the time on graphs far larger than any we know


def is_movement(node: ir.Node) -> bool:
    """Whether a node only says the elements' order anew."""
    if node.domain != "":
        return False
    return node.op_type in ("Reshape", "Transpose") or _is_shuffle(node)


def _is_shuffle(node: ir.Node) -> bool:
    """DepthToSpace in the mode that TFLite's operator does not have."""
    return node.op_type == "DepthToSpace" and node.attributes["mode"].as_string() == "CRD"


def moved(node: ir.Node, view: View) -> View | None:
    """The view behind a movement node; ``None`` if it must be computed."""
    if node.op_type == "Transpose":
        return view.transpose(tuple(node.attributes["perm"].as_ints()))
    split = _shuffled(node, view) if _is_shuffle(node) else view
    after = None if split is None else split.reshape(shape_of(node.outputs[0]))
    if after is None or sum(len(axis) for axis in after.axes) > MAX_RANK:
        return None
    return after


def _shuffled(node: ir.Node, view: View) -> View | None:
    """DepthToSpace (CRD): depth is [C, b, b] and its blocks go behind height and width."""
    n, depth, h, w = view.shape
    b = node.attributes["blocksize"].as_int()
    split = view.reshape((n, depth // (b * b), b, b, h, w))
    return None if split is None else split.transpose((0, 1, 4, 2, 5, 3))


@dataclass(frozen=True)
class Layout:
    """The plan.

    Attributes:
        perms: For each group, by its first output's name, the order of its space.
        computed: Names of values of movement nodes that must be computed in plain order.
        cost: Elements moved by transposes, plus an overhead for each.
    """

    perms: Mapping[str, Perm]
    computed: frozenset[str]
    cost: int


@dataclass(frozen=True)
class _Reader:
    """Someone who reads a value that lies in an anchor's tensor."""

    group: int | None  # None: the graph's boundary
    value: ir.Value


class _Problem:
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
        self.readers: dict[ir.Value, list[_Reader]] = {}
        self._orders: dict[tuple[ir.Value, Perm, tuple[Perm, ...]], tuple[Factor, ...]] = {}
        self._wishes: dict[tuple[int, ir.Value, Perm], tuple[Perm, ...]] = {}
        self._anchors(graph, groups)
        for i, group in enumerate(self.groups):
            for value in dict.fromkeys(self.rules[i].operands(group)):
                self._reader(_Reader(i, value))
        for value in dict.fromkeys(graph.outputs):
            self._reader(_Reader(None, value))
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
        self._reader(_Reader(None, source))
        self._anchor(out, None)

    def _reader(self, reader: _Reader) -> None:
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

    def wanted(self, reader: _Reader) -> tuple[Perm, ...]:
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
        return len(orders) * (math.prod(shape_of(anchor)) + _OVERHEAD)

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
        return sum(self.anchor_cost(a) for a in anchors)

    def total(self) -> int:
        """The cost of the whole graph."""
        return sum(self.anchor_cost(a) for a in self.readers)

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
                    order = order_perm(axes, _joined(view.order(perm), axes))
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


def _joined(factors: list[Factor], axes: tuple[tuple[Factor, ...], ...]) -> list[Factor]:
    """Merge neighboring factors of the same axis, so that whole axes are seen as such."""
    whole = {axis[0] for axis in axes if axis}
    out: list[Factor] = []
    for factor in factors:
        last = out[-1] if out else None
        if last and last not in whole and last[1] == factor[0] * factor[1]:
            out[-1] = (last[0] * factor[0], factor[1])
        else:
            out.append(factor)
    return out


def _improve(problem: _Problem, order: Sequence[int]) -> bool:
    """Give each flexible group its locally best label."""
    changed = False
    for i in order:
        if not problem.rules[i].flexible:
            continue
        kept_label = problem.labels[i]
        best, best_cost = kept_label, problem.local_cost(i)
        for perm in problem.candidates(i):
            problem.labels[i] = perm
            cost = problem.local_cost(i)
            if cost < best_cost:
                best, best_cost = perm, cost
        problem.labels[i] = best
        changed |= best != kept_label
    return changed


def _follow(problem: _Problem) -> None:
    """First guess: each flexible group works in the order in which its data lies."""
    for i, rule in enumerate(problem.rules):
        if not rule.flexible:
            continue
        group = problem.groups[i]
        usable = [p for p in problem.upstream(i) if rule.valid(group, p)]
        usable += [p for p in problem.candidates(i) if rule.valid(group, p)]
        problem.labels[i] = usable[0]


def _neighbors(problem: _Problem, i: int) -> set[int]:
    """Flexible groups that share an anchor with group ``i``."""
    found: set[int] = set()
    for value in problem.rules[i].operands(problem.groups[i]):
        maker = problem.maker[problem.views[value][0]] if value in problem.views else None
        if maker is not None:
            found.add(maker)
    for out in problem.groups[i].nodes[-1].outputs:
        found |= {r.group for r in problem.readers.get(out, ()) if r.group is not None}
    return {j for j in found if problem.rules[j].flexible}


def _flood(problem: _Problem, start: int, perm: Perm) -> set[int]:
    """Give a group a label, let its flexible region follow; the groups that were asked."""
    problem.labels[start] = perm
    seen, queue = {start}, [start]
    while queue:
        i = queue.pop(0)
        for j in sorted(_neighbors(problem, i) - seen):
            seen.add(j)
            before = problem.local_cost(j)
            options = [(before, problem.labels[j])]
            for option in problem.candidates(j):
                problem.labels[j] = option
                options.append((problem.local_cost(j) - 1, option))  # ties follow the flood
            problem.labels[j] = min(options, key=lambda o: o[0])[1]
            if problem.labels[j] != options[0][1]:
                queue.append(j)
    return seen


def _regions(problem: _Problem) -> None:
    """Try to move whole regions to another order."""
    best = problem.total()
    tries = [
        (i, perm)
        for i, rule in enumerate(problem.rules)
        if rule.flexible and problem.local_cost(i) > 0
        for perm in problem.candidates(i)
    ]
    for i, perm in tries[:_TRIES]:
        saved = list(problem.labels)
        if perm == saved[i]:
            continue
        _improve(problem, sorted(_flood(problem, i, perm)))
        cost = problem.total()
        if cost < best:
            best = cost
        else:
            problem.labels = saved


def plan(
    graph: ir.Graph,
    groups: Sequence[Group],
    rule: Callable[[Group], Rule],
    boundary: Callable[[ir.Value], Perm],
) -> Layout:
    """Choose the order of axes of each group.

    Args:
        graph: Canonical graph.
        groups: Its nodes in groups, in execution order.
        rule: The layout rule of a group.
        boundary: The order in which the artifact takes and gives graph inputs and outputs.
    """
    problem = _Problem(graph, groups, rule, boundary)
    _follow(problem)
    forward = range(len(problem.groups))
    for _ in range(_ROUNDS):
        changed = _improve(problem, list(reversed(forward)))
        if not (_improve(problem, forward) or changed):
            break
    _regions(problem)
    perms = {g.output.name or "": problem.labels[i] for i, g in enumerate(problem.groups)}
    return Layout(perms, frozenset(v.name or "" for v in problem.computed), problem.total())
