"""In which order, and as which axes, a tensor of the program holds a value of the model.

The neural engine works on ``[B, C, 1, S]``: channels second, the sequence (or image) last
(https://machinelearning.apple.com/research/neural-engine-transformers). A ``Layout`` says
which axes of the value make each axis of the tensor:

    tokens [B, S, C]      ((0,), (2,), (), (1,))    ->  [B, C, 1, S]
    heads  [B, h, S, D]   ((0,), (1, 3), (), (2,))  ->  [B, h D, 1, S]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["HEADS", "KEYS", "SCORES", "Layout", "channels", "plain", "swapped"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """How a tensor holds a value.

    Attributes:
        groups: For each axis of the tensor the axes of the value that it joins, outer to
            inner; an empty group is an axis of size one. Each axis is in one group.
    """

    groups: tuple[tuple[int, ...], ...]

    @property
    def perm(self) -> tuple[int, ...]:
        """The value's axes in the order in which the tensor has them."""
        return tuple(axis for group in self.groups for axis in group)

    @property
    def rank(self) -> int:
        """Rank of the value."""
        return len(self.perm)

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is the value as it is."""
        return self == plain(self.rank)

    def shape(self, source: Sequence[int]) -> tuple[int, ...]:
        """Shape of the tensor that holds a value of shape ``source``."""
        return tuple(math.prod(source[axis] for axis in group) for group in self.groups)

    def place(self, axis: int) -> int | None:
        """The tensor's axis that is ``axis`` of the value alone; ``None`` if it is joined."""
        return next((i for i, group in enumerate(self.groups) if group == (axis,)), None)

    def broadcasts(self, source: Sequence[int], full: Sequence[int]) -> bool:
        """Whether a value of shape ``source`` broadcasts in this layout as it does itself.

        It does where no joined axis is partly broadcast.
        """
        for group in self.groups:
            wide = {axis for axis in group if full[axis] > 1}
            alone = {axis for axis in wide if source[axis] == 1}
            if alone and alone != wide:
                return False
        return True

    def arrange(self, array: Array, full: Sequence[int]) -> Array:
        """A constant as the tensor holds it, to be broadcast against shape ``full``."""
        array = array.reshape((1,) * (self.rank - array.ndim) + array.shape)
        if not self.broadcasts(array.shape, full):
            array = np.broadcast_to(array, full)
        return array.transpose(self.perm).reshape(self.shape(array.shape))


def plain(rank: int) -> Layout:
    """The value as it is."""
    return Layout(tuple((axis,) for axis in range(rank)))


def swapped(rank: int) -> Layout:
    """The last two axes exchanged: a matrix transposed."""
    return Layout(tuple((axis,) for axis in (*range(rank - 2), rank - 1, rank - 2)))


# Query and value: [B, h, S, D] as [B, h D, 1, S].
HEADS = Layout(((0,), (1, 3), (), (2,)))
# Key: [B, h, T, D] as [B, T, 1, h D].
KEYS = Layout(((0,), (2,), (), (1, 3)))
# Scores and masks: [B, h, S, T] as [B, T, h, S].
SCORES = Layout(((0,), (3,), (1,), (2,)))

_CHANNELS: dict[int, tuple[Layout, ...]] = {
    2: (Layout(((0,), (1,), (), ())), Layout(((), (1,), (), (0,)))),
    3: (Layout(((0,), (2,), (), (1,))),),
    4: (Layout(((0,), (3,), (1,), (2,))),),
    5: (Layout(((0, 1), (4,), (2,), (3,))),),
}


def channels(rank: int) -> tuple[Layout, ...]:
    """The layouts ``[B, C, ...]`` of rank 4 for a value whose last axis is the channels.

    A matrix ``[N, C]`` has two: ``[N, C, 1, 1]`` and ``[1, C, 1, N]``. Of rank 1 and of more
    than 5 there is none.
    """
    return _CHANNELS.get(rank, ())
