"""Strided views: where a value's elements lie, and loops that walk several views at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgevit.targets.tvm.program import Ref, Tensor
from edgevit.targets.views import Factor, View, squeezed

__all__ = [
    "CHANNELS_LAST",
    "Held",
    "Loop",
    "aligned_axes",
    "dense",
    "joined",
    "loops",
    "refined",
    "split",
]

# The order in which the axes of a picture [N, C, H, W] lie.
CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Held:
    """A value as the program holds it.

    Attributes:
        tensor: Where it is.
        offset: Element at which it begins.
        view: Strides of its axes; a stride of 0 repeats.
    """

    tensor: Tensor
    offset: int
    view: View

    @property
    def ref(self) -> Ref:
        """The pointer to its first element."""
        return Ref(self.tensor, self.offset)

    def walk(self, perm: Sequence[int]) -> tuple[Factor, ...]:
        """The factors of the axes ``perm``, merged where they walk memory evenly."""
        return squeezed([f for p in perm for f in self.view.axes[p]])


@dataclass(frozen=True)
class Loop:
    """One loop of a nest: its length, and the stride of each operand."""

    size: int
    strides: tuple[int, ...]


def dense(shape: Sequence[int], order: Sequence[int] | None = None) -> View:
    """The view of a new tensor whose axes lie in ``order``, outermost first."""
    order = range(len(shape)) if order is None else order
    axes: list[tuple[Factor, ...]] = [()] * len(shape)
    stride = 1
    for axis in reversed(order):
        if shape[axis] > 1:
            axes[axis] = ((shape[axis], stride),)
        stride *= shape[axis]
    return View(tuple(axes))


def split(factors: Sequence[Factor], sizes: Sequence[int]) -> tuple[Factor, ...] | None:
    """Cut factors so that they have exactly ``sizes``; ``None`` if they do not divide."""
    found: list[Factor] = []
    rest = list(factors)
    for size in sizes:
        if not rest or rest[0][0] % size:
            return None
        have, stride = rest[0]
        inner = have // size
        found.append((size, stride * inner))
        if inner == 1:
            rest.pop(0)
        else:
            rest[0] = (inner, stride)
    return None if rest else tuple(found)


def refined(walks: Sequence[Sequence[Factor]]) -> tuple[int, ...] | None:
    """Sizes into which the factors of several walks of equal length can all be cut."""
    sizes: list[int] = []
    rests = [[size for size, _ in walk] for walk in walks]
    while any(rests):
        if not all(rests):
            return None
        size = min(rest[-1] for rest in rests)
        if any(rest[-1] % size for rest in rests):
            return None
        sizes.append(size)
        for rest in rests:
            rest[-1] //= size
            if rest[-1] == 1:
                rest.pop()
    return tuple(reversed(sizes))


def aligned_axes(view: View, shape: Sequence[int]) -> tuple[tuple[Factor, ...], ...]:
    """The axes of an operand, broadcast to ``shape``: what is missing or one repeats."""
    missing = len(shape) - len(view.axes)
    axes: list[tuple[Factor, ...]] = []
    for i, size in enumerate(shape):
        own = view.axes[i - missing] if i >= missing else ()
        if size == 1:
            axes.append(())
        elif not own:
            axes.append(((size, 0),))
        else:
            axes.append(own)
    return tuple(axes)


def loops(
    shape: Sequence[int], views: Sequence[View]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[Factor, ...], ...]] | None:
    """Cut the axes of a space so that each operand has one stride a piece.

    Returns:
        For each axis the sizes of its pieces; and for each operand the factors of all
        pieces, in logical order. ``None`` if the operands' factors do not fit each other.
    """
    aligned = [aligned_axes(v, shape) for v in views]
    pieces: list[tuple[int, ...]] = []
    walks: list[list[Factor]] = [[] for _ in views]
    for axis, size in enumerate(shape):
        if size == 1:
            pieces.append(())
            continue
        sizes = refined([a[axis] for a in aligned]) if aligned else (size,)
        if sizes is None:
            return None
        pieces.append(sizes)
        for walk, axes in zip(walks, aligned, strict=True):
            cut = split(axes[axis], sizes)
            if cut is None:
                return None
            walk.extend(cut)
    return tuple(pieces), tuple(tuple(w) for w in walks)


def joined(sizes: Sequence[int], strides: Sequence[tuple[int, ...]]) -> tuple[Loop, ...]:
    """A nest of loops, outermost first, with neighbors merged where every operand allows.

    Args:
        sizes: Length of each loop.
        strides: For each loop the operands' strides.
    """
    merged: list[Loop] = []
    for size, steps in zip(sizes, strides, strict=True):
        if size == 1:
            continue
        last = merged[-1] if merged else None
        if last and all(a == b * size for a, b in zip(last.strides, steps, strict=True)):
            merged[-1] = Loop(last.size * size, steps)
        else:
            merged.append(Loop(size, steps))
    return tuple(merged)


def elements(shape: Sequence[int]) -> int:
    """Number of elements."""
    return math.prod(shape)
