"""The protobuf wire format, as far as an ML program needs it.

A message on the wire is a run of (field number, wire type, payload). Nothing is decoded
before it is asked for, so that a 20 MB specification costs what is read of it. Field numbers
are written at the place of use, next to the field's name in Core ML's ``.proto`` files.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from edgevit.errors import ArtifactError

__all__ = ["Message"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10  # 64 bits, seven at a time


def _malformed(reason: str) -> ArtifactError:
    return ArtifactError(
        f"expected a protobuf message of Core ML, found {reason}",
        hint="the model file is corrupt or truncated: write the package again",
    )


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The unsigned integer at ``position``, and the position after it."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position >= len(data):
            raise _malformed("the end of the data inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise _malformed("a number of more than 64 bits")


def _signed(value: int) -> int:
    """An int32 or int64 field: two's complement in 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def _take(data: memoryview, position: int, size: int) -> tuple[memoryview, int]:
    end = position + size
    if end > len(data):
        raise _malformed(f"{len(data) - position} bytes where {size} were announced")
    return data[position:end], end


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise _malformed("field number 0")
        payload: int | memoryview
        if kind == _VARINT:
            payload, position = _varint(data, position)
        elif kind == _BYTES:
            size, position = _varint(data, position)
            payload, position = _take(data, position, size)
        elif kind in (_FIXED64, _FIXED32):
            payload, position = _take(data, position, 8 if kind == _FIXED64 else 4)
        else:
            raise _malformed(f"wire type {kind}")
        yield number, payload


class Message:
    """One message: its fields by number, decoded when asked for.

    Raises:
        ArtifactError: The bytes are not a message, or a field has another type than asked.
    """

    def __init__(self, data: memoryview | bytes) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        for number, payload in _fields(memoryview(data)):
            self._fields.setdefault(number, []).append(payload)

    def has(self, number: int) -> bool:
        """Whether the field is present."""
        return number in self._fields

    def numbers(self) -> tuple[int, ...]:
        """The field numbers that are present, in ascending order."""
        return tuple(sorted(self._fields))

    def _buffers(self, number: int) -> list[memoryview]:
        found = self._fields.get(number, [])
        buffers = [payload for payload in found if isinstance(payload, memoryview)]
        if len(buffers) != len(found):
            raise _malformed(f"a number in field {number} where bytes belong")
        return buffers

    def integer(self, number: int) -> int:
        """An int32, int64, enum or bool field; 0 if absent, the last one if repeated."""
        found = self._fields.get(number, [0])[-1]
        if not isinstance(found, int):
            raise _malformed(f"bytes in field {number} where a number belongs")
        return _signed(found)

    def raw(self, number: int) -> bytes:
        """A bytes field; empty if absent."""
        found = self._buffers(number)
        return bytes(found[-1]) if found else b""

    def text(self, number: int) -> str:
        """A string field; empty if absent."""
        return self.texts(number)[-1] if self.has(number) else ""

    def texts(self, number: int) -> tuple[str, ...]:
        """A repeated string field."""
        try:
            return tuple(str(bytes(b), "utf-8") for b in self._buffers(number))
        except UnicodeDecodeError as e:
            raise _malformed(f"a string in field {number} that is not UTF-8") from e

    def message(self, number: int) -> Message:
        """A message field; an empty message if absent."""
        found = self._buffers(number)
        return Message(found[-1]) if found else Message(b"")

    def messages(self, number: int) -> tuple[Message, ...]:
        """A repeated message field."""
        return tuple(Message(b) for b in self._buffers(number))

    def entries(self, number: int) -> dict[str, Message]:
        """A map field of string keys (1) and message values (2)."""
        return {pair.text(1): pair.message(2) for pair in self.messages(number)}

    def integers(self, number: int) -> list[int]:
        """A repeated int32, int64 or bool field, packed or not."""
        values: list[int] = []
        for payload in self._fields.get(number, []):
            if isinstance(payload, int):
                values.append(_signed(payload))
                continue
            position = 0
            while position < len(payload):
                value, position = _varint(payload, position)
                values.append(_signed(value))
        return values

    def floats(self, number: int, width: Literal[4, 8]) -> np.ndarray[Any, Any]:
        """A repeated float (``width`` 4) or double (8) field, packed or not."""
        data = b"".join(bytes(b) for b in self._buffers(number))
        if len(data) % width:
            raise _malformed(f"{len(data)} bytes of floats of {width} bytes each")
        return np.frombuffer(data, dtype=f"<f{width}")
