"""Bundles on disk: staged beside their place, sealed with one rename, opened with suspicion.

Only the standard library, and numpy inside functions: part of the base install.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import secrets
import shutil
import signal
import stat
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from edgevit import strictjson
from edgevit.errors import ArtifactError, InputError, InternalError, UsageError
from edgevit.manifest import (
    Binding,
    Entry,
    FileRecord,
    Manifest,
    Part,
    TensorInfo,
)
from edgevit.manifest_check import RESERVED, check, check_path

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

__all__ = [
    "DEBUG_MAP",
    "FAILED_SUFFIX",
    "SELFCHECK",
    "SUFFIX",
    "Binding",
    "Entry",
    "FileRecord",
    "Manifest",
    "Part",
    "TensorInfo",
    "check_output",
    "failed_path",
    "file_records",
    "npz_bytes",
    "open_bundle",
    "seal",
    "selfcheck_bytes",
    "selfcheck_key",
    "staging",
    "write_files",
]

SUFFIX = ".edgevit"
FAILED_SUFFIX = ".failed.edgevit"
MANIFEST = "manifest.json"
SELFCHECK = "selfcheck.npz"
DEBUG_MAP = "debug_map.json"
STAGING_PREFIX = ".edgevit-staging-"
# A manifest is some hundred kilobytes at most; more is not read into memory.
_MANIFEST_LIMIT = 64 << 20
# The oldest time that the zip format can say; the same in every bundle.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def failed_path(out: Path) -> Path:
    """Where ``--keep-failed`` keeps what would have become ``out``; ``load`` refuses it."""
    return out.with_name(out.name.removesuffix(SUFFIX) + FAILED_SUFFIX)


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a staging directory, by their path inside the bundle.

    Raises:
        ArtifactError: A path leaves the bundle, or is reserved.
        InputError: The path is taken, or the disk refuses.
    """
    for path, content in sorted(files.items()):
        check_path(path)
        if path in RESERVED:
            raise ArtifactError(f"a bundled file cannot be called {path!r}")
        _put(root / path, content)


def _put(place: Path, content: bytes) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        raise InputError(f"{place}: cannot be written: {e.strerror}") from e


def file_records(root: Path) -> tuple[FileRecord, ...]:
    """Path, size and sha256 of everything in a staging directory, sorted by path."""
    return tuple(
        FileRecord(path, (root / path).stat().st_size, _sha256(root / path))
        for path in sorted(_walk(root) - RESERVED)
    )


def check_output(out: Path, overwrite: bool) -> None:
    """Whether a bundle may be put at ``out``.

    Raises:
        UsageError: Something is there and ``overwrite`` is off, or it is not a bundle.
        InputError: The directory that would hold it does not exist or cannot be written.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such directory", hint="create it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):  # known before minutes of work, not after
        raise InputError(
            f"{out.parent}: cannot be written", hint="choose another place: -o OUT"
        )
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UsageError(f"{out} exists", hint="give --overwrite to replace it")
    if out.is_symlink() or not (out / MANIFEST).is_file():
        raise UsageError(f"{out} exists and is not a bundle: it is not overwritten")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A new directory beside ``out``, removed on the way out however that happens.

    SIGTERM ends the block like Ctrl-C does (in the main thread, unless the program handles
    the signal itself), so that an interrupted compile leaves nothing behind.

    Raises:
        InputError: The directory that would hold ``out`` is missing or cannot be written.
    """
    root = _beside(out)
    with _sigterm_raises():
        try:
            # Inside, as a signal can arrive while the directory is being made.
            _make(root, out)
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _make(root: Path, out: Path) -> None:
    try:
        root.mkdir()
    except OSError as e:
        raise InputError(f"{out.parent}: cannot be written: {e.strerror}") from e


def _beside(out: Path) -> Path:
    return out.with_name(STAGING_PREFIX + secrets.token_hex(8))


def _raise_exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def seal(root: Path, manifest: Manifest, out: Path, *, overwrite: bool = False) -> Manifest:
    """Write the manifest last, then put the bundle at ``out`` with one rename.

    Args:
        root: The staging directory with all files; it becomes ``out``.
        manifest: Its ``files`` are replaced by what is staged.
        out: The bundle's place; it exists whole afterwards, or as it was before.
        overwrite: Whether a bundle there is replaced.

    Returns:
        The manifest as written.

    Raises:
        InternalError: The manifest's records contradict each other (a compiler's bug).
        UsageError: See ``check_output``.
        InputError: The disk refuses.
    """
    manifest = dataclasses.replace(manifest, files=file_records(root))
    try:
        check(manifest)
    except ArtifactError as e:
        raise InternalError(f"the manifest to be written is not sound: {e.message}") from e
    _put(root / MANIFEST, strictjson.pretty(manifest.to_json()))
    _sync_directories(root)
    check_output(out, overwrite)
    try:
        _swap(root, out)
    except OSError as e:
        raise InputError(f"{out}: cannot be written: {e.strerror}") from e
    _sync(out.parent)
    return manifest


