"""What a bundle is made of: the records both the compiler and a device read.

Only the standard library and numpy: this file is part of the base install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Binding", "Entry", "Part"]


@dataclass(frozen=True)
class Binding:
    """How an artifact holds a tensor of the source model.

    The artifact tensor is ``source.transpose(perm).reshape(artifact_shape).astype(
    artifact_dtype)``; reading it back inverts the three steps.

    Attributes:
        name: Value name in the source model.
        artifact: Tensor name in the artifact.
        dtype: numpy dtype name in the source model, e.g. ``"float32"``, ``"int64"``.
        shape: Shape in the source model.
        artifact_dtype: numpy dtype name in the artifact.
        artifact_shape: Shape in the artifact.
        perm: Axes permutation from source to artifact; ``None`` if there is none.
    """

    name: str
    artifact: str
    dtype: str
    shape: tuple[int, ...]
    artifact_dtype: str
    artifact_shape: tuple[int, ...]
    perm: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return {
            "name": self.name,
            "artifact": self.artifact,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "artifact_dtype": self.artifact_dtype,
            "artifact_shape": list(self.artifact_shape),
            "perm": None if self.perm is None else list(self.perm),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Binding:
        """Inverse of ``to_json``."""
        perm = data["perm"]
        return cls(
            name=str(data["name"]),
            artifact=str(data["artifact"]),
            dtype=str(data["dtype"]),
            shape=tuple(int(d) for d in data["shape"]),
            artifact_dtype=str(data["artifact_dtype"]),
            artifact_shape=tuple(int(d) for d in data["artifact_shape"]),
            perm=None if perm is None else tuple(int(d) for d in perm),
        )


@dataclass(frozen=True)
class Part:
    """One artifact run by one engine.

    Attributes:
        engine: Engine name in the registry (``"litert"``, ``"coreml"``, ``"ort"``).
        artifact: Path inside the bundle of the file or directory that the engine opens.
        inputs: Tensors it reads, by source name (model inputs or outputs of earlier parts).
        outputs: Tensors it writes, by source name.
    """

    engine: str
    artifact: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]


@dataclass(frozen=True)
class Entry:
    """One input shape: the parts that run in order, and the model's inputs and outputs.

    Attributes:
        parts: Parts in execution order.
        inputs: Names of the model's inputs, in the source model's order.
        outputs: Names of the model's outputs, in the source model's order.
    """

    parts: tuple[Part, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
