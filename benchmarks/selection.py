"""Cases by the beginning of their names, as every benchmark's command line takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["select"]


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """Unique among the cases."""


C = TypeVar("C", bound=Named)


def select(cases: Sequence[C], wanted: Sequence[str]) -> tuple[C, ...]:
    """The cases whose name starts with one of ``wanted``; all if it is empty.

    Raises:
        ValueError: A name fits no case.
    """
    for text in wanted:
        if not any(case.name.startswith(text) for case in cases):
            known = ", ".join(case.name for case in cases)
            raise ValueError(f"no model starts with {text!r}; known: {known}")
    return tuple(c for c in cases if not wanted or c.name.startswith(tuple(wanted)))
