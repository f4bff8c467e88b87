"""Which kernel element meets which input element at a pixel that is read.

Along one direction of the plane, element ``j`` of the kernel (at ``q[j]``) contributes to the
read coordinate ``r`` what stands at ``(r - q[j]) mod n`` of the input plane: an input element,
or nothing. The two directions are independent. Reads that share kernel elements are a class;
within a class every read has the same list of kernel elements and its own of input elements,
so that a frame is a matrix product of gathered inputs and gathered kernels, whatever the
lattices are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.program import Lattice

__all__ = ["Match", "match", "occupancy"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Match:
    """The matches along one direction; -1 is "nothing there".

    Attributes:
        kernels: ``[classes, length]`` kernel element in each place of a class's list.
        inputs: ``[rows, length]`` input element in each place; distinct rows only.
        row: ``[reads]`` which row of ``inputs`` a read has.
        class_of: ``[reads]`` which class it is in.
    """

    kernels: Array
    inputs: Array
    row: Array
    class_of: Array


def occupancy(lattice: Lattice, pixels: int) -> Array:
    """Which element stands at each of ``pixels`` coordinates; -1 where it is dark.

    Raises:
        ParameterError: An element is outside of the plane, or two share a pixel.
    """
    at = lattice.coordinates()
    if at.min() < 0 or at.max() >= pixels:
        raise ParameterError(
            f"input lattice: expected 0 <= coordinate < {pixels}, found {at.min()} to "
            f"{at.max()}; use a larger plane or split the input"
        )
    if len(np.unique(at)) != len(at):
        raise ParameterError("input lattice: two elements share a pixel; widen the pitch")
    found = np.full(pixels, -1, np.int64)
    found[at] = np.arange(len(at))
    return found


def match(displayed: Lattice, masked: Lattice, read: Lattice, pixels: int) -> Match:
    """Match along one direction of a plane of ``pixels``."""
    at = (read.coordinates()[:, None] - masked.coordinates()[None, :]) % pixels
    hits = occupancy(displayed, pixels)[at]
    used = np.flatnonzero((hits >= 0).any(axis=0))
    if not used.size:
        nothing = np.full((1, 1), -1, np.int64)
        zeros = np.zeros(len(read), np.int64)
        return Match(nothing, nothing, zeros, zeros)
    class_of = _classes(hits[:, used] >= 0)
    count = int(class_of.max()) + 1
    lists = [used[(hits[class_of == c][:, used] >= 0).any(axis=0)] for c in range(count)]
    length = max(1, *(len(found) for found in lists)) if count > 1 else max(1, len(lists[0]))
    kernels = np.full((count, length), -1, np.int64)
    for c, found in enumerate(lists):
        kernels[c, : len(found)] = found
    mine = kernels[class_of]
    own = np.where(mine >= 0, np.take_along_axis(hits, np.maximum(mine, 0), axis=1), -1)
    inputs, row = np.unique(own, axis=0, return_inverse=True)
    return Match(kernels, inputs, row.reshape(-1), class_of)


def _classes(met: Array) -> Array:
    """Connected components of reads over the kernel elements that they meet."""
    from scipy.sparse import bmat, csr_matrix
    from scipy.sparse.csgraph import connected_components

    edges = csr_matrix(met.astype(np.int8))
    _, labels = connected_components(bmat([[None, edges], [edges.T, None]]), directed=False)
    _, class_of = np.unique(labels[: len(met)], return_inverse=True)
    return np.asarray(class_of.reshape(-1), np.int64)
