"""Matrix products with packed weights, float32 or bytes, and what follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.targets.tvm.kernels.arithmetic import FLOAT32, Arithmetic
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
    """C[M, N] = epilogue(A[M, K] B[K, N]); B is the result of ``pack_b`` or ``pack_integers``.

    Attributes:
        rows: M.
        depth: K.
        columns: N, dealt to tiles: ``layout(N, machine)``.
        row_stride: Elements from one row of A to the next; K itself has stride 1.
        output_stride: Elements from one row of C (and of a residual) to the next.
        epilogue: What follows the sums.
        arithmetic: float32, or ``integer(machine)``; K is a multiple of four then, rows too.
        tile: Rows of a register tile at most; 0: as many as registers allow.
    """

    rows: int
    depth: int
    columns: Columns
    row_stride: int
    output_stride: int
    epilogue: Epilogue = PLAIN
    arithmetic: Arithmetic = FLOAT32
    tile: int = 0

    @property
    def label(self) -> str:
        """``gemm``, ``gemm_int8``, ``gemm_codes``, ``gemm_shift``."""
        return f"gemm{self.arithmetic.suffix}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """A, packed B, offsets if integers, the epilogue's reads, C."""
        columns = self.columns
        places = (self.rows - 1) * self.output_stride + columns.count
        kind = self.arithmetic
        return (
            Operand("a", kind.left, (self.rows - 1) * self.row_stride + self.depth),
            Operand("b", kind.right, kind.size(columns.vectors, columns.lanes, self.depth)),
            *kind.operands(columns.count),
            *self.epilogue.operands(columns.count, places, self.rows),
        )

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Tiles of rows x panels."""
        a, b, *rest = buffers
        columns, kind = self.columns, self.arithmetic

        def write(spot: Spot) -> None:
            rows = spot.rows()
            starts = [columns.start(spot.panel, v) for v in range(spot.vectors)]
            tile = Tile(len(rows), spot.vectors, columns.lanes, kind.sums)
            kind.start(tile, rest, starts)
            panel = spot.panel * kind.size(columns.height, columns.lanes, self.depth)
            left = [r * self.row_stride for r in rows]
            kind.multiply(tile, a, left, b, panel, self.depth)
            places = [r * self.output_stride for r in rows]
            finish(tile, self.epilogue, rest[kind.starts :], starts, places, rows)

        multiplies = self.rows * columns.count * self.depth
        tiles(machine, self.rows, columns, multiplies, write, most=self.tile or kind.most)
