"""Packing of a matrix whose columns lie far apart into panels, at run time."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from edgevit.targets.tvm.kernels.kernel import kept, load, loop, store
from edgevit.targets.tvm.kernels.shuffle import pick, transposed

__all__ = ["Transposed"]


class Transposed:
    """B[k, n] = source[n * stride + k] as panels [N/NR][K][NR] of whole vectors.

    Columns past the last one repeat it, so that nothing is read outside; or the last vector
    overlaps its neighbor, where there is one.

    Args:
        columns: N.
        depth: K.
        lanes: Of a vector, a power of two.
        height: Vectors of a full panel.
        stride: Elements from one column of B to the next.
        overlap: Whether the last vector overlaps, as ``Columns`` has it.
    """

    def __init__(
        self,
        columns: int,
        depth: int,
        lanes: int,
        height: int,
        stride: int,
        overlap: bool = False,
    ) -> None:
        self.columns, self.depth, self.stride = columns, depth, stride
        self.lanes, self.height = lanes, height
        self.overlap = overlap and columns >= lanes
        self.vectors = -(-columns // lanes)
        self.size = self.vectors * lanes * depth

    def panel(self, index: Any) -> Any:
        """Where a panel starts."""
        return index * (self.height * self.lanes * self.depth)

    def width(self, panel: int) -> int:
        """Vectors of a panel."""
        return min(self.height, self.vectors - panel * self.height)

    def write(self, source: Any, first: Any, target: Any, start: Any) -> None:
        """Write the statements that pack one matrix.

        Args:
            source: Flat buffer.
            first: Where the matrix starts in it.
            target: Flat buffer.
            start: Where the panels start in it.
        """
        full, rest = divmod(self.vectors, self.height)
        if full:
            with loop(full) as panel, loop(self.height) as vector:
                self._vector(
                    source,
                    first,
                    target,
                    start + self.panel(panel),
                    panel,
                    vector,
                    self.height,
                )
        if rest:
            base = start + self.panel(full)
            with loop(rest) as vector:
                self._vector(source, first, target, base, full, vector, rest)

    def _vector(
        self,
        source: Any,
        first: Any,
        target: Any,
        base: Any,
        panel: Any,
        vector: Any,
        width: int,
    ) -> None:
        """All of K for one vector of columns."""
        lanes = self.lanes
        column = (panel * self.height + vector) * lanes
        rows = [first + self._column(column, i) * self.stride for i in range(lanes)]
        base = base + vector * lanes
        step = width * lanes
        if self.depth < lanes:
            for k in range(self.depth):
                one = pick([source[r + k] for r in rows], range(lanes))
                store(target, base + k * step, one, lanes)
            return
        with loop(-(-self.depth // lanes)) as block:
            k = block * lanes
            if self.depth % lanes:
                k = tirx.min(k, tirx.const(self.depth - lanes, "int32"))
            square = [kept(load(source, r + k, lanes), lanes) for r in rows]
            for i, one in enumerate(transposed(square, lambda v: kept(v, lanes))):
                store(target, base + (k + i) * step, one, lanes)

    def _column(self, start: Any, lane: int) -> Any:
        if self.columns % self.lanes == 0:
            return start + lane
        if self.overlap:
            return tirx.min(start, tirx.const(self.columns - self.lanes, "int32")) + lane
        return tirx.min(start + lane, tirx.const(self.columns - 1, "int32"))
