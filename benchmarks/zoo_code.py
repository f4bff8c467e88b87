"""Which code measured a cell: a digest of everything a compile runs."""

from __future__ import annotations

import functools
import hashlib

from benchmarks.corpus.store import ROOT

__all__ = ["code_digest"]

_FOLDERS = ("edgevit", "passes", "runtimes", "targets")
_ENDINGS = frozenset({".py", ".toml"})


@functools.cache
def code_digest() -> str:
    """SHA-256, twelve digits, over paths and contents of the package's source files."""
    sha = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in _ENDINGS and path.resolve() == path and path.is_file():
                sha.update(f"{name}\0".encode())
                sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:12]
