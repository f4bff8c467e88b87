"""An ML program as plain records: what the evaluator runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Array",
    "Binding",
    "Function",
    "Literal",
    "Operation",
    "Program",
    "TensorType",
]

Array = np.ndarray[Any, Any]
Literal = Array | str


@dataclass(frozen=True)
class TensorType:
    """Name, element type and shape of a value.

    Attributes:
        name: Value name, unique in its function.
        dtype: numpy dtype name, or ``"str"``.
        shape: ``None`` in a place whose size is known at run time only.
        variadic: True if the rank is known at run time only; ``shape`` is then empty.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    variadic: bool = False

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of ``shape`` is of this type."""
        if self.variadic:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Binding:
    """One argument of an operation: a value's name, or a constant written in place."""

    name: str = ""
    literal: Literal | None = None


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        type: Operator name, for example ``"conv"``.
        name: The operation's own name; the first output's if it has none.
        inputs: Parameter name -> its bindings (several for a tuple parameter).
        outputs: What it writes.
        attributes: Constants of ``const`` and ``constexpr_*`` operations.
        blocks: Number of nested blocks (control flow).
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[TensorType, ...]
    attributes: Mapping[str, Literal]
    blocks: int


@dataclass(frozen=True)
class Function:
    """A function: inputs, operations in execution order, names of the results.

    Attributes:
        name: Function name.
        opset: Operator set, for example ``"CoreML7"`` (iOS 17).
        inputs: Declared inputs.
        operations: In execution order.
        outputs: Names of the values it returns.
    """

    name: str
    opset: str
    inputs: tuple[TensorType, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """The functions of an ML program, and the one that runs by default."""

    functions: Mapping[str, Function]
    default: str
