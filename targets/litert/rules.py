"""Layout rules: which orders of axes an operator can work in.

A rule speaks of the operator's *space*, the logical tensor it walks over, and of a ``perm``
of its axes: the operator works on ``space.transpose(perm)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.litert.grouping import Group

__all__ = ["CHANNELS_LAST", "ELEMENTWISE", "PLAIN", "Perm", "Read", "Rule", "identity_perm"]

Perm = tuple[int, ...]


def identity_perm(rank: int) -> Perm:
    """The permutation that changes nothing."""
    return tuple(range(rank))


def channels_last(rank: int) -> Perm:
    """The permutation from N, C, spatial to N, spatial, C."""
    return (0, *range(2, rank), 1) if rank > 2 else identity_perm(rank)


def aligned(perm: Perm, rank: int) -> Perm:
    """``perm`` for an operand of fewer axes, which broadcasting aligns on the right."""
    missing = len(perm) - rank
    return tuple(p - missing for p in perm if p >= missing)


@dataclass(frozen=True)
class Read:
    """An operand and the orders in which the operator takes it (any one of them)."""

    value: ir.Value
    perms: tuple[Perm, ...]


Kind = Literal[
    "plain", "channels-last", "elementwise", "same", "reduce", "products", "pointwise"
]
PLAIN: Kind = "plain"
CHANNELS_LAST: Kind = "channels-last"
ELEMENTWISE: Kind = "elementwise"


@dataclass(frozen=True)
class Rule:
    """How an operator treats the order of axes.

    Attributes:
        kind: ``plain``: logical order only. ``channels-last``: rank-4 data in NHWC.
            ``elementwise``: any order of the output; operands broadcast. ``same``: any
            order of the data operands, the result in the same. ``reduce``: any order of
            the operand; reduced axes may vanish. ``products``: matrix products, whose
            right operand may come with its last two axes swapped. ``pointwise``: rank-4
            data in NHWC, or in logical order at ``penalty`` a result's element.
        last: Axis that must stay last: ``None`` for no demand, ``"last"`` for the last
            axis, ``"axis"`` for the one in the attribute ``axis``.
        data: How many leading inputs are data; ``None`` for all.
        penalty: See ``pointwise``.
    """

    kind: Kind
    last: Literal["last", "axis"] | None = None
    data: int | None = None
    penalty: int = 0

    def operands(self, group: Group) -> tuple[ir.Value, ...]:
        """The inputs that are tensors computed at run time, in order."""
        found = group.head.inputs[: self.data]
        return tuple(v for v in found if v is not None and v.const_value is None)

    def space(self, group: Group) -> tuple[int, ...]:
        """Shape of the space."""
        if self.kind in ("same", "reduce"):
            return shape_of(_data(group))
        return shape_of(group.output)

    @property
    def flexible(self) -> bool:
        """Whether there is a choice of orders."""
        return self.kind in ("elementwise", "same", "reduce", "pointwise")

    def surcharge(self, group: Group, perm: Perm) -> int:
        """What this order costs the operator itself, in elements moved."""
        if self.kind != "pointwise" or perm == channels_last(len(perm)):
            return 0
        return self.penalty * math.prod(shape_of(group.output))

    def fixed(self, group: Group) -> Perm:
        """The order of an operator without choice."""
        rank = len(self.space(group))
        if self.kind in ("channels-last", "pointwise"):
            return channels_last(rank)
        return identity_perm(rank)

    def valid(self, group: Group, perm: Perm) -> bool:
        """Whether the operator can work in this order."""
        if not self.flexible:
            return perm == self.fixed(group)
        if self.kind == "pointwise":
            return perm in (channels_last(len(perm)), identity_perm(len(perm)))
        return perm == self.repaired(group, perm)

    def repaired(self, group: Group, perm: Perm) -> Perm:
        """The order itself, or with the axis at the end that must stay there."""
        if self.last is None or not perm:
            return perm
        end = len(perm) - 1
        if self.last == "axis":
            end = group.head.attributes["axis"].as_int()
        return (*(p for p in perm if p != end), end)

    def reads(self, group: Group, perm: Perm) -> tuple[Read, ...]:
        """The operands with the orders they are wanted in."""
        return tuple(
            Read(value, self._orders(i, value, perm))
            for i, value in enumerate(self.operands(group))
        )

    def _orders(self, index: int, value: ir.Value, perm: Perm) -> tuple[Perm, ...]:
        rank = len(shape_of(value))
        if self.kind == "channels-last":
            return (channels_last(rank),)
        if self.kind == "elementwise":
            return (aligned(perm, rank),)
        if self.kind in ("same", "reduce", "pointwise"):
            return (perm,)
        plain = identity_perm(rank)
        if self.kind == "products" and index in (1, 2) and rank >= 2:
            return (plain, (*plain[:-2], rank - 1, rank - 2))
        return (plain,)

    def result(self, group: Group, value: ir.Value, perm: Perm) -> Perm:
        """The order in which an output is produced."""
        if self.kind == "channels-last":
            return channels_last(len(shape_of(value)))
        if self.kind != "reduce":
            return perm
        return kept(perm, reduced_axes(group), len(shape_of(value)))

    def from_result(self, group: Group, value: ir.Value, perm: Perm) -> Perm | None:
        """The order of the space that yields this order of an output, if it is obvious."""
        same = self.kind != "reduce" or len(perm) == len(self.space(group))
        return perm if same else None

    def from_operand(self, group: Group, value: ir.Value, perm: Perm) -> Perm | None:
        """The order of the space in which this order of an operand is wanted."""
        return perm if shape_of(value) == self.space(group) else None


def _data(group: Group) -> ir.Value:
    value = group.head.inputs[0]
    if value is None:
        raise ValueError(f"node {group.head.name!r} has no data operand")
    return value


def reduced_axes(group: Group) -> tuple[int, ...]:
    """The axes that a reduction removes or shrinks."""
    node = group.head
    if "axis" in node.attributes:
        return (node.attributes["axis"].as_int(),)
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None:
        return identity_perm(len(shape_of(_data(group))))
    return tuple(int(a) for a in axes)


def kept(perm: Perm, axes: tuple[int, ...], rank: int) -> Perm:
    """``perm`` after ``axes`` vanished, or unchanged if the result kept them."""
    if rank == len(perm):
        return perm
    rest = [p for p in perm if p not in axes]
    names = sorted(rest)
    return tuple(names.index(p) for p in rest)
