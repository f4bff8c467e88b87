"""Several input shapes in one ML program: a function each, over one weight file.

Functions that share weights exist from iOS 18 on (Core ML specification version 9). Works on
the bytes of the single packages: equal records of the weight files become one, and the
functions' references follow. What a function computes is not touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from edgevit.backend import Lowered
from edgevit.bundle import Part
from edgevit.errors import ArtifactError
from edgevit.targets.coreml.package import WEIGHTS, package, package_path, parse_model

__all__ = ["function_name", "merge", "select"]

_MAIN = "main"
# MIL blob storage, version 2 (coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp): a
# header, then records and payloads, each on a multiple of 64 bytes. A record holds a
# sentinel, the data type, the size in bytes, the offset of its payload and padding bits.
_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_VERSION = 2


def function_name(part: Part) -> str:
    """Name of the function for an input shape, e.g. ``shape_1x3x48x160``."""
    return "shape_" + "_".join("x".join(map(str, b.shape)) or "0" for b in part.inputs)


class _Weights:
    """Writes one weight file; equal records are stored once."""

    def __init__(self) -> None:
        self._content = bytearray(_HEADER.size)
        self._by_content: dict[tuple[int, int, bytes], int] = {}

    def place(self, file: bytes, offset: int) -> int:
        """Copy the record at ``offset`` of another file; gives its offset here."""
        sentinel, kind, size, start, padding = _RECORD.unpack_from(file, offset)
        payload = memoryview(file)[start : start + size]
        key = (kind, padding, hashlib.sha256(payload).digest())
        if key not in self._by_content:
            at = len(self._content)
            self._by_content[key] = at
            self._content += _RECORD.pack(sentinel, kind, size, at + _RECORD.size, padding)
            self._content += payload
            self._content += bytes(-len(self._content) % _RECORD.size)
        return self._by_content[key]

    def finish(self) -> bytes:
        """The file; empty if nothing was placed."""
        if not self._by_content:
            return b""
        _HEADER.pack_into(self._content, 0, len(self._by_content), _VERSION)
        return bytes(self._content)


def _stored(block: Any) -> Iterator[Any]:
    """Every value of a block that lives in the weight file."""
    for operation in block.operations:
        values = [*operation.attributes.values()]
        for argument in operation.inputs.values():
            values += [b.value for b in argument.arguments if b.HasField("value")]
        for value in values:
            if value.WhichOneof("value") == "blobFileValue":
                yield value.blobFileValue
        for inner in operation.blocks:
            yield from _stored(inner)


def merge(proto: Any, variants: Sequence[Lowered], stem: str) -> tuple[Lowered, ...]:
    """One package for all variants; each keeps its bindings and names its function.

    Args:
        proto: ``coremltools.proto``.
        variants: Lowered for iOS 18 at different input shapes, one package each.
        stem: File name stem of the common package.
    """
    names = [function_name(v.part) for v in variants]
    whole, weights = None, _Weights()
    for variant, name in zip(variants, names, strict=True):
        model = parse_model(proto, variant.files, variant.part.artifact)
        file = variant.files.get(f"{variant.part.artifact}/{WEIGHTS}", b"")
        function = model.mlProgram.functions[_MAIN]
        for block in function.block_specializations.values():
            for value in _stored(block):
                value.offset = weights.place(file, value.offset)
        if whole is None:
            whole = _empty(model, name)
        whole.mlProgram.functions[name].CopyFrom(function)
        sides = model.description
        whole.description.functions.add(name=name, input=sides.input, output=sides.output)
    path = package_path(stem)
    files = package(stem, whole, weights.finish())
    return tuple(
        Lowered(files, dataclasses.replace(v.part, artifact=path, function=name), v.values)
        for v, name in zip(variants, names, strict=True)
    )


def _empty(model: Any, default: str) -> Any:
    """A copy of ``model`` without functions, and with a default one to come."""
    whole = type(model)()
    whole.CopyFrom(model)
    whole.mlProgram.functions.clear()
    del whole.description.input[:]
    del whole.description.output[:]
    whole.description.defaultFunctionName = default
    return whole


def select(model: Any, part: Part) -> Any:
    """The model with the part's function alone, as ``main``.

    Raises:
        ArtifactError: The program has no such function.
    """
    if part.function is None:
        return model
    program, description = model.mlProgram, model.description
    sides = [f for f in description.functions if f.name == part.function]
    if part.function not in program.functions or len(sides) != 1:
        raise ArtifactError(
            f"expected the function {part.function!r} in the ML program, found "
            f"{sorted(program.functions)}"
        )
    chosen = type(program.functions[part.function])()
    chosen.CopyFrom(program.functions[part.function])
    program.functions.clear()
    program.functions[_MAIN].CopyFrom(chosen)
    description.input.extend(sides[0].input)
    description.output.extend(sides[0].output)
    del description.functions[:]
    description.defaultFunctionName = ""
    return model
