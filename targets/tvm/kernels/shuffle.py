"""Lanes of vectors rearranged in registers: transposition and reductions across lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.kernels.kernel import spread

__all__ = ["across", "joined", "pick", "transposed"]


def pick(vectors: Sequence[Any], lanes: Sequence[int]) -> Any:
    """The given lanes of several vectors (or scalars), counted through all of them."""
    return tirx.Shuffle(list(vectors), [tirx.const(i, "int32") for i in lanes])


def joined(value: Any, count: int, fill: float, lanes: int) -> Any:
    """``count`` lanes of a value, then ``fill`` up to ``lanes``; float32."""
    rest = lanes - count
    if not rest:
        return value
    return pick([value, spread(tirx.const(fill, "float32"), rest)], range(lanes))


def across(combine: Callable[[Any, Any], Any], register: Any, lanes: int) -> Any:
    """A scalar: all lanes of a register combined, by halves.

    Args:
        combine: Of two values, any number of lanes.
        register: Buffer of ``lanes`` elements; it is overwritten.
        lanes: A power of two.
    """
    half = lanes // 2
    while half:
        value = register[T.ramp(0, 1, lanes)]
        order = [i ^ half for i in range(lanes)]
        T.buffer_store(register, combine(value, pick([value], order)), [T.ramp(0, 1, lanes)])
        half //= 2
    return register[0]


def transposed(rows: Sequence[Any], keep: Callable[[Any], Any]) -> list[Any]:
    """The columns of a square block, a power of two wide.

    Blocks off the diagonal change places, at half the size in each step.

    Args:
        rows: As many vectors as they have lanes.
        keep: Puts a vector into a register and returns a read of it, so that no expression
            is written twice.
    """
    lanes = len(rows)
    now, half = list(rows), lanes // 2
    while half:
        for i in range(lanes):
            if i & half:
                continue
            pair = [now[i], now[i + half]]
            upper = [k if not k & half else lanes + k - half for k in range(lanes)]
            lower = [k + half if not k & half else lanes + k for k in range(lanes)]
            now[i], now[i + half] = keep(pick(pair, upper)), keep(pick(pair, lower))
        half //= 2
    return now
