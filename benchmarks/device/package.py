"""The base package as a device installs it: the wheel's content, no dependency."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.corpus.store import ROOT

__all__ = ["install_base"]

_FOLDERS = ("edgevit", "passes", "runtimes", "sim4f", "targets")
_FILES = ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")


def install_base(target: Path) -> None:
    """Build the package of the working tree and unpack it into ``target``.

    It is built from a copy, because a build writes beside its sources.

    Raises:
        RuntimeError: The build fails; the message is pip's.
    """
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        for folder in _FOLDERS:
            shutil.copytree(
                ROOT / folder,
                source / folder,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        for file in _FILES:
            shutil.copy(ROOT / file, source / file)
        options = ["--no-deps", "--no-build-isolation", "--target", str(target), name]
        done = subprocess.run(
            [sys.executable, *_PIP, *options], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"the base package does not build:\n{done.stderr[-2000:]}")
