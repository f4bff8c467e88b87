"""Unit roundoffs of an engine's float arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Roundoff", "roundoff"]


@dataclass(frozen=True)
class Roundoff:
    """Unit roundoffs: of stored tensors and of accumulators.

    ``underflow``: half the smallest subnormal of stored tensors, what rounding is off by below
    the normal range (Higham, section 2.2).
    ``dynamic``: layers with stored weights round their activations to 8 bits as they run.
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
