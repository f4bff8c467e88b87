"""The form of an operator table: how to lower an operator and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.targets.coreml.context import FLOAT16_MAX, Context

__all__ = [
    "Lower",
    "Refuse",
    "Rule",
    "Since",
    "fixed",
    "floats",
    "i32",
    "ints",
    "ints_in",
    "masks_only",
    "number_in",
    "text",
]

Lower = Callable[[Context, ir.Node], None]
Refuse = Callable[[ir.Node], str | None]
Since = Callable[[ir.Node], int]


def _never(node: ir.Node) -> str | None:
    return None


def _always(node: ir.Node) -> int:
    return 16


@dataclass(frozen=True)
class Rule:
    """One row of an operator table.

    Attributes:
        lower: Adds the operations that compute the node's outputs.
        refuse: Why this node cannot be lowered; ``None`` if it can.
        saturates: Constants past float16 may saturate here without changing the function
            for values that float16 can hold.
        numbers: Inputs from this index on are read as numbers at lowering time; they do
            not become tensors of the program.
        needs: Attributes that the canonical form makes explicit.
        narrow: As ``refuse``, for float16 programs only.
        since: The first iOS release whose operators say this node.
    """

    lower: Lower
    refuse: Refuse = _never
    saturates: bool = False
    numbers: int = 99
    needs: tuple[str, ...] = ()
    narrow: Refuse = _never
    since: Since = _always


def i32(values: int | Sequence[int]) -> Any:
    """Integers as ML programs take them in parameters."""
    return np.asarray(values, np.int32)[()]


def ints(node: ir.Node, key: str) -> list[int]:
    """An ``ints`` attribute that the canonical form makes explicit."""
    return [int(v) for v in node.attributes[key].as_ints()]


def floats(node: ir.Node, key: str, default: float) -> float:
    """A ``float`` attribute, or its default."""
    return float(node.attributes.get_float(key, default))


def text(node: ir.Node, key: str, default: str) -> str:
    """A string attribute, or its default."""
    return str(node.attributes.get_string(key, default))


def fixed(value: ir.Value | None) -> bool:
    """Whether a value is constant in the program: an initializer, or one dequantized."""
    if constant(value) is not None:
        return True
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type != "DequantizeLinear":
        return False
    return all(constant(v) is not None for v in maker.inputs if v is not None)


def masks_only(node: ir.Node) -> str | None:
    """Past float16, an addend may only be a mask: far below, never far above."""
    for value in node.inputs:
        array = constant(value)
        if array is None or value is None or array.dtype.kind != "f":
            continue
        if (np.isfinite(array) & (array > FLOAT16_MAX)).any():
            return f"constant {value.name!r} reaches {array.max():.3g}, past float16; use fp32"
    return None


def ints_in(node: ir.Node, index: int) -> list[int] | None:
    """A constant integer input as a list; ``None`` if absent or not constant."""
    if index >= len(node.inputs):
        return None
    array = constant(node.inputs[index])
    return None if array is None else [int(v) for v in np.atleast_1d(array)]


def number_in(node: ir.Node, index: int, default: float) -> float | None:
    """A constant scalar input; ``default`` if absent, ``None`` if not constant."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return default
    array = constant(node.inputs[index])
    return None if array is None or array.size != 1 else float(array.reshape(()))
