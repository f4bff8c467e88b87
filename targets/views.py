"""Symbolic rearrangements: what Reshape and Transpose do to a tensor, without doing it.

A ``View`` says where each element of a logical tensor lies in a flat buffer: per logical
axis, from outer to inner, pairs ``(size, stride)``. Reshapes, transposes and layout changes
compose on views, so that a chain of them costs at most one TRANSPOSE when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "Factor",
    "Moves",
    "View",
    "contiguous",
    "identity",
    "joined",
    "order_perm",
    "squeezed",
]

Factor = tuple[int, int]


def squeezed(factors: list[Factor]) -> tuple[Factor, ...]:
    """Merge neighbors that together walk memory evenly."""
    merged: list[Factor] = []
    for size, stride in factors:
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)


def contiguous(factors: list[Factor]) -> bool:
    """Whether the factors walk a buffer from its first to its last element in order."""
    merged = squeezed(factors)
    return not merged or (len(merged) == 1 and merged[0][1] == 1)


@dataclass(frozen=True)
class Moves:
    """How to bring a buffer into another order: reshape to ``source``, transpose by ``perm``.

    Attributes:
        source: Shape to look at the buffer with.
        perm: Permutation of that shape; ``None`` if the order is already right.
    """

    source: tuple[int, ...]
    perm: tuple[int, ...] | None


@dataclass(frozen=True)
class View:
    """Where the elements of a logical tensor lie in a flat buffer of as many elements.

    Attributes:
        axes: For each logical axis its factors ``(size, stride)``, outer to inner, sizes > 1.
    """

    axes: tuple[tuple[Factor, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return tuple(math.prod(size for size, _ in axis) for axis in self.axes)

    def transpose(self, perm: tuple[int, ...]) -> View:
        """The view of ``x.transpose(perm)``."""
        return View(tuple(self.axes[p] for p in perm))

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The view of ``x.reshape(shape)``; ``None`` if factors do not split that way."""
        rest = [factor for axis in self.axes for factor in axis]
        axes = []
        for dim in shape:
            taken = _take(rest, dim)
            if taken is None:
                return None
            axes.append(tuple(taken))
        return View(tuple(axes))

    def order(self, perm: tuple[int, ...]) -> list[Factor]:
        """The factors in the order in which ``x.transpose(perm)`` walks them."""
        return [factor for p in perm for factor in self.axes[p]]

    def free(self, perm: tuple[int, ...]) -> bool:
        """Whether ``x.transpose(perm)`` is the buffer as it lies."""
        return contiguous(self.order(perm))

    def moves(self, perm: tuple[int, ...]) -> Moves:
        """The one transpose that brings the buffer into the order of ``perm``."""
        wanted = squeezed(self.order(perm))
        if contiguous(list(wanted)):
            return Moves((), None)
        lying = sorted(range(len(wanted)), key=lambda i: -wanted[i][1])
        source = tuple(wanted[i][0] for i in lying)
        return Moves(source, tuple(lying.index(i) for i in range(len(wanted))))

    def natural(self) -> tuple[int, ...] | None:
        """The ``perm`` for which ``x.transpose(perm)`` is the buffer as it lies, if any."""
        lying = sorted((f for axis in self.axes for f in axis), key=lambda f: -f[1])
        return order_perm(self.axes, lying)

    def complexity(self) -> int:
        """Rank of the transpose that reading it in logical order would take."""
        return len(squeezed(self.order(tuple(range(len(self.axes))))))


def _take(rest: list[Factor], dim: int) -> list[Factor] | None:
    """Take factors of product ``dim`` off the front of ``rest``, splitting one if needed."""
    taken: list[Factor] = []
    while dim > 1:
        size, stride = rest[0]
        if dim % size == 0:
            taken.append(rest.pop(0))
            dim //= size
        elif size % dim == 0:
            inner = size // dim
            taken.append((dim, stride * inner))
            rest[0] = (inner, stride)
            dim = 1
        else:
            return None
    return taken


def order_perm(
    axes: tuple[tuple[Factor, ...], ...], wanted: list[Factor]
) -> tuple[int, ...] | None:
    """The permutation of ``axes`` whose walk is ``wanted``; ``None`` if there is none.

    Axes of size one stay next to their neighbor on the left.
    """
    perm = [i for i, axis in enumerate(axes) if not axis]
    real: list[int] = []
    flat = list(wanted)
    while flat:
        hit = [i for i, axis in enumerate(axes) if axis and axis[0] == flat[0]]
        if len(hit) != 1 or tuple(flat[: len(axes[hit[0]])]) != axes[hit[0]]:
            return None
        real.append(hit[0])
        flat = flat[len(axes[hit[0]]) :]
    if real == sorted(real):
        return tuple(range(len(axes)))
    for one in perm:
        at = real.index(one - 1) + 1 if one - 1 in real else 0
        real.insert(at, one)
    return tuple(real)


def identity(shape: tuple[int, ...], perm: tuple[int, ...] | None = None) -> View:
    """The view of a logical tensor that lies in memory as ``x.transpose(perm)``."""
    order = tuple(range(len(shape))) if perm is None else perm
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return View(
        tuple(
            ((dim, stride),) if dim > 1 else ()
            for dim, stride in zip(shape, strides, strict=True)
        )
    )


def joined(factors: list[Factor], axes: tuple[tuple[Factor, ...], ...]) -> list[Factor]:
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
