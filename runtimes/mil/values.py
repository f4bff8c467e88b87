"""Values at run time.

A float16 value is held as the float32 numbers it consists of: exact, and what operators read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevit.runtimes.mil.spec import Array, Literal

__all__ = ["Value", "hold", "kind_of"]


@dataclass(frozen=True)
class Value:
    """Data, and the dtype that the program declares for it."""

    data: Literal
    dtype: str

    def export(self) -> Array:
        """An owned array of the declared dtype."""
        return np.array(self.data, dtype=None if self.dtype == "str" else self.dtype)


def kind_of(data: Literal) -> str:
    """The dtype name of a constant as the program would declare it."""
    if isinstance(data, str) or data.dtype.kind == "U":
        return "str"
    return str(data.dtype)


def hold(data: Literal, dtype: str) -> Value:
    """A value of ``dtype`` whose elements ``data`` already are."""
    if dtype == "float16" and not isinstance(data, str):
        return Value(data.astype(np.float32), dtype)
    return Value(data, dtype)
