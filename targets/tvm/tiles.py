"""Which register tile a product gets: the machine's own, or one measured to be faster.

A tile is as many vectors side by side as a packed panel has, times rows of the left side.
Choices are data: a product's name to its tile. They decide code and packed weights, so they
are an input of the compiler like the model, and the plan of a bundle holds those it was made
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgevit.errors import InputError
from edgevit.targets.tvm.kernels.arithmetic import Arithmetic
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.conv import Conv
from edgevit.targets.tvm.kernels.gemm import Gemm, layout
from edgevit.targets.tvm.kernels.tile import tile_rows
from edgevit.targets.tvm.machine import Machine

__all__ = [
    "Tile",
    "Tiles",
    "candidates",
    "name_of",
    "parse_tiles",
    "product_name",
    "with_tile",
]

# Vectors side by side that are tried: more leave no registers for rows.
_WIDEST = 6


@dataclass(frozen=True)
class Tile:
    """A register tile.

    Attributes:
        vectors: Side by side.
        rows: At most; 0: as many as registers allow.
    """

    vectors: int
    rows: int = 0


class Tiles:
    """The choices for one machine, and which of them a lowering has used.

    Attributes:
        used: Name of each product -> the tile that was chosen for it.
    """

    def __init__(self, machine: Machine, chosen: Mapping[str, Tile]) -> None:
        self._machine, self._chosen = machine, chosen
        self.used: dict[str, Tile] = {}

    def columns(self, name: str, count: int) -> tuple[Columns, int]:
        """How a product's columns are dealt to tiles, and the most rows of one (0: any)."""
        plain = layout(count, self._machine)
        found = self._chosen.get(name)
        if found is None:
            return plain, 0
        self.used[name] = found
        return Columns(count, plain.width, found.vectors), found.rows


def product_name(kind: str, rows: int, columns: int, depth: int, arithmetic: str) -> str:
    """``gemm 197x576x192 float32``: what a choice is for."""
    return f"{kind} {rows}x{columns}x{depth} {arithmetic}"


def name_of(kernel: Any) -> str | None:
    """The name of a kernel's product; ``None`` if its tile is not chosen."""
    if type(getattr(kernel, "arithmetic", None)) is not Arithmetic:
        return None  # weights that are decoded in registers are packed in their own way
    if isinstance(kernel, Gemm):
        size = (kernel.rows, kernel.columns.count, kernel.depth)
        return product_name("gemm", *size, kernel.arithmetic.name)
    if isinstance(kernel, Conv):
        depth = kernel.window.taps * kernel.channels
        size = (kernel.window.pixels, kernel.columns.count, depth)
        return product_name("conv", *size, kernel.arithmetic.name)
    return None


def with_tile(kernel: Any, tile: Tile) -> Any:
    """The same product by another tile."""
    columns = replace(kernel.columns, height=tile.vectors)
    return replace(kernel, columns=columns, tile=tile.rows)


def candidates(kernel: Any, machine: Machine) -> tuple[Tile, ...]:
    """Tiles worth a try for a kernel, the likeliest first; its own is not among them."""
    vectors = kernel.columns.vectors
    found = []
    for wide in range(1, min(_WIDEST, vectors) + 1):
        most = tile_rows(machine, wide)
        found += [Tile(wide, rows) for rows in (most, most - 1, most // 2) if rows > 0]
    own = (kernel.columns.height, kernel.tile)
    sizes = {(t.vectors, t.rows): t for t in found if (t.vectors, t.rows) != own}
    best = sorted(sizes.values(), key=lambda t: (-_reuse(t), t.vectors))
    return tuple(best)


def _reuse(tile: Tile) -> float:
    """Multiplications for each number that a step reads."""
    return tile.vectors * tile.rows / (tile.vectors + tile.rows)


def parse_tiles(data: Any, machine: Machine, where: str) -> dict[str, Tile]:
    """The choices of a tuning file.

    Raises:
        InputError: It is of another schema or for another machine, or damaged.
    """
    try:
        if data["schema"] != 1:
            raise InputError(f"{where}: expected a tuning file of schema 1")
        if data["machine"] != machine.name:
            raise InputError(
                f"{where} was measured on {data['machine']}, the code is for {machine.name}",
                hint="--tune N with a file of its own measures here",
            )
        found = {n: Tile(*t["tile"]) for n, t in data["products"].items() if t["tile"]}
        for tile in found.values():
            if not (0 < tile.vectors <= _WIDEST and 0 <= tile.rows <= 64):
                raise ValueError(f"tile {tile}")
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(f"{where}: not a tuning file: {type(e).__name__}: {e}") from e
    return found
