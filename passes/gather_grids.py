"""Tables of indices that are regular: transposed ranges, and rows of equal step."""

from __future__ import annotations

import numpy as np

from edgevit.passes.facts import Array
from edgevit.passes.normalize_slice import Cut

__all__ = ["MAX_ROWS", "rows_of", "transposed_range"]

MAX_ROWS = 8  # a kernel's side; more slices would cost more than the table


def transposed_range(flat: Array, size: int) -> tuple[int, int] | None:
    """``(a, b)`` if the indices are ``arange(size).reshape(a, b).T``, read row by row.

    That is what unfolding without overlap looks up: all elements once, in steps of ``b``.

    Args:
        flat: Indices, one axis.
        size: Of the axis that is looked up.
    """
    if flat.size != size or size < 4 or flat[0] != 0:
        return None
    step = int(flat[1])
    if step < 2 or size % step:
        return None
    grid = np.arange(size).reshape(size // step, step)
    return (size // step, step) if np.array_equal(grid.T.reshape(-1), flat) else None


def rows_of(indices: Array) -> tuple[Cut, ...] | None:
    """Each row of a table as a cut, if all are ranges of some positive step.

    Args:
        indices: Non-negative, two axes: the rows of an unfolding's kernel.
    """
    if indices.ndim != 2 or indices.shape[0] > MAX_ROWS or indices.shape[1] < 2:
        return None
    steps = np.diff(indices, axis=1)
    if (steps < 1).any() or (steps != steps[0, 0]).any():
        return None
    step = int(steps[0, 0])
    return tuple(Cut.of(int(row[0]), step, int(row.size)) for row in indices)
