"""Progress on stderr: a bar with rich on a terminal, plain lines otherwise, or nothing.

Standard library only; rich is used when it is installed. ``NO_COLOR`` and ``CI`` are the
conventions of terminals and of CI systems, read here and nowhere else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

__all__ = ["BarProgress", "PlainProgress", "Progress", "SilentProgress", "Tick", "choose"]

# Told how many of how many parts of a step are done.
Tick = Callable[[int, int], None]


class Progress(Protocol):
    """Something that is told which step runs."""

    def step(self, name: str) -> AbstractContextManager[Tick]:
        """A context for one named step; what it gives may be told of its parts."""


def _nothing(done: int, total: int) -> None:
    """Nobody looks."""


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def step(self, name: str) -> Iterator[Tick]:
        """Run the step."""
        yield _nothing


class PlainProgress:
    """One line per finished step, with its duration."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def step(self, name: str) -> Iterator[Tick]:
        """Run the step, then print ``name  seconds``."""
        start = time.perf_counter()
        yield _nothing
        self._stream.write(f"{name:<24} {time.perf_counter() - start:6.1f} s\n")
        self._stream.flush()


class BarProgress:
    """A rich bar with the elapsed time; finished steps stay as lines."""

    def __init__(self, stream: TextIO, color: bool) -> None:
        from rich.console import Console

        self._console = Console(file=stream, no_color=not color)

    @contextmanager
    def step(self, name: str) -> Iterator[Tick]:
        """Run the step under a bar: moving to and fro, or growing once parts are told."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=False) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, total=total, completed=done)
            bar.update(task, total=1, completed=1)


def choose(quiet: bool, stream: TextIO | None = None) -> Progress:
    """The progress fit for this terminal."""
    stream = stream or sys.stderr
    if quiet:
        return SilentProgress()
    if not stream.isatty() or os.environ.get("CI"):
        return PlainProgress(stream)
    try:
        import rich  # noqa: F401  (probed: the base install has no rich)
    except ImportError:
        return PlainProgress(stream)
    return BarProgress(stream, color="NO_COLOR" not in os.environ)
