"""One node as the interpreter's operators see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgevit.errors import UnsupportedModelError

__all__ = ["Operator", "Site", "Tensor", "ints", "unsupported"]

Tensor = Any  # torch.Tensor, which is untyped here


@dataclass(frozen=True)
class Site:
    """A node without its inputs.

    Attributes:
        op: Operator.
        name: Name of its first result, for errors.
        attributes: Values by name.
        outputs: Number of results.
    """

    op: str
    name: str
    attributes: Mapping[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return self.attributes.get(name, default)


# (torch, node, inputs; None where one is absent) -> results
Operator = Callable[[Any, Site, Sequence[Tensor]], Tensor | Sequence[Tensor]]


def ints(tensor: Tensor) -> list[int]:
    """The elements of an integer tensor."""
    return [int(i) for i in tensor.reshape(-1).tolist()]


def unsupported(at: Site, what: str) -> UnsupportedModelError:
    """The error of a form of an operator that is not written here."""
    return UnsupportedModelError(
        f"{at.op} {at.name!r}: {what} has no gradient way",
        hint="use curvature=forward, which needs forward passes only",
    )
