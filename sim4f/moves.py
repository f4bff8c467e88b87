"""How a tensor is laid out before it is displayed, and put together after it was read.

Electronics moves data between a tensor and the planes of a 4f system: it pads, reshapes,
transposes and cuts. A list of such moves is data: a program stores it, and both interpreters
apply it, to values or to indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

__all__ = ["Move", "apply", "index_of", "moved_shape", "pad", "reshape", "slice_", "take"]
__all__ += ["transpose"]

Kind = Literal["pad", "reshape", "slice", "take", "transpose"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Move:
    """One move.

    Attributes:
        kind: ``reshape`` and ``transpose`` as in numpy; ``pad``: before and after of each
            axis; ``slice``: start and end of each axis; ``take``: axis, then indices.
        numbers: Its arguments.
    """

    kind: Kind
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"move: expected one of {get_args(Kind)}, found {self.kind!r}")


def reshape(*shape: int) -> Move:
    """To another shape of as many elements."""
    return Move("reshape", shape)


def transpose(*axes: int) -> Move:
    """Axes in another order."""
    return Move("transpose", axes)


def pad(*widths: int) -> Move:
    """Dark elements before and after each axis: ``b0, a0, b1, a1, ...``."""
    return Move("pad", widths)


def slice_(*ends: int) -> Move:
    """A box: ``start0, end0, start1, end1, ...``."""
    return Move("slice", ends)


def take(axis: int, *indices: int) -> Move:
    """These entries of one axis, in this order."""
    return Move("take", (axis, *indices))


def apply(moves: Sequence[Move], array: Array, dark: float = 0) -> Array:
    """The moved array.

    Args:
        moves: In order.
        array: Any dtype.
        dark: What padding holds.

    Raises:
        ValueError: A move does not fit the shape; numpy's message says how.
    """
    for move in moves:
        array = _apply(move, array, dark)
    return array


def _apply(move: Move, array: Array, dark: float) -> Array:
    numbers = move.numbers
    if move.kind == "reshape":
        return array.reshape(numbers)
    if move.kind == "transpose":
        return array.transpose(numbers)
    if move.kind == "take":
        return np.take(array, numbers[1:], axis=numbers[0])
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if len(pairs) != array.ndim:
        raise ValueError(f"{move.kind}: {len(pairs)} axes given, the array has {array.ndim}")
    if move.kind == "pad":
        return np.pad(array, pairs, constant_values=dark) if any(numbers) else array
    bad = [(s, e, n) for (s, e), n in zip(pairs, array.shape, strict=True) if not s < e <= n]
    if bad:
        raise ValueError(f"slice: expected 0 <= start < end <= size, found {bad[0]}")
    return array[tuple(slice(s, e) for s, e in pairs)]


def index_of(moves: Sequence[Move], shape: Sequence[int]) -> Array:
    """Flat index of the original element at each place of the moved array; dark is -1."""
    return apply(moves, np.arange(int(np.prod(shape))).reshape(tuple(shape)), dark=-1)


def moved_shape(moves: Sequence[Move], shape: Sequence[int]) -> tuple[int, ...]:
    """The shape after all moves."""
    empty = np.broadcast_to(np.zeros((), np.int8), tuple(shape))
    return tuple(apply(moves, empty).shape)
