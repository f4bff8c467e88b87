"""Layout assignment: in which order of axes each operator works.

Reshape and Transpose become views and cost nothing by themselves; what costs is reading a
tensor in an order in which it does not lie. ``plan`` chooses orders so that few elements
are moved: first along the data flow, then by local improvement, then by moving whole
regions of order-agnostic operators from one order to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.problem import Problem
from edgevit.targets.litert.rules import Perm, Rule
from edgevit.targets.litert.sinking import Refined, sunk_splits

__all__ = ["Layout", "plan"]

_ROUNDS = 12
_TRIES = 400  # bounds the time on graphs far larger than any we know


@dataclass(frozen=True)
class Layout:
    """The plan.

    Attributes:
        perms: For each group, by its first output's name, the order of its space.
        sunk: Splits (by their first output's name) whose parts are all wanted in one other
            order: the whole is transposed once and then split, see ``sinking``.
        cost: Elements moved by transposes, plus an overhead for each; before sinking.
    """

    perms: Mapping[str, Perm]
    sunk: Mapping[str, Refined]
    cost: int


def _improve(problem: Problem, order: Sequence[int]) -> bool:
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


def _follow(problem: Problem) -> None:
    """First guess: each flexible group works in the order in which its data lies."""
    for i, rule in enumerate(problem.rules):
        if not rule.flexible:
            continue
        group = problem.groups[i]
        usable = [p for p in problem.upstream(i) if rule.valid(group, p)]
        usable += [rule.fixed(group)] if rule.kind == "pointwise" else []
        usable += [p for p in problem.candidates(i) if rule.valid(group, p)]
        problem.labels[i] = usable[0]


def _neighbors(problem: Problem, i: int) -> set[int]:
    """Flexible groups that share an anchor with group ``i``."""
    found: set[int] = set()
    for value in problem.rules[i].operands(problem.groups[i]):
        maker = problem.maker[problem.views[value][0]] if value in problem.views else None
        if maker is not None:
            found.add(maker)
    for out in problem.groups[i].nodes[-1].outputs:
        found |= {r.group for r in problem.readers.get(out, ()) if r.group is not None}
    return {j for j in found if problem.rules[j].flexible}


def _flood(problem: Problem, start: int, perm: Perm) -> set[int]:
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


def _regions(problem: Problem) -> None:
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
    problem = Problem(graph, groups, rule, boundary)
    _follow(problem)
    forward = range(len(problem.groups))
    for _ in range(_ROUNDS):
        changed = _improve(problem, list(reversed(forward)))
        if not (_improve(problem, forward) or changed):
            break
    _regions(problem)
    sunk = sunk_splits(problem)
    perms = {g.output.name or "": problem.labels[i] for i, g in enumerate(problem.groups)}
    return Layout(perms, sunk, problem.total())
