"""Where fetched files live, and how they get there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

__all__ = [
    "CACHE",
    "FIXTURES",
    "ROOT",
    "CorpusError",
    "CorpusUnavailableError",
    "require_sha256",
    "sha256",
    "write_atomic",
]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
FIXTURES = ROOT / "tests" / "fixtures"


class CorpusError(Exception):
    """A file of the corpus is not what this repository pins."""


class CorpusUnavailableError(CorpusError):
    """A file of the corpus cannot be had on this machine; the caller may skip.

    The message starts with ``skipped: needs``, so that it can be shown as it is.
    """

    def __init__(self, needs: str, *, reason: str) -> None:
        super().__init__(f"skipped: needs {needs} ({reason})")


def sha256(path: Path) -> str:
    """Return the lowercase hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose SHA-256 is not the pinned one.

    Raises:
        CorpusError: The file differs from what this repository was measured with.
    """
    found = sha256(path)
    if found == expected:
        return
    raise CorpusError(
        f"{path.name}: expected sha256 {expected}, found {found} in {path}; "
        "delete the file and fetch it again"
    )


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all: beside it first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
