"""The device half of a backend: open an artifact, run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import Availability

__all__ = ["Arrays", "Closing", "Engine", "Executor"]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class Closing:
    """A context manager that closes itself; subclasses define ``close``."""

    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Executor(Protocol):
    """An opened artifact. Speaks the artifact's own names, shapes, dtypes and layout."""

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Artifact input name -> array, to artifact output name -> array (owned copies)."""

    def close(self) -> None:
        """Release what the engine holds."""

    def __enter__(self) -> Executor:
        """Return self."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""


class Engine(Protocol):
    """One inference engine; needs numpy and the engine's own package only."""

    name: ClassVar[str]

    def probe(self) -> Availability:
        """Whether this machine can run artifacts of this engine; imports nothing heavy."""

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> Executor:
        """Open the file or directory ``artifact``; ``threads=None`` is the engine's default.

        Raises:
            ArtifactError: The engine cannot read the artifact.
        """
