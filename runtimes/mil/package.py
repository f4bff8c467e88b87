"""Open a saved ``.mlpackage``: the manifest, the specification, the weight file.

Of an ``.mlpackage`` this reads ``Manifest.json``, the root model it names under ``Data/`` and
the files that the program's constants name (``@model_path/weights/weight.bin``).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil.blob import BlobFile
from edgevit.runtimes.mil.read import read_model
from edgevit.runtimes.mil.spec import Array, Program

__all__ = ["load_package"]

_MODEL_PATH = "@model_path/"


def load_package(path: Path) -> Program:
    """The ML program of the package at ``path``; its weights stay memory-mapped.

    Raises:
        ArtifactError: A file is missing or corrupt, or the package holds no ML program.
    """
    model = _root_model(path)
    weights = _Weights(path, model.parent)
    try:
        return read_model(_read(model), weights.array)
    except ArtifactError as e:
        raise ArtifactError(f"{model}: {e.message}", hint=e.hint) from e


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ArtifactError(
            f"expected a file of a Core ML package at {path}, found none: {e.strerror}",
            hint="give the path of a whole .mlpackage directory",
        ) from e


def _inside(package: Path, base: Path, relative: str) -> Path:
    """``relative`` under ``base``, refused if it leads out of the package."""
    parts = PurePosixPath(relative)
    if not relative or parts.is_absolute() or ".." in parts.parts:
        raise ArtifactError(f"{package} names a file outside of itself: {relative!r}")
    return base / parts


def _root_model(package: Path) -> Path:
    manifest = package / "Manifest.json"
    try:
        content = json.loads(_read(manifest))
        root = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ArtifactError(
            f"expected {manifest} to name the root model, found {type(e).__name__}: {e}",
            hint="the package is corrupt: write it again",
        ) from e
    if not isinstance(root, str):
        raise ArtifactError(f"expected a path in {manifest}, found {root!r}")
    return _inside(package, package / "Data", root)


class _Weights:
    """The weight files of one package, each mapped once."""

    def __init__(self, package: Path, base: Path) -> None:
        self._package = package
        self._base = base
        self._files: dict[str, BlobFile] = {}

    def array(self, name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        if name not in self._files:
            relative = name.removeprefix(_MODEL_PATH)
            self._files[name] = BlobFile(_inside(self._package, self._base, relative))
        return self._files[name].array(offset, dtype, shape)
