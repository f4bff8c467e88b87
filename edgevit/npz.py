"""Samples out of an ``.npz`` file one at a time: memory does not grow with their number."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgevit.errors import InputError

__all__ = ["Header", "read_headers", "read_samples"]

Array = np.ndarray[Any, Any]
_HINT = "write it with numpy.savez(path, input_name=array)"
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Header:
    """What an array of the file is, before its content is read.

    Attributes:
        shape: Its shape; the first axis counts samples.
        dtype: Its element type.
        fortran: Whether the last axis, not the first, varies slowest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def read_headers(path: Path) -> dict[str, Header]:
    """The arrays of the file by name.

    Raises:
        InputError: It is no ``.npz`` file, or holds something that is no plain array.
    """
    with _explained(path), zipfile.ZipFile(path) as archive:
        found = {}
        for member in archive.namelist():
            with archive.open(member) as stream:
                found[member.removesuffix(".npy")] = _header(stream, member)
        return found


def read_samples(path: Path, headers: dict[str, Header]) -> Iterator[dict[str, Array]]:
    """Sample after sample, name -> array without the first axis.

    Args:
        path: The file.
        headers: Of the arrays wanted, as ``read_headers`` gave them: equal sample counts.

    Raises:
        InputError: The file is damaged.
    """
    with _explained(path), zipfile.ZipFile(path) as archive, ExitStack() as stack:
        streams = {}
        for name, header in headers.items():
            member = name if name in archive.namelist() else f"{name}.npy"
            stream = stack.enter_context(archive.open(member))
            _header(stream, member)
            streams[name] = _slices(stream, header)
        for parts in zip(*streams.values(), strict=True):
            yield dict(zip(streams, parts, strict=True))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError(
            f"{path}: expected a .npz file of arrays, found: {e}", hint=_HINT
        ) from e


def _header(stream: IO[bytes], member: str) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"{member!r} in format {version}, which holds no plain arrays")
    shape, fortran, dtype = _READERS[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{member!r} holds Python objects")
    return Header(shape, dtype, fortran)


def _slices(stream: IO[bytes], header: Header) -> Iterator[Array]:
    count, shape = header.shape[0], header.shape[1:]
    if header.fortran and len(header.shape) > 1:
        # A sample's numbers lie all over the file: it has to be read whole.
        whole = np.frombuffer(_exactly(stream, header, header.shape), header.dtype)
        yield from whole.reshape(header.shape, order="F")
        return
    for _ in range(count):
        content = _exactly(stream, header, shape)
        yield np.frombuffer(content, header.dtype).reshape(shape)


def _exactly(stream: IO[bytes], header: Header, shape: tuple[int, ...]) -> bytearray:
    """The bytes of an array; writable memory, so that the array is."""
    size = int(np.prod(shape, dtype=np.int64)) * header.dtype.itemsize
    content = bytearray(stream.read(size))
    if len(content) < size:
        raise EOFError(f"{size} bytes announced, {len(content)} there")
    return content
