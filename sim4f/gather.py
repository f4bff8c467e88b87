"""Index arrays applied to tensors: as strided views where the indices allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Gather"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Gather:
    """Elements of flat samples at given places; -1 gives zero.

    Attributes:
        shape: Of the result.
        index: int32 of that shape; ``None`` where ``steps`` say the same.
        start: Place of the first element, with ``steps``.
        steps: Elements between neighbors along each axis.
        lit: With ``steps``: the corner of the result, this large, that holds elements; the
            rest is zero.
    """

    shape: tuple[int, ...]
    index: Array | None
    start: int
    steps: tuple[int, ...]
    lit: tuple[int, ...]

    @classmethod
    def of(cls, index: Array) -> Gather:
        """Find the steps of an index array, if it has such."""
        found = index >= 0
        lit = tuple(
            int(
                np.count_nonzero(found.any(axis=tuple(a for a in range(index.ndim) if a != i)))
            )
            for i in range(index.ndim)
        )
        corner = index[tuple(slice(size) for size in lit)]
        if found.sum() != np.prod(lit) or int(corner.min(initial=0)) < 0 or not corner.size:
            return cls(index.shape, index.astype(np.int32), 0, (), ())
        first = (0,) * index.ndim
        start, steps = int(corner[first]), []
        for axis, size in enumerate(lit):
            neighbor = (*first[:axis], 1, *first[axis + 1 :])
            steps.append(int(corner[neighbor]) - start if size > 1 else 0)
        if _is_regular(corner, start, steps):
            return cls(index.shape, None, start, tuple(steps), lit)
        return cls(index.shape, index.astype(np.int32), 0, (), ())

    def indices(self) -> Array:
        """int64 of ``shape``, -1 where it is dark."""
        if self.index is not None:
            return self.index.astype(np.int64)
        found = np.full(self.shape, -1, np.int64)
        parts = (
            np.arange(n, dtype=np.int64) * s for n, s in zip(self.lit, self.steps, strict=True)
        )
        corner = tuple(slice(size) for size in self.lit)
        found[corner] = self.start + sum(np.ix_(*parts), np.zeros((), np.int64))
        return found

    def __call__(self, array: Array) -> Array:
        """Gather from each sample.

        Args:
            array: ``[samples, ...]``, each sample in any shape.

        Returns:
            ``[samples, *shape]``, contiguous; of samples that are in order, a view.
        """
        flat = np.ascontiguousarray(array).reshape(len(array), -1)
        if self.index is not None:
            padded = np.concatenate([flat, np.zeros((len(flat), 1), flat.dtype)], axis=1)
            return np.take(padded, self.index, axis=1, mode="wrap")
        step = flat.itemsize
        view: Array = np.ndarray(
            (len(flat), *self.lit),
            flat.dtype,
            flat,
            self.start * step,
            (flat.strides[0], *(s * step for s in self.steps)),
        )
        if self.lit == self.shape:
            # Matrix products of strided operands are slow: a view only where it is plain.
            return np.ascontiguousarray(view)
        whole = np.zeros((len(flat), *self.shape), flat.dtype)
        whole[(slice(None), *(slice(size) for size in self.lit))] = view
        return whole


def _is_regular(index: Array, start: int, steps: list[int]) -> bool:
    expected = np.array(start)
    for axis, (size, step) in enumerate(zip(index.shape, steps, strict=True)):
        behind = (1,) * (index.ndim - axis - 1)
        expected = expected + (np.arange(size) * step).reshape(size, *behind)
    return bool(np.array_equal(index, np.broadcast_to(expected, index.shape)))
