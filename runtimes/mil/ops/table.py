"""All operators by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgevit.runtimes.mil.context import Kernel
from edgevit.runtimes.mil.ops import (
    activation,
    attention,
    binary,
    conv,
    crop,
    index,
    linear,
    normalization,
    pool,
    quantize,
    reduction,
    resize,
    shape,
    tensor,
    unary,
)

__all__ = ["OPERATORS"]

_FILES = (
    activation,
    attention,
    binary,
    conv,
    crop,
    index,
    linear,
    normalization,
    pool,
    quantize,
    reduction,
    resize,
    shape,
    tensor,
    unary,
)

OPERATORS: Mapping[str, Kernel] = MappingProxyType(
    {name: kernel for file in _FILES for name, kernel in file.OPERATORS.items()}
)
"""MIL operator name -> what it does. ``const`` is the evaluator's own."""
