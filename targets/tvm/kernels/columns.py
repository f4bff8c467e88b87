"""How the columns of an output are dealt to vectors and panels, and weights packed alike.

Columns are cut into vectors of the machine's width and vectors into panels as wide as a
register tile. The last vector overlaps its neighbor instead of reaching past the end: both
compute the same values, so nothing is masked and nothing padded in the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """Columns 0..count-1 as panels of vectors.

    Attributes:
        count: Columns.
        width: Lanes of a vector, where there are that many columns.
        height: Vectors side by side in a full panel.
    """

    count: int
    width: int
    height: int

    @property
    def lanes(self) -> int:
        """Of each vector."""
        return min(self.width, self.count)

    @property
    def vectors(self) -> int:
        """All vectors."""
        return -(-self.count // self.lanes)

    @property
    def full(self) -> int:
        """Panels of ``height`` vectors."""
        return self.vectors // self.height

    @property
    def rest(self) -> int:
        """Vectors of the last panel, where it is not full; else 0."""
        return self.vectors % self.height

    @property
    def panels(self) -> int:
        """All panels."""
        return self.full + (self.rest > 0)

    def start(self, panel: Any, vector: int) -> Any:
        """First column of a panel's vector."""
        first = (panel * self.height + vector) * self.lanes
        if self.count % self.lanes == 0:
            return first
        return tirx.min(first, tirx.const(self.count - self.lanes, "int32"))

    def indices(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The column of each lane of each vector, [vectors, lanes]."""
        first = np.minimum(
            np.arange(self.vectors) * self.lanes, self.count - self.lanes, dtype=np.int64
        )
        return first[:, None] + np.arange(self.lanes)

    def pack(self, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Weights [K, count] or [K, count, G] as panels [K][vectors][lanes][G], flat.

        The last panel may have fewer vectors; its offset is that of a full one.
        """
        taken = weights[:, self.indices()]
        groups = [taken[:, i : i + self.height] for i in range(0, self.vectors, self.height)]
        return np.concatenate([np.ascontiguousarray(g).ravel() for g in groups])
