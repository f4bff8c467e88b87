"""The files of an ``.mlpackage``, byte for byte the same for the same program."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevit import __version__
from edgevit.bundle import Binding
from edgevit.errors import ArtifactError

__all__ = [
    "MODEL",
    "WEIGHTS",
    "describe",
    "export",
    "feature",
    "metadata",
    "package",
    "package_path",
    "parse_model",
]

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

_AUTHOR = "com.apple.CoreML"

# Namespace of the identifiers in Manifest.json: any constant will do, this one is ours.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://edgevit.ai/mlpackage")


def export(program: Any, specification: int) -> tuple[Any, bytes]:
    """Write a MIL program as (protobuf program, content of weight.bin)."""
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter

    with tempfile.TemporaryDirectory() as folder:
        exporter = MILProtoExporter(program, folder, specification)
        message = exporter.export()
        # The writer completes the file when it is destroyed.
        exporter.blob_writers.clear()
        file = Path(folder) / "weight.bin"
        return message, file.read_bytes() if file.exists() else b""


def feature(proto: Any, name: str, shape: Sequence[int], dtype: str) -> Any:
    """The description of one input or output.

    Args:
        proto: ``coremltools.proto``.
        name: Tensor name in the program.
        shape: Static shape.
        dtype: ``"float16"``, ``"float32"`` or ``"int32"``.
    """
    kind = proto.FeatureTypes_pb2.ArrayFeatureType
    numbers = {"float16": kind.FLOAT16, "float32": kind.FLOAT32, "int32": kind.INT32}
    array = kind(shape=list(shape), dataType=numbers[dtype])
    kinds = proto.FeatureTypes_pb2.FeatureType(multiArrayType=array)
    return proto.Model_pb2.FeatureDescription(name=name, type=kinds)


def metadata(precision: str, system: str, coremltools: str, title: str) -> dict[str, str]:
    """User-defined metadata; nothing in it depends on time or machine."""
    return {
        "ai.edgevit.version": __version__,
        "ai.edgevit.precision": precision,
        "ai.edgevit.deployment_target": system,
        "ai.edgevit.graph": title,
        "com.github.apple.coremltools.version": coremltools,
    }


def describe(
    proto: Any,
    message: Any,
    sides: tuple[tuple[Binding, ...], tuple[Binding, ...]],
    specification: int,
    notes: Mapping[str, str],
) -> Any:
    """The model message around a program.

    Args:
        proto: ``coremltools.proto``.
        message: The program.
        sides: Bindings of inputs and of outputs.
        specification: Core ML specification version.
        notes: User-defined metadata.
    """
    inputs, outputs = (
        [feature(proto, b.artifact, b.artifact_shape, b.artifact_dtype) for b in side]
        for side in sides
    )
    facts = proto.Model_pb2.Metadata(
        shortDescription=notes["ai.edgevit.graph"],
        author="edgevit",
        versionString=notes["ai.edgevit.version"],
        userDefined=dict(notes),
    )
    description = proto.Model_pb2.ModelDescription(
        input=inputs, output=outputs, metadata=facts
    )
    model = proto.Model_pb2.Model(description=description, specificationVersion=specification)
    model.mlProgram.CopyFrom(message)
    return model


def _identifier(role: str, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return str(uuid.uuid5(_NAMESPACE, f"{role}:{digest}"))


def _manifest(model: bytes, weights: bytes) -> bytes:
    root = _identifier("model", model)
    items = {
        root: {
            "author": _AUTHOR,
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": f"{_AUTHOR}/model.mlmodel",
        }
    }
    if weights:
        items[_identifier("weights", weights)] = {
            "author": _AUTHOR,
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": f"{_AUTHOR}/weights",
        }
    data = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": root,
    }
    return (json.dumps(data, indent=4, sort_keys=True) + "\n").encode()


def package_path(stem: str) -> str:
    """Path of the package inside the bundle."""
    return f"{stem}.mlpackage"


def package(stem: str, model: Any, weights: bytes) -> dict[str, bytes]:
    """Path inside the bundle -> content, for a model message and its weights."""
    content = model.SerializeToString(deterministic=True)
    root = package_path(stem)
    files = {f"{root}/Manifest.json": _manifest(content, weights), f"{root}/{MODEL}": content}
    if weights:
        files[f"{root}/{WEIGHTS}"] = weights
    return files


def parse_model(proto: Any, files: Mapping[str, bytes], root: str) -> Any:
    """The model message inside a package's files.

    Raises:
        ArtifactError: There is no model, or it is not a Core ML specification.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = f"{root}/{MODEL}"
    if path not in files:
        raise ArtifactError(f"package {root} has no {MODEL}")
    model = proto.Model_pb2.Model()
    try:
        model.ParseFromString(files[path])
    except DecodeError as e:
        raise ArtifactError(f"{path} is not a Core ML specification: {e}") from e
    return model
