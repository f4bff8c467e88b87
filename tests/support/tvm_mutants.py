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
    clear = Tile.clear

    def mutant(self: Tile) -> None:
        clear(self)
        ones = [1.0 + self._zero] * self.vectors
        self.step(0, [1.0 + self._zero] * self.rows, ones, lambda s, x, y: s + x * y)

    monkeypatch.setattr(Tile, "clear", mutant)


def shift_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale, bias and residual are those of the column before."""
    apply = Epilogue.apply

    def mutant(self: Epilogue, value: Any, buffers: Any, column: Any, *where: Any) -> Any:
        return apply(self, value, buffers, tirx.max(column - 1, 0), *where)

    monkeypatch.setattr(Epilogue, "apply", mutant)


MUTANTS = [drop_tail, keep_sums, shift_columns]
