"""One operation, ready to execute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil.context import Kernel
from edgevit.runtimes.mil.spec import Operation

__all__ = ["IndicesError", "Step", "failure"]


class IndicesError(ArtifactError):
    """An index lies outside of its axis: the program's fault, or that of what was fed."""


@dataclass(frozen=True)
class Step:
    """One operation to execute.

    Attributes:
        operation: The operation.
        kernel: What it computes.
        arguments: Parameter name -> names of the values it takes.
        tuples: The parameters that take a tuple.
        free: Values that nobody reads after this step.
    """

    operation: Operation
    kernel: Kernel
    arguments: Mapping[str, tuple[str, ...]]
    tuples: frozenset[str]
    free: tuple[str, ...]


def failure(operation: Operation, reason: str, *, hint: str = "") -> ArtifactError:
    """The error of an operation, which names it."""
    return ArtifactError(
        f"operation {operation.type!r} that writes {operation.name!r}: {reason}", hint=hint
    )
