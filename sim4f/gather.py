"""Index arrays applied to tensors: as a strided view where the indices allow, else a copy."""

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
        index: int32 or int64 of that shape; ``None`` where ``steps`` say the same.
        start: Place of the first element, with ``steps``.
        steps: Elements between neighbors along each axis.
    """

    shape: tuple[int, ...]
    index: Array | None
    start: int
    steps: tuple[int, ...]

    @classmethod
    def of(cls, index: Array) -> Gather:
        """Find the steps of an index array, if it has such."""
        start = int(index.flat[0])
        corner = (0,) * index.ndim
        steps = []
        for axis, size in enumerate(index.shape):
            neighbor = (*corner[:axis], 1, *corner[axis + 1 :])
            steps.append(int(index[neighbor]) - start if size > 1 else 0)
        if int(index.min()) >= 0 and _is_regular(index, start, steps):
            return cls(index.shape, None, start, tuple(steps))
        return cls(index.shape, index.astype(np.int32), 0, ())

    def __call__(self, array: Array) -> Array:
        """Gather from each sample.

        Args:
            array: ``[samples, ...]``, each sample in any shape.

        Returns:
            ``[samples, *shape]``, contiguous; of samples that are in order, a view.
        """
        flat = np.ascontiguousarray(array).reshape(len(array), -1)
        if self.index is None:
            step = flat.itemsize
            strides = (flat.strides[0], *(s * step for s in self.steps))
            view = np.lib.stride_tricks.as_strided(
                flat[:, self.start :], (len(flat), *self.shape), strides, writeable=False
            )
            # Matrix products of strided operands are slow: a view only where it is plain.
            return np.ascontiguousarray(view)
        padded = np.concatenate([flat, np.zeros((len(flat), 1), flat.dtype)], axis=1)
        return np.take(padded, self.index, axis=1, mode="wrap")


def _is_regular(index: Array, start: int, steps: list[int]) -> bool:
    expected = np.array(start)
    for axis, (size, step) in enumerate(zip(index.shape, steps, strict=True)):
        behind = (1,) * (index.ndim - axis - 1)
        expected = expected + (np.arange(size) * step).reshape(size, *behind)
    return bool(np.array_equal(index, np.broadcast_to(expected, index.shape)))
