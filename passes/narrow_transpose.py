"""Transposes through six axes and more, said with fewer."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["MAX_RANK", "NarrowTranspose", "in_two", "narrowed"]

MAX_RANK = 5  # of most engines
_SEARCHED = 7  # axes whose permutations are tried, 5,040 of them


@dataclass(frozen=True)
class NarrowTranspose(NodePass):
    """Move axes that stay neighbors as one (window partitions, unfolding, pixel shuffles).

    ``Transpose(x, [0,1,3,2,4,5])``, x ``[1,8,7,8,7,96]``
    ->  ``Reshape(Transpose(Reshape(x, [8,7,8,672]), [0,2,1,3]), [1,8,8,7,7,96])``

    1. The rank is above five, and fewer axes say the same: axes of length one move freely,
       axes that are neighbors in the same order before and after move together.
    2. If six and more move on their own, two transposes of five axes at most do it.
    3. The reshapes around it, which made the rank, merge with the new ones elsewhere.
    """

    name: ClassVar[str] = "narrow-transpose"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Group the axes; three nodes take the place of one, or five."""
        source, out = operand(node, 0), node.outputs[0]
        shape, target = static(source), static(out)
        if shape is None or target is None or len(shape) <= MAX_RANK:
            return None
        perm = tuple(attr(node, "perm", ()))
        small, _ = narrowed(shape, perm)
        moves = (perm,) if len(small) <= MAX_RANK else in_two(shape, perm)
        if not moves:
            return Refused(f"all {len(small)} axes move on their own")
        x = source
        for move in moves:
            x = _moved(op, x, shape, move)
            shape = tuple(shape[p] for p in move)
        return _reshape(op, x, target)


def in_two(shape: tuple[int, ...], perm: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Two permutations that make ``perm``, of five axes each; none if there are no such."""
    if len(perm) > _SEARCHED:
        return ()
    best: tuple[int, tuple[tuple[int, ...], ...]] | None = None
    for first in itertools.permutations(range(len(perm))):
        middle = tuple(shape[p] for p in first)
        then = tuple(first.index(p) for p in perm)
        ranks = len(narrowed(shape, first)[0]), len(narrowed(middle, then)[0])
        if max(ranks) <= MAX_RANK and (best is None or sum(ranks) < best[0]):
            best = sum(ranks), (first, then)
    return best[1] if best is not None else ()


def _moved(
    op: Builder, x: ir.Value, shape: tuple[int, ...], perm: tuple[int, ...]
) -> ir.Value:
    small, move = narrowed(shape, perm)
    moved = tuple(small[p] for p in move)
    y = _reshape(op, x, small)
    return op.op("Transpose", [y], {"perm": move}, shape=moved, dtype=x.dtype)


def narrowed(
    shape: tuple[int, ...], perm: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same movement of elements in as few axes as possible: shape before, permutation."""
    long = [axis for axis, size in enumerate(shape) if size != 1]
    following = dict(itertools.pairwise(long))
    groups: list[list[int]] = []
    for axis in (a for a in perm if shape[a] != 1):
        if groups and following.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    source = sorted(groups)
    sizes = tuple(math.prod(shape[a] for a in group) for group in source)
    return sizes, tuple(source.index(group) for group in groups)


def _reshape(op: Builder, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(shape, np.int64))
    return op.op("Reshape", [x, to], {"allowzero": 0}, shape=shape, dtype=x.dtype)
