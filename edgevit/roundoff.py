"""Unit roundoffs of float arithmetic, and how far its sums and functions are off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

__all__ = ["FUNCTION_ULPS", "SAFETY", "Operand", "Roundoff", "roundoff"]

# A run has about 1e6 sums a node; Higham and Mary's lambda for failure odds below 1e-9
# per node is sqrt(2 ln(2e15)) = 8.4.
SAFETY = 8.0
# Vendor kernels evaluate exp, erf, tanh and division to a few units in the last place.
FUNCTION_ULPS = 4.0


class Operand(Protocol):
    """An input as the analysis sees it: the reference's array and the bound on its error."""

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The reference's."""

    @property
    def error(self) -> float:
        """Bound on the error of any element."""

    @property
    def peak(self) -> float:
        """Largest finite magnitude."""

    def norm(self, length: int) -> float:
        """Bound on the Euclidean norm of the errors of so many elements."""


@dataclass(frozen=True)
class Roundoff:
    """Unit roundoffs: of stored tensors and of accumulators.

    ``underflow``: half the smallest subnormal of stored tensors, what rounding is off by below
    the normal range (Higham, section 2.2).
    ``dynamic``: all layers with stored weights round their activations to 8 bits as they run.
    """

    storage: float
    compute: float
    underflow: float = 2.0**-150
    dynamic: bool = False


def roundoff(tensors: str, *, dynamic: bool = False) -> Roundoff:
    """Roundoffs by the numpy dtype name of stored tensors; sums are in float32."""
    table = {
        "float32": Roundoff(2.0**-24, 2.0**-24, 2.0**-150),
        "float16": Roundoff(2.0**-11, 2.0**-24, 2.0**-25),
    }
    return replace(table[tensors], dynamic=dynamic)
