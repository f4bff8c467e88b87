"""What a case of the operator tests is, and the limits that they use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from tests.support.graphs import GraphBuilder

__all__ = [
    "EXACT",
    "ROUNDED",
    "Build",
    "Case",
    "accumulated",
    "noise",
    "seeded",
    "small_model",
]

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


def small_model() -> ir.Model:
    """A convolution and a linear layer, both of them outputs."""
    g = GraphBuilder("small")
    x = g.input("image", (1, 3, 8, 8))
    y = g.op("Conv", x, g.const(noise(4, 3, 3, 3), "kernel"), kernel_shape=[3, 3],
             strides=[2, 2], pads=[1] * 4, dilations=[1, 1], group=1,
             out="features")  # fmt: skip
    z = g.op("Reshape", y, g.ints([1, 64]))
    g.op("MatMul", z, g.const(noise(64, 5), "head"), out="logits")
    return g.model("features", "logits")
