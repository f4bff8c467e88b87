"""float32 matrix products with packed weights, and what follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue
from edgevit.targets.tvm.kernels.kernel import Operand
from edgevit.targets.tvm.kernels.tile import Spot, Tile, finish, tiles
from edgevit.targets.tvm.machine import Machine

__all__ = ["Gemm", "layout", "pack_b"]


def layout(columns: int, machine: Machine) -> Columns:
    """How a float32 output's columns are dealt to a machine's tiles."""
    return Columns(columns, machine.lanes, machine.tile_vectors)


def pack_b(
    weights: np.ndarray[Any, Any], machine: Machine
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights [K, N] as ``Gemm`` reads them: panels [N/NR][K][NR], flat, float32."""
    return layout(weights.shape[1], machine).pack(np.asarray(weights, np.float32))


@dataclass(frozen=True)
class Gemm:
    """C[M, N] = epilogue(A[M, K] B[K, N]); B is the result of ``pack_b``.

    Attributes:
        rows: M.
        depth: K.
        columns: N, dealt to tiles: ``layout(N, machine)``.
        row_stride: Elements from one row of A to the next; K itself has stride 1.
        output_stride: Elements from one row of C (and of a residual) to the next.
        epilogue: What follows the sums.
    """

    rows: int
    depth: int
    columns: Columns
    row_stride: int
    output_stride: int
    epilogue: Epilogue = PLAIN

    label = "gemm"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """A, packed B, the epilogue's reads, C."""
        columns = self.columns
        places = (self.rows - 1) * self.output_stride + columns.count
        return (
            Operand("a", "float32", (self.rows - 1) * self.row_stride + self.depth),
            Operand("b", "float32", columns.vectors * columns.lanes * self.depth),
            *self.epilogue.operands(columns.count, places),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Tiles of rows x panels."""
        a, b, *rest = buffers
        columns = self.columns

        def write(spot: Spot) -> None:
            rows = spot.rows()
            tile = Tile(len(rows), spot.vectors, columns.lanes)
            tile.clear()
            start = spot.panel * (columns.height * columns.lanes * self.depth)
            tile.multiply(a, [r * self.row_stride for r in rows], b, start, self.depth)
            starts = [columns.start(spot.panel, v) for v in range(spot.vectors)]
            places = [r * self.output_stride for r in rows]
            finish(tile, self.epilogue, rest, starts, places)

        tiles(machine, self.rows, columns, self.rows * columns.count * self.depth, write)
