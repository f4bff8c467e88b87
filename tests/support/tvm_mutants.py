"""Mutants of the TVM backend's kernels that the kernels' tests must reject."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import tirx

from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.tile import Blocks, Tile


def drop_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block of rows is forgotten."""
    monkeypatch.setattr(Blocks, "number", property(lambda self: self.count // self.size))


def keep_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accumulators hold what was left there: here, one."""
    clear, begin = Tile.clear, Tile.begin

    def leave(self: Tile) -> None:
        one = self._zero + 1
        self.step(0, [one] * self.rows, [one] * self.vectors, lambda s, x, y: s + x * y)

    def mutant(self: Tile) -> None:
        clear(self)
        leave(self)

    def other(self: Tile, values: Any) -> None:
        begin(self, values)
        leave(self)

    monkeypatch.setattr(Tile, "clear", mutant)
    monkeypatch.setattr(Tile, "begin", other)


def shift_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale and bias are those of the column before."""
    apply = Epilogue.apply

    def mutant(self: Epilogue, value: Any, buffers: Any, column: Any, *where: Any) -> Any:
        return apply(self, value, buffers, tirx.max(column - 1, 0), *where)

    monkeypatch.setattr(Epilogue, "apply", mutant)


MUTANTS = [drop_tail, keep_sums, shift_columns]
