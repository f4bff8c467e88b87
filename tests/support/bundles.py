"""Small bundles for tests, and a plug-in whose engine computes ``scale * x + offset``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.bundle import Binding, Entry, Part, seal, selfcheck_bytes, staging, write_files
from edgevit.manifest import CoverageRecord, Manifest, Measured, ParityRecord, SelfCheck
from edgevit.manifest import TensorInfo as Tensor

Array = np.ndarray[Any, Any]
SHA = "0" * 64

TOY = """
import json
import os
import sys
import time

from edgevit.errors import ArtifactError, Availability
from edgevit.registry import Plugin


class Executor:
    def __init__(self, said, part):
        self.said, self.part = said, part

    def run(self, feeds):
        mode = self.said.get("mode")
        if mode == "abort":
            sys.stderr.write("the toy breaks\\n")
            sys.stderr.flush()
            os.abort()
        if mode == "hang":
            time.sleep(600)
        if mode == "exit":
            sys.stderr.write("the toy gives up\\n")
            os._exit(7)
        if mode == "raise":
            raise RuntimeError("the toy trips")
        assert list(feeds) == [b.artifact for b in self.part.inputs]
        results = {}
        for source, sink in zip(self.part.inputs, self.part.outputs):
            value = feeds[source.artifact]
            assert value.shape == source.artifact_shape
            assert value.dtype == source.artifact_dtype
            value = value * self.said.get("scale", 1) + self.said.get("offset", 0)
            results[sink.artifact] = value.astype(sink.artifact_dtype)
        return {} if mode == "silent" else results

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class Engine:
    name = "toy"

    def probe(self):
        return Availability("toy", True, "1", "", "")

    def open(self, artifact, part, *, threads):
        said = json.loads(artifact.read_text())
        if said.get("mode") == "corrupt":
            raise ArtifactError("the toy cannot read this", hint="buy another")
        return Executor(said, part)


class Missing(Engine):
    def probe(self):
        return Availability("toy-missing", False, "", "toy-lib is not installed", "toys")


PLUGIN = Plugin(
    "toys", engines={"toy": "toy_engine:Engine", "toy-missing": "toy_engine:Missing"}
)
"""


def install_toy(folder: Path) -> None:
    """Write the plug-in as an installed distribution: a module and its metadata."""
    (folder / "toy_engine.py").write_text(TOY, encoding="utf-8")
    info = folder / "toys-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[edgevit.plugins]\ntoys = toy_engine:PLUGIN\n")


def tensor(name: str, shape: Sequence[int], dtype: str = "float32") -> Tensor:
    """A model input or output."""
    return Tensor(name, tuple(shape), dtype)


def same(name: str, shape: Sequence[int], dtype: str = "float32") -> Binding:
    """An artifact tensor in the source's form, under a name of its own."""
    return Binding(name, f"{name}@artifact", dtype, tuple(shape), dtype, tuple(shape))


def toy_entry(shape: Sequence[int], artifact: str = "toy.json", engine: str = "toy") -> Entry:
    """``x`` to ``y`` of one shape, by one part."""
    part = Part(engine, artifact, (same("x", shape),), (same("y", shape),))
    return Entry((part,), (tensor("x", shape),), (tensor("y", shape),))


def manifest(entries: tuple[Entry, ...], **changes: Any) -> Manifest:
    """A sound manifest; ``changes`` replace fields."""
    figures = {"max_rel": {"value": 1.23456e-7, "limit": 1e-4, "pass": True}}
    fields: dict[str, Any] = {
        "name": "toy",
        "version": 1,
        "edgevit": "0.1.0",
        "source_sha256": SHA,
        "target": "onnx",
        "target_sha256": SHA,
        "backend": "onnx",
        "precision": "fp32",
        "io": "source",
        "recipe": {"target": "onnx", "seed": 0},
        "passes": (),
        "calibration": None,
        "preprocess": None,
        "head": None,
        "entries": entries,
        "files": (),
        "parity": ParityRecord(
            figures=figures,
            outputs={"y": figures},
            measured=Measured("toy", "1", "x86_64"),
            samples=1,
            synthetic=True,
            top1_agreement=None,
            replayed=1,
            worst=(),
            first_divergent=None,
            psnr_drop=None,
            large=(),
            fp16_accumulate_psnr_db=None,
        ),
        "verified": True,
        "unverified_because": "",
        "coverage": CoverageRecord(1, 1, ()),
        "tools": {"toy": "1"},
        "selfcheck": SelfCheck({"max_rel": 1e-6}),
    }
    return Manifest(**{**fields, **changes})


def toy_bundle(
    out: Path,
    *,
    shapes: Sequence[Sequence[int]] = ((1, 2, 3),),
    said: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Manifest:
    """Seal a bundle that computes ``y = 2 x + 1`` with the toy engine, one entry a shape."""
    rng = np.random.default_rng(7)
    content = json.dumps({"scale": 2, "offset": 1} if said is None else dict(said)).encode()
    entries = tuple(toy_entry(shape) for shape in shapes)
    samples = []
    for shape in shapes:
        x = rng.standard_normal(shape).astype(np.float32)
        samples.append(({"x": x}, {"y": 2 * x + 1}))
    with staging(out) as root:
        everything = {"toy.json": content, **(files or {})}
        everything["selfcheck.npz"] = selfcheck_bytes(*samples[0], *samples[1:])
        write_files(root, everything)
        return seal(root, manifest(changes.pop("entries", entries), **changes), out)
