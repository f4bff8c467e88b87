"""What native engines say on the standard error of ``edgevit run``.

LiteRT announces its delegate with an ``INFO:`` line whenever it opens a file, from native
code and without a switch. Only a program that owns its process may redirect a descriptor, so
this belongs to the command line: ``edgevit.load`` leaves the stderr of its user's process as
it is, and child processes have theirs in a file anyhow.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_chatter"]

_STDERR = 2
_CHATTER = b"INFO: "


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep lines that start with ``INFO:`` off the process's standard error.

    All else that is written there, by Python or by native code, appears when the block ends,
    also if it ends with an exception. Not for programs with threads that use stderr.
    """
    _flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # the process has no stderr: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), _STDERR)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
            said.seek(0)
            for line in said:
                if not line.startswith(_CHATTER):
                    os.write(_STDERR, line)


def _flush() -> None:
    for stream in {sys.stderr, sys.__stderr__}:
        if stream is not None:  # as in a process that was started without one
            stream.flush()
