"""Transpose without the axes of length one that are dropped right after."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.sites import is_op
from edgevit.rewrite import Builder

__all__ = ["DropUnitAxes", "without_units"]


def _inversions(perm: tuple[int, ...]) -> int:
    return sum(a > b for a, b in itertools.combinations(perm, 2))


def without_units(
    shape: tuple[int, ...], perm: tuple[int, ...], target: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shape and permutation that give ``target`` directly.

    Args:
        shape: Shape before the transposition, with axes of length one.
        perm: The transposition.
        target: What the transposed shape is without some of those axes.

    Returns:
        Shape and permutation of ``target``'s rank, of all choices the one closest to no
        transposition at all; ``None`` if ``target`` is not the shape without unit axes.
    """
    moved = tuple(shape[p] for p in perm)
    units = [i for i, d in enumerate(moved) if d == 1]
    extra = len(moved) - len(target)
    if extra <= 0 or extra > len(units):
        return None
    found = []
    for dropped in itertools.combinations(units, extra):
        if tuple(d for i, d in enumerate(moved) if i not in dropped) != target:
            continue
        axes = sorted(perm[i] for i in range(len(perm)) if i not in dropped)
        rest = tuple(axes.index(perm[i]) for i in range(len(perm)) if i not in dropped)
        found.append((_inversions(rest), tuple(shape[a] for a in axes), rest))
    return min(found)[1:] if found else None


@dataclass(frozen=True)
class DropUnitAxes(NodePass):
    """Leave out axes of length one ahead of a transposition instead of behind it.

    ``Reshape(Transpose(Reshape(x, [1,50,1,4,16]), [2,0,3,1,4]), [1,4,50,16])``
    ->  ``Transpose(Reshape(x, [1,50,4,16]), [0,2,1,3])``

    1. The last shape is the transposed one without some axes of length one.
    2. Of several choices, the permutation with the fewest inversions.
    3. Only this ``Reshape`` reads the transposed tensor.
    """

    name: ClassVar[str] = "drop-unit-axes"
    ops: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite a ``Reshape`` behind ``Transpose`` behind ``Reshape``."""
        moved = operand(node, 0)
        transpose = moved.producer()
        target = static(node.outputs[0])
        if transpose is None or not is_op(transpose, "Transpose") or target is None:
            return None
        split = operand(transpose, 0)
        first, shape = split.producer(), static(split)
        alone = len(moved.uses()) == 1 and not moved.is_graph_output()  # case 3
        if first is None or not is_op(first, "Reshape") or shape is None or not alone:
            return None
        found = without_units(shape, tuple(attr(transpose, "perm", ())), target)
        if found is None:  # case 1
            return None
        to, perm = found
        source = operand(first, 0)
        listed = op.constant(np.array(to, np.int64))
        y = op.op("Reshape", [source, listed], {"allowzero": 0}, shape=to, dtype=source.dtype)
        return op.op("Transpose", [y], {"perm": perm}, shape=target, dtype=source.dtype)
