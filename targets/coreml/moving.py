"""The operations that bring a tensor into a layout: reshape, transpose, reshape at most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgevit.targets.coreml.layouts import Layout
from edgevit.targets.views import View

__all__ = ["MAX_RANK", "Move", "moves"]

MAX_RANK = 5

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """One operation on one tensor.

    Attributes:
        op: ``"reshape"`` or ``"transpose"``.
        argument: The new shape, or the permutation.
    """

    op: Literal["reshape", "transpose"]
    argument: Shape


def moves(shape: Shape, view: View, layout: Layout) -> tuple[Move, ...]:
    """How to get a value from a tensor.

    Args:
        shape: Shape of the tensor.
        view: How the tensor's buffer is walked to give the value.
        layout: How the value is wanted.
    """
    wanted = layout.shape(view.shape)
    needed = view.moves(layout.perm)
    if needed.perm is None:
        return _reshape(shape, wanted)
    if len(needed.source) > MAX_RANK:
        return (*_blockwise(needed.source, needed.perm), Move("reshape", wanted))
    return _turn(shape, needed.source, needed.perm, wanted)


def _reshape(shape: Shape, wanted: Shape) -> tuple[Move, ...]:
    return () if shape == wanted else (Move("reshape", wanted),)


def _real(shape: Shape) -> Shape:
    """The sizes above one."""
    return tuple(n for n in shape if n > 1)


def _turn(shape: Shape, source: Shape, perm: Shape, wanted: Shape) -> tuple[Move, ...]:
    """One transpose; axes of size one are placed so that few reshapes are needed."""
    turned = tuple(source[p] for p in perm)
    direct = turned == _real(wanted) and len(wanted) <= MAX_RANK
    start = source
    if source == _real(shape) and (not direct or len(shape) == len(wanted)):
        start = shape
    elif direct:
        start = (1,) * (len(wanted) - len(source)) + source
    end = wanted if direct else (1,) * (len(start) - len(source)) + turned
    before = () if start == shape else (Move("reshape", start),)
    after = () if end == wanted else (Move("reshape", wanted),)
    return (*before, Move("transpose", _axes(start, perm, end)), *after)


def _axes(start: Shape, perm: Shape, end: Shape) -> Shape:
    """How to turn ``start``, whose axes above one go by ``perm``, into ``end``."""
    real = [axis for axis, n in enumerate(start) if n > 1]
    ones = iter([axis for axis, n in enumerate(start) if n == 1])
    order = iter([real[p] for p in perm])
    return tuple(next(order) if n > 1 else next(ones) for n in end)


def _blockwise(source: Shape, perm: Shape) -> tuple[Move, ...]:
    """Any permutation as transposes of rank 4: each brings one more axis to its place."""
    found: list[Move] = []
    order = list(range(len(source)))
    for place, axis in enumerate(perm):
        at = order.index(axis)
        if at == place:
            continue
        sizes = [source[i] for i in order]
        blocks = (
            math.prod(sizes[:place]),
            math.prod(sizes[place:at]),
            sizes[at],
            math.prod(sizes[at + 1 :]),
        )
        found += [Move("reshape", blocks), Move("transpose", (0, 2, 1, 3))]
        order.insert(place, order.pop(at))
    return tuple(found)
