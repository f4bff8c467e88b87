"""Several input shapes: an ONNX file each, over one file of external data.

Canonical graphs have static shapes, so that each input shape has a graph of its own; their
weights are the same and are stored once. Loaders find external data beside the model file.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import onnx

from edgevit.backend import Lowered
from edgevit.errors import ArtifactError

__all__ = ["inline_weights", "merge"]

# Smaller tensors stay in the graph: what names their place would be as long.
EXTERNAL_FROM = 1024
_ALIGNMENT = 64


class _Weights:
    """Collects tensors into one file; equal ones are stored once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.content = bytearray()
        self._at: dict[bytes, int] = {}

    def move(self, tensor: onnx.TensorProto) -> None:
        """Put a tensor's bytes into the file."""
        raw = tensor.raw_data
        digest = hashlib.sha256(raw).digest()
        if digest not in self._at:
            self.content += bytes(-len(self.content) % _ALIGNMENT)
            self._at[digest] = len(self.content)
            self.content += raw
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        facts = {"location": self.name, "offset": self._at[digest], "length": len(raw)}
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=str(value))


def merge(variants: Sequence[Lowered], stem: str) -> tuple[Lowered, ...]:
    """Move the weights of all variants into one file, ``STEM.weights``.

    Args:
        variants: Lowered at different input shapes, one file each.
        stem: File name stem of the weights.
    """
    weights = _Weights(f"{stem}.weights")
    files: dict[str, bytes] = {}
    for variant in variants:
        path = variant.part.artifact
        proto = onnx.load_model_from_string(variant.files[path])
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) >= EXTERNAL_FROM:
                weights.move(tensor)
        files[path] = bytes(proto.SerializeToString(deterministic=True))
    shared = {weights.name: bytes(weights.content)} if weights.content else {}
    return tuple(
        dataclasses.replace(v, files={v.part.artifact: files[v.part.artifact], **shared})
        for v in variants
    )


def inline_weights(model: onnx.ModelProto, files: Mapping[str, bytes]) -> None:
    """Put external tensors back into the model, from the files of a bundle.

    Raises:
        ArtifactError: A file is missing or too short.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {e.key: e.value for e in tensor.external_data}
        content = files.get(str(PurePosixPath(facts["location"])), b"")
        start, length = int(facts.get("offset", 0)), int(facts["length"])
        if start + length > len(content):
            raise ArtifactError(f"{facts['location']}: tensor {tensor.name!r} reaches past it")
        tensor.raw_data = content[start : start + length]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
