"""What an operator is told besides its arguments, and how it reads integer arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.runtimes.mil.spec import Array, TensorType

__all__ = ["Context", "Kernel", "OutOfRange", "Tensors", "axes_of", "integers"]

Tensors = tuple[Array, ...]
Kernel = Callable[..., Any]
"""``kernel(context, **arguments) -> array or tuple of arrays``.

The keyword names are MIL's parameter names, and an optional parameter has a default: the
signature is the schema. A parameter annotated ``Tensors`` takes a tuple. A kernel raises
``ValueError`` for arguments that MIL does not allow; the evaluator adds the operation's name.
"""


class OutOfRange(ValueError):  # noqa: N818 - says what the index is
    """An index lies outside of its axis."""


@dataclass(frozen=True)
class Context:
    """The circumstances of one call.

    Attributes:
        half: Sums are rounded to float16 (see ``arithmetic``); only for float16 results.
        dtypes: Parameter name -> declared dtype of its argument.
        outputs: Declared results.
        opset: 15, 16, 17 or 18: the iOS release whose operator set the function is in.
    """

    half: bool
    dtypes: Mapping[str, str]
    outputs: tuple[TensorType, ...]
    opset: int

    def constant(self, value: float, like: str) -> np.float32:
        """A default of MIL, rounded to the dtype of the parameter ``like``."""
        narrow = np.float16 if self.dtypes[like] == "float16" else np.float32
        return np.float32(narrow(value))


def integers(value: Array | None, default: Sequence[int]) -> tuple[int, ...]:
    """A vector argument of integers (or booleans), or the default."""
    if value is None:
        return tuple(default)
    return tuple(int(v) for v in np.asarray(value).reshape(-1))


def axes_of(value: Array | None, rank: int) -> tuple[int, ...]:
    """An ``axes`` argument as non-negative axes; all axes if absent."""
    axes = integers(value, range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(f"expected axes within [-{rank}, {rank}), found {list(axes)}")
    return tuple(axis % rank for axis in axes)
