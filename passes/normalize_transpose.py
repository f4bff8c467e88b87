"""Explicit permutations, merged; those that move no data become ``Reshape``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeTranspose", "moves_nothing"]


def moves_nothing(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    """True if the permutation keeps the order of all axes longer than one."""
    long = [p for p in perm if shape[p] != 1]
    return long == sorted(long)


@dataclass(frozen=True)
class NormalizeTranspose(NodePass):
    """Merge chains of ``Transpose`` and write ``perm`` out.

    ``Transpose(Transpose(x, p), q)``  ->  ``Transpose(x, p[q])``

    1. A missing ``perm`` means reversed axes.
    2. A chain reads from its start with the composed permutation.
    3. The identity permutation goes; one that only moves axes of length one is a ``Reshape``.
    """

    name: ClassVar[str] = "normalize-transpose"
    ops: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Compose, then choose between nothing, ``Reshape`` and ``Transpose``."""
        source = operand(node, 0)
        shape = static(source)
        if shape is None:
            return Refused("the input shape is not known")
        perm = _perm(node, len(shape))
        producer = source.producer()
        while producer is not None and producer.op_type == "Transpose":
            inner = _perm(producer, len(shape))
            perm = tuple(inner[p] for p in perm)  # case 2
            source = operand(producer, 0)
            producer = source.producer()
        if perm == tuple(range(len(perm))):  # case 3
            return source
        base = static(source) or shape
        target = tuple(base[p] for p in perm)
        if moves_nothing(base, perm) and 0 not in target:
            to = op.constant(np.array(target, np.int64))
            return op.op(
                "Reshape", [source, to], {"allowzero": 0}, shape=target, dtype=source.dtype
            )
        if source is node.inputs[0] and tuple(attr(node, "perm", ())) == perm:
            return None
        return op.op("Transpose", [source], {"perm": perm}, shape=target, dtype=source.dtype)


def _perm(node: ir.Node, rank: int) -> tuple[int, ...]:
    return tuple(attr(node, "perm") or range(rank - 1, -1, -1))
