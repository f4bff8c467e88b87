"""Several input shapes in one file: a subgraph and a signature each, constants stored once.

Works on the bytes of the single files: subgraphs are put side by side, equal buffers and
equal operator codes become one. What a subgraph computes is not touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered
from edgevit.bundle import Part
from edgevit.errors import InternalError
from edgevit.targets.litert.writer import pack

__all__ = ["merge", "select", "shape_key"]


def shape_key(part: Part) -> str:
    """Signature key of an input shape: ``1x3x48x160``, several inputs joined by ``_``."""
    return "_".join("x".join(map(str, b.shape)) or "scalar" for b in part.inputs)


def _unpacked(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


class _Merged:
    """Collects subgraphs into one model."""

    def __init__(self) -> None:
        self.buffers: list[Any] = [schema.BufferT()]  # by convention the first is empty
        self.codes: list[Any] = []
        self.subgraphs: list[Any] = []
        self.signatures: list[Any] = []
        self.metadata: list[Any] = []
        self._by_content: dict[bytes, int] = {b"": 0}
        self._by_code: dict[tuple[int, int], int] = {}

    def add(self, model: Any, key: str) -> None:
        """Append the one subgraph of ``model`` under a signature key."""
        (graph,), (made,) = model.subgraphs, model.signatureDefs
        codes = [self._code(code) for code in model.operatorCodes]
        for tensor in graph.tensors:
            tensor.buffer = self._buffer(model.buffers[tensor.buffer])
        for operator in graph.operators:
            operator.opcodeIndex = codes[operator.opcodeIndex]
        made.signatureKey, made.subgraphIndex = key, len(self.subgraphs)
        graph.name = key
        self.subgraphs.append(graph)
        self.signatures.append(made)
        if not self.metadata:  # the same in every file: which runtime it needs
            self.metadata = [
                schema.MetadataT(m.name, self._buffer(model.buffers[m.buffer]))
                for m in model.metadata
            ]

    def _buffer(self, buffer: Any) -> int:
        """Index of an equal buffer; every tensor says its own dtype."""
        if buffer.data is None or not len(buffer.data):
            return 0
        digest = hashlib.sha256(np.ascontiguousarray(buffer.data).data).digest()
        if digest not in self._by_content:
            self._by_content[digest] = len(self.buffers)
            self.buffers.append(schema.BufferT(data=buffer.data))
        return self._by_content[digest]

    def _code(self, code: Any) -> int:
        key = (code.builtinCode, code.version)
        if key not in self._by_code:
            self._by_code[key] = len(self.codes)
            self.codes.append(code)
        return self._by_code[key]

    def finish(self) -> bytes:
        """Serialize."""
        model = schema.ModelT(
            version=3,
            description="edgevit",
            operatorCodes=self.codes,
            subgraphs=self.subgraphs,
            buffers=self.buffers,
            metadata=self.metadata,
            signatureDefs=self.signatures,
        )
        return pack(model)


def merge(variants: Sequence[Lowered], stem: str) -> tuple[Lowered, ...]:
    """One file for all variants; each keeps its bindings and names its signature.

    Args:
        variants: Lowered at different input shapes, one file each.
        stem: File name stem of the common artifact.
    """
    merged, path = _Merged(), f"{stem}.tflite"
    keys = [shape_key(v.part) for v in variants]
    for variant, key in zip(variants, keys, strict=True):
        merged.add(_unpacked(variant.files[variant.part.artifact]), key)
    files = {path: merged.finish()}
    return tuple(
        Lowered(files, dataclasses.replace(v.part, artifact=path, function=key), v.values)
        for v, key in zip(variants, keys, strict=True)
    )


def select(model: Any, part: Part) -> Any:
    """Drop every subgraph but the part's own, which becomes the first.

    Raises:
        InternalError: The file has no signature of the part's name.
    """
    if part.function is None:
        return model
    found = [s for s in model.signatureDefs if _text(s.signatureKey) == part.function]
    if len(found) != 1:
        raise InternalError(
            f"expected one signature {part.function!r} in the artifact, found {len(found)}"
        )
    model.subgraphs = [model.subgraphs[found[0].subgraphIndex]]
    found[0].subgraphIndex = 0
    model.signatureDefs = found
    return model


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
