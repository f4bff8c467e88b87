"""The weight file of an ML program: MIL blob storage, version 2.

Layout, little endian, every record and every payload on a multiple of 64 bytes:

    header     u32 record count, u32 version (2), 56 bytes reserved
    record     u32 sentinel 0xDEADBEEF, u32 data type, u64 size in bytes, u64 payload offset,
               u64 bits of padding, 32 bytes reserved
    payload    the elements

A value in the program names the offset of its *record*. The file is memory-mapped: an array
read from it costs no copy and must not be written to.

Source: ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp`` and ``BlobDataType.hpp`` of coremltools.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgevit.errors import ArtifactError

__all__ = ["NIBBLES", "BlobFile", "nibbles"]

# Types of 4 bits, and the type that their elements are read as.
NIBBLES = {"int4": "int8", "uint4": "uint8"}

_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_HEADER = np.dtype([("count", "<u4"), ("version", "<u4"), ("reserved", "V56")])
_RECORD = np.dtype(
    [
        ("sentinel", "<u4"),
        ("kind", "<u4"),
        ("size", "<u8"),
        ("offset", "<u8"),
        ("padding", "<u8"),
        ("reserved", "V32"),
    ]
)
_KINDS = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    11: "uint4",
    14: "int32",
    15: "uint32",
}


class BlobFile:
    """A memory-mapped weight file.

    Raises:
        ArtifactError: It does not exist, is too short, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._data: np.ndarray[Any, Any] = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as e:
            raise ArtifactError(
                f"expected the weight file of an ML program at {path}, found none that can be"
                f" read: {e}",
                hint="copy the whole .mlpackage directory, or write it again",
            ) from e
        header = self._read(0, _HEADER)
        if int(header["version"]) != _VERSION:
            raise self._bad(f"expected version {_VERSION}, found {int(header['version'])}")

    def _bad(self, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self._path} is not a weight file that the program fits: {reason}",
            hint="the package is corrupt or truncated: write it again",
        )

    def _read(self, offset: int, layout: np.dtype[Any]) -> np.ndarray[Any, Any]:
        end = offset + layout.itemsize
        if offset % _ALIGNMENT or offset < 0 or end > self._data.size:
            raise self._bad(
                f"no {layout.itemsize}-byte record at offset {offset} of {self._data.size}"
            )
        return self._data[offset:end].view(layout)[0]  # type: ignore[no-any-return]

    def array(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The array whose record is at ``offset``; read-only, not copied.

        Args:
            offset: Byte offset of the record in the file.
            dtype: numpy dtype name that the program declares; must be the record's.
            shape: Shape that the program declares; its size must be the record's.

        Raises:
            ArtifactError: There is no such record, or it holds something else.
        """
        record = self._read(offset, _RECORD)
        if int(record["sentinel"]) != _SENTINEL:
            raise self._bad(f"offset {offset} holds no record (sentinel missing)")
        kind = _KINDS.get(int(record["kind"]))
        if kind != dtype:
            raise self._bad(f"expected {dtype} at offset {offset}, found {kind or 'another'}")
        size, start = int(record["size"]), int(record["offset"])
        count = int(np.prod(shape, dtype=np.int64))
        want = (count + 1) // 2 if dtype in NIBBLES else count * np.dtype(dtype).itemsize
        if size != want:
            raise self._bad(f"expected {want} bytes of {dtype}{list(shape)}, found {size}")
        if start % _ALIGNMENT or start + size > self._data.size:
            raise self._bad(f"the payload of {size} bytes at {start} is past the end")
        if dtype in NIBBLES:
            return nibbles(self._data[start : start + size], dtype, count).reshape(shape)
        layout = np.dtype(dtype).newbyteorder("<")
        return self._data[start : start + size].view(layout).reshape(shape)


def nibbles(packed: np.ndarray[Any, Any], dtype: str, count: int) -> np.ndarray[Any, Any]:
    """Elements of 4 bits, two a byte, the first in its low half.

    Args:
        packed: uint8.
        dtype: ``"int4"`` (two's complement) or ``"uint4"``.
        count: Elements; an odd one leaves the last half unused.
    """
    halves = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(-1)[:count]
    if dtype == "uint4":
        return np.asarray(halves, np.uint8)
    return np.asarray(np.where(halves > 7, halves.astype(np.int16) - 16, halves), np.int8)