def _swap(new: Path, out: Path) -> None:
    """Rename ``new`` to ``out``; what was there is put back if that fails."""
    if not os.path.lexists(out):
        new.rename(out)
        return
    aside = _beside(out)
    try:
        out.rename(aside)
        new.rename(out)
    except BaseException:  # an interrupt too must not lose the old bundle
        if aside.exists() and not out.exists():
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(directory: Path) -> None:
    # Some filesystems cannot sync a directory; the rename is atomic all the same.
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync_directories(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        _sync(Path(folder))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(root: Path) -> set[str]:
    """Relative paths of all files; links, devices and empty directories are refused."""
    found: set[str] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
        if not entries and folder != root:
            raise ArtifactError(f"{folder.relative_to(root)}: an empty directory in a bundle")
        for entry in entries:
            relative = Path(entry.path).relative_to(root).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                found.add(relative)
            else:
                raise ArtifactError(
                    f"{relative}: expected a plain file, found a link or a device"
                )
    return found


def open_bundle(path: Path | str, *, failed: bool = False) -> Manifest:
    """Read and verify a bundle: schema, digest, each file's size and sha256, nothing else.

    Args:
        path: The bundle's directory.
        failed: Whether one that failed verification may be opened, to be looked at.

    Raises:
        InputError: There is no such directory.
        ArtifactError: It failed verification when it was made; or it is not a bundle, is
            incomplete, was changed, or is of an unknown schema.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such bundle", hint="a bundle is a NAME.edgevit directory"
        )
    if not failed and any(p.name.endswith(FAILED_SUFFIX) for p in (root, root.resolve())):
        raise _failed(root)
    try:
        manifest = _verified(root)
    except OSError as e:
        raise ArtifactError(f"{root}: cannot be read: {e.strerror}") from e
    # A new name does not make it pass.
    if not failed and manifest.parity is not None and not manifest.verified:
        raise _failed(root)
    return manifest


def _failed(root: Path) -> ArtifactError:
    return ArtifactError(
        f"{root}: this bundle failed verification and was kept to be looked at",
        hint="compile again; edgevit report shows which gate failed",
    )


def _verified(root: Path) -> Manifest:
    # Before walking: a directory that is no bundle may be large, and hold anything.
    if not (root / MANIFEST).is_file():
        raise ArtifactError(f"{root}: expected {MANIFEST}, found none: this is not a bundle")
    present = _walk(root)
    manifest = _read_manifest(root / MANIFEST)
    listed = {f.path for f in manifest.files}
    unlisted = sorted(present - listed - RESERVED)
    if unlisted:
        raise ArtifactError(f"{root}: {unlisted[0]!r} is not listed in the manifest")
    for file in manifest.files:
        _check_file(root, file, present)
    return manifest


def _read_manifest(path: Path) -> Manifest:
    size = path.stat().st_size
    if size > _MANIFEST_LIMIT:
        raise ArtifactError(f"{path}: {size} bytes are too many for a manifest")
    return Manifest.from_json(strictjson.parse(path.read_bytes(), str(path)))


def _check_file(root: Path, file: FileRecord, present: set[str]) -> None:
    if file.path not in present:
        raise ArtifactError(f"{root}: {file.path!r} is listed in the manifest and missing")
    size = (root / file.path).stat().st_size
    if size != file.bytes:
        raise ArtifactError(
            f"{root}: {file.path!r}: expected {file.bytes} bytes, found {size}"
        )
    found = _sha256(root / file.path)
    if found != file.sha256:
        raise ArtifactError(
            f"{root}: {file.path!r}: expected sha256 {file.sha256}, found {found}",
            hint="the file was changed or damaged after it was verified",
        )


def npz_bytes(arrays: Arrays) -> bytes:
    """A ``.npz`` whose bytes depend on names and arrays only: sorted, stored, undated."""
    import numpy as np

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            content = io.BytesIO()
            array = np.ascontiguousarray(arrays[name]).reshape(np.shape(arrays[name]))
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return out.getvalue()


def selfcheck_key(entry: int, kind: str, name: str, names: Iterable[str]) -> str:
    """Where ``selfcheck.npz`` holds a tensor: by position, as names may hold anything.

    Args:
        entry: Index of the entry.
        kind: ``"input"`` or ``"output"``.
        name: The tensor's name.
        names: All names of the kind.
    """
    return f"{entry}.{kind}.{sorted(names).index(name)}"


def selfcheck_bytes(inputs: Arrays, outputs: Arrays, *others: tuple[Arrays, Arrays]) -> bytes:
    """The content of ``selfcheck.npz``.

    Args:
        inputs: Input name -> array of the first entry.
        outputs: Output name -> what the *source* model computes from them.
        others: The same for each further entry, in order.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for entry, sample in enumerate(((inputs, outputs), *others)):
        for kind, tensors in zip(("input", "output"), sample, strict=True):
            for name, array in tensors.items():
                arrays[selfcheck_key(entry, kind, name, tensors)] = array
    return npz_bytes(arrays)
