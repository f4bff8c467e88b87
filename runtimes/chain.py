"""Run one entry of a bundle: its parts, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.bundle import Entry, Part
from edgevit.errors import ArtifactError, UsageError
from edgevit.runtimes.binding import from_artifact, to_artifact
from edgevit.runtimes.engine import Arrays, Closing, Engine, Executor

__all__ = ["Chain"]


def _engine(part: Part) -> Engine:
    try:
        engine: Engine = registry.load("engines", part.engine)()
    except UsageError as e:
        raise ArtifactError(
            f"the bundle needs the engine {part.engine!r}, which this installation does not "
            f"know",
            hint=e.hint,
        ) from e
    engine.probe().require()
    return engine


class Chain(Closing):
    """The opened parts of an entry. Speaks the source model's names, shapes and dtypes."""

    def __init__(
        self,
        root: Path,
        entry: Entry,
        threads: int | None,
        engines: dict[str, Engine] | None = None,
    ) -> None:
        """Open every part.

        Args:
            root: Directory of the artifacts.
            entry: Its parts are opened.
            threads: Threads of the engines; ``None`` is their default.
            engines: Name -> engine of the entries opened before, which may share what they
                opened; engines of this one are added.

        Raises:
            BackendMissingError: An engine is not installed; the hint names the extra.
            ArtifactError: An engine cannot read its artifact, or is unknown.
        """
        self.entry = entry
        self._stack = ExitStack()
        self._parts: list[tuple[Part, Executor]] = []
        known = {} if engines is None else engines
        with ExitStack() as opening:
            for part in entry.parts:
                engine = known.get(part.engine) or known.setdefault(part.engine, _engine(part))
                executor = engine.open(root / part.artifact, part, threads=threads)
                opening.enter_context(executor)
                self._parts.append((part, executor))
            self._stack = opening.pop_all()

    def run(self, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; inputs and outputs by source name.

        Raises:
            InputError: A value does not fit the artifact's dtype.
            ArtifactError: An artifact gives other tensors than the bundle records.
        """
        known = dict(feeds)
        for part, executor in self._parts:
            known.update(_run_part(part, executor, known))
        names = [info.name for info in self.entry.outputs]
        return dict(zip(names, _owned([known[n] for n in names], feeds), strict=True))

    def close(self) -> None:
        """Close every part."""
        self._parts = []
        self._stack.close()


def _owned(arrays: Sequence[Any], feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    """Arrays that are nobody else's: those of engines are, the caller's inputs are not."""
    taken = {id(a) for a in feeds.values()}
    found = []
    for array in arrays:
        found.append(np.array(array) if id(array) in taken else np.asarray(array))
        taken.add(id(array))
    return found


def _run_part(part: Part, executor: Executor, known: Arrays) -> dict[str, Any]:
    found = executor.run({b.artifact: to_artifact(b, known[b.name]) for b in part.inputs})
    missing = [b.artifact for b in part.outputs if b.artifact not in found]
    if missing:
        raise ArtifactError(
            f"artifact {part.artifact!r}: expected an output {missing[0]!r}, found "
            f"{sorted(found)}"
        )
    return {b.name: from_artifact(b, found[b.artifact]) for b in part.outputs}
