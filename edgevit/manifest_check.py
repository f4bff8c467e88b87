"""Whether the records of a manifest fit together. Only the standard library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from edgevit.errors import ArtifactError
from edgevit.manifest import DTYPES, Binding, Entry, Manifest, Part, TensorInfo

__all__ = ["RESERVED", "check", "check_entry", "check_path"]

# Files of a bundle that the manifest does not list: itself, and the signature over it.
RESERVED = frozenset({"manifest.json", "manifest.sig"})
# What a gate can be on (edgevit.parity.Metrics); named here because numpy is not.
METRICS = frozenset({"max_rel", "psnr_db", "sqnr_db", "cosine"})
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _require(holds: bool, where: str, message: str) -> None:
    if not holds:
        raise ArtifactError(f"manifest.json: {where}: {message}")


def check_path(path: str) -> None:
    """A path of a bundled file is relative, plain and inside the bundle.

    Raises:
        ArtifactError: It is absolute, has ``..``, a backslash, a control character or an
            empty component.
    """
    plain = PurePosixPath(path)
    sound = (
        bool(plain.parts)
        and str(plain) == path
        and not plain.is_absolute()
        and ".." not in plain.parts
        and "\\" not in path
        and ":" not in plain.parts[0]
        and path.isprintable()
    )
    if not sound:
        raise ArtifactError(f"expected a relative path inside the bundle, found {path!r}")


def check(manifest: Manifest) -> None:
    """Check what types cannot say.

    Raises:
        ArtifactError: Saying which record contradicts what.
    """
    _require(manifest.version >= 1, "version", f"expected >= 1, found {manifest.version}")
    for where, text in (
        ("source_sha256", manifest.source_sha256),
        ("target_sha256", manifest.target_sha256),
    ):
        _check_sha256(text, where)
    _require(bool(manifest.entries), "entries", "expected at least one, found none")
    _require(
        manifest.verified == (not manifest.unverified_because),
        "unverified_because",
        "expected a reason exactly if 'verified' is false",
    )
    _require(
        manifest.parity is not None or not manifest.verified,
        "parity",
        "expected figures because 'verified' is true, found none",
    )
    _check_files(manifest)
    _check_figures(manifest)
    _check_selfcheck(manifest)
    paths = [f.path for f in manifest.files]
    for i, entry in enumerate(manifest.entries):
        where = f"entries[{i}]"
        check_entry(entry, where)
        for part in entry.parts:
            _check_artifact(part, paths, where)


def _check_sha256(text: str, where: str) -> None:
    _require(_SHA256.fullmatch(text) is not None, where, f"expected 64 hex, found {text!r}")


def _check_files(manifest: Manifest) -> None:
    paths = [f.path for f in manifest.files]
    _require(paths == sorted(paths), "files", "expected them sorted by path")
    folded = {p.casefold() for p in paths}
    _require(len(folded) == len(paths), "files", "two paths are equal but for case")
    for file in manifest.files:
        check_path(file.path)
        _require(file.path not in RESERVED, "files", f"{file.path!r} cannot list itself")
        _require(file.bytes >= 0, "files", f"{file.path!r} has a negative size")
        _check_sha256(file.sha256, f"files: {file.path!r}")


def _check_figures(manifest: Manifest) -> None:
    if manifest.parity is None:
        return
    every = {"": manifest.parity.figures, **manifest.parity.outputs}
    for output, figures in every.items():
        for metric, figure in figures.items():
            _check_figure(figure, f"parity {output} {metric}".replace("  ", " "))
    for record in manifest.entry_parity:
        for metric, figure in record.figures.items():
            _check_figure(figure, f"entry_parity {metric}")
    expected = 0 if len(manifest.entries) == 1 else len(manifest.entries)
    _require(
        len(manifest.entry_parity) in (0, expected),
        "entry_parity",
        f"expected {expected} records, found {len(manifest.entry_parity)}",
    )
    passed = all(f["pass"] for f in manifest.parity.figures.values())
    _require(passed or not manifest.verified, "verified", "is true, but a figure did not pass")


def _check_selfcheck(manifest: Manifest) -> None:
    """A self-check without gates or outputs would pass whatever the device computes."""
    gates = manifest.selfcheck.gates
    _require(bool(gates), "selfcheck.gates", "expected at least one gate, found none")
    for metric in gates:
        _require(metric in METRICS, "selfcheck.gates", f"unknown metric {metric!r}")
    for i, entry in enumerate(manifest.entries):
        _require(bool(entry.outputs), f"entries[{i}]", "expected outputs, found none")


def _check_figure(figure: Mapping[str, Any], where: str) -> None:
    expected = {"value", "exact", "pass"} if "exact" in figure else {"value", "limit", "pass"}
    _require(set(figure) == expected, where, f"expected the keys {sorted(expected)}")
    _require(type(figure["pass"]) is bool, where, "expected 'pass' to be true or false")
    _require("exact" not in figure or figure["exact"] is True, where, "'exact' is only true")
    for key in expected & {"value", "limit"}:
        number = figure[key]
        sound = number is None if "exact" in figure else isinstance(number, int | float)
        sound = sound or (key == "value" and number is None)
        _require(sound and not isinstance(number, bool), where, f"expected a number: {key}")
    _require(
        figure["value"] is not None or "exact" in figure or not figure["pass"],
        where,
        "passed without a value",
    )


def _check_artifact(part: Part, paths: list[str], where: str) -> None:
    check_path(part.artifact)
    listed = any(p == part.artifact or p.startswith(part.artifact + "/") for p in paths)
    _require(listed, where, f"artifact {part.artifact!r} is not among the files")


def check_entry(entry: Entry, where: str) -> None:
    """Each part reads what exists, and the outputs are made; bindings are sound.

    Raises:
        ArtifactError: Saying which tensor of which part is wrong.
    """
    known = {i.name: (i.dtype, i.shape) for i in entry.inputs}
    _require(len(known) == len(entry.inputs), where, "two inputs have the same name")
    outputs = {o.name for o in entry.outputs}
    _require(len(outputs) == len(entry.outputs), where, "two outputs have the same name")
    for info in (*entry.inputs, *entry.outputs):
        _check_tensor(info, where)
    for i, part in enumerate(entry.parts):
        at = f"{where}.parts[{i}]"
        for binding in part.inputs:
            _check_binding(binding, at)
            _check_known(binding.name, binding.dtype, binding.shape, known, at)
        for binding in part.outputs:
            _check_binding(binding, at)
            known[binding.name] = (binding.dtype, binding.shape)
    for info in entry.outputs:
        _check_known(info.name, info.dtype, info.shape, known, where)


def _check_known(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    known: Mapping[str, tuple[str, tuple[int, ...]]],
    where: str,
) -> None:
    _require(name in known, where, f"nothing makes the tensor {name!r}")
    _require(
        known[name] == (dtype, shape),
        where,
        f"tensor {name!r} is {dtype} {shape} here and {known[name]} where it is made",
    )


def _check_tensor(info: TensorInfo, where: str) -> None:
    _require(info.dtype in DTYPES, where, f"{info.name!r} has unknown dtype {info.dtype!r}")
    _require(min(info.shape, default=0) >= 0, where, f"{info.name!r} has shape {info.shape}")


def _check_binding(b: Binding, where: str) -> None:
    where = f"{where}: binding of {b.name!r}"
    _require({b.dtype, b.artifact_dtype} <= DTYPES, where, "unknown dtype")
    _require(min(*b.shape, *b.artifact_shape, 0, 0) >= 0, where, "negative dimension")
    _require(
        math.prod(b.shape) == math.prod(b.artifact_shape),
        where,
        f"shapes {b.shape} and {b.artifact_shape} differ in size",
    )
    _require(
        b.perm is None or sorted(b.perm) == list(range(len(b.shape))),
        where,
        f"{b.perm} is not a permutation of the {len(b.shape)} axes",
    )
