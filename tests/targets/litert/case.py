"""What a case of the operator tests is, and the limits that they use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.graphs import GraphBuilder

__all__ = ["EXACT", "ROUNDED", "Build", "Case", "accumulated", "noise", "seeded"]

Build = Callable[[GraphBuilder], Sequence[str]]

_UNIT = 2.0**-24  # unit roundoff of float32
EXACT = 0.0  # elements are moved, compared or rounded to integers: nothing to lose
ROUNDED = 16 * _UNIT  # a handful of roundings, or a polynomial good to a few ulps


def accumulated(terms: int) -> float:
    """Limit, relative to max|y|, of sums of ``terms`` products in any order.

    Twice the first-order bound ``terms * u`` of each side, because both sides round.
    """
    return 4 * terms * _UNIT


@dataclass(frozen=True)
class Case:
    """One graph.

    Attributes:
        build: Builds it and names its outputs.
        limit: Of max|y - r| / max|r|.
    """

    build: Build
    limit: float


def noise(*shape: int, seed: int = 7) -> np.ndarray[Any, Any]:
    """Seeded normal values for weights."""
    return np.random.default_rng(seed).standard_normal(shape)


def seeded(build: Callable[..., Sequence[str]], *args: Any, **kwargs: Any) -> Build:
    """``build`` with its arguments bound."""

    def bound(g: GraphBuilder) -> Sequence[str]:
        return build(g, *args, **kwargs)

    return bound
