"""What a bundle says about itself: the records that the compiler writes and a device reads.

Only the standard library: this file is part of the base install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgevit import strictjson
from edgevit.errors import ArtifactError

__all__ = [
    "DTYPES",
    "SCHEMA",
    "Binding",
    "CalibrationRecord",
    "CoverageRecord",
    "Entry",
    "FallbackRecord",
    "FileRecord",
    "Manifest",
    "Measured",
    "NoteEntry",
    "ParityRecord",
    "Part",
    "PassEntry",
    "RefusedEntry",
    "SelfCheck",
    "TensorInfo",
]

SCHEMA = 1
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the source model.

    Attributes:
        name: Value name in the source model.
        shape: Static shape.
        dtype: numpy dtype name, e.g. ``"float32"``.
        layout: Meaning of the axes, e.g. ``"nchw"``; ``None`` if unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str | None = None


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
        return dict(strictjson.encode(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Binding:
        """Inverse of ``to_json``."""
        return strictjson.decode(cls, data, "binding")


@dataclass(frozen=True)
class Part:
    """One artifact run by one engine.

    Attributes:
        engine: Engine name in the registry (``"litert"``, ``"coreml"``, ``"ort"``).
        artifact: Path inside the bundle of the file or directory that the engine opens.
        inputs: Tensors it reads, by source name (model inputs or outputs of earlier parts).
        outputs: Tensors it writes, by source name.
        function: Which function (Core ML) or signature (LiteRT) of the artifact runs;
            ``None`` if it has only one.
    """

    engine: str
    artifact: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    function: str | None = None


@dataclass(frozen=True)
class Entry:
    """One input shape: the parts that run in order, and the model's inputs and outputs.

    Attributes:
        parts: Parts in execution order.
        inputs: The model's inputs, in the source model's order.
        outputs: The model's outputs, in the source model's order.
    """

    parts: tuple[Part, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def of_part(cls, part: Part) -> Entry:
        """An entry that is one part: its bindings are the model's inputs and outputs."""
        return cls(
            (part,),
            tuple(TensorInfo(b.name, b.shape, b.dtype) for b in part.inputs),
            tuple(TensorInfo(b.name, b.shape, b.dtype) for b in part.outputs),
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return dict(strictjson.encode(self))

    @classmethod
    def from_json(cls, data: Any, where: str) -> Entry:
        """Inverse of ``to_json``; ``ArtifactError`` names ``where``."""
        return strictjson.decode(cls, data, where)


@dataclass(frozen=True)
class RefusedEntry:
    """A place where a rule nearly applied, and why it did not."""

    rule: str
    node: str
    reason: str


@dataclass(frozen=True)
class NoteEntry:
    """A line about a layer: what a pass did there, and what its output gains, in dB."""

    node: str
    text: str
    gain_db: float | None


@dataclass(frozen=True)
class PassEntry:
    """One executed pass: its spec, its effect, its edits, what it refused, what it notes."""

    spec: str
    effect: Literal["exact", "bounded", "calibrated", "trained"]
    changed: int
    refused: tuple[RefusedEntry, ...]
    notes: tuple[NoteEntry, ...] = ()


@dataclass(frozen=True)
class CalibrationRecord:
    """The calibration data: sha256, and whether it was made up."""

    digest: str
    synthetic: bool


@dataclass(frozen=True)
class FallbackRecord:
    """A source node that the native artifact does not execute, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class CoverageRecord:
    """Source compute nodes, those the native artifact executes, and the rest."""

    nodes: int
    on_target: int
    fallback: tuple[FallbackRecord, ...]


@dataclass(frozen=True)
class Measured:
    """Where parity was measured: engine, its version, CPU architecture."""

    engine: str
    version: str
    arch: str


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _figure(data: Mapping[str, Any]) -> dict[str, Any]:
    short = {k: _short(v) if k in ("value", "limit") else v for k, v in data.items()}
    if short.get("exact"):
        return {"value": None, "exact": True, "pass": short["pass"]}
    return short


@dataclass(frozen=True)
class ParityRecord:
    """The parity certificate. Figures are kept to three significant digits.

    Attributes:
        figures: Metric -> ``{"value", "limit", "pass"}`` over all outputs, or, where every
            element was equal, ``{"value": null, "exact": true, "pass": true}``.
        outputs: The same for each output, by name.
        measured: Engine, version and architecture.
        samples: How many samples were compared.
        synthetic: The samples were made up.
        top1_agreement: Share of equal arg max; ``None`` if not measured.
        replayed: How many values were replayed node by node.
        worst: The closest to their tolerances, worst first.
        first_divergent: First value past its tolerance; ``None`` if there is none.
        psnr_drop: Where accumulated error is largest; ``None`` without such a gate.
        large: Values near the end of float16's range, by source node.
        fp16_accumulate_psnr_db: The figure with sums in float16 too; ``None`` if the engine
            has no such variant.
    """

    figures: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Mapping[str, Any]]]
    measured: Measured
    samples: int
    synthetic: bool
    top1_agreement: float | None
    replayed: int
    worst: tuple[Mapping[str, Any], ...]
    first_divergent: Mapping[str, Any] | None
    psnr_drop: Mapping[str, Any] | None
    large: tuple[Mapping[str, Any], ...]
    fp16_accumulate_psnr_db: float | None

    def __post_init__(self) -> None:
        figures = {m: _figure(f) for m, f in self.figures.items()}
        outputs = {
            name: {m: _figure(f) for m, f in found.items()}
            for name, found in self.outputs.items()
        }
        object.__setattr__(self, "figures", figures)
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "top1_agreement", _short(self.top1_agreement))
        pessimistic = _short(self.fp16_accumulate_psnr_db)
        object.__setattr__(self, "fp16_accumulate_psnr_db", pessimistic)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return dict(strictjson.encode(self))


@dataclass(frozen=True)
class SelfCheck:
    """The gates that a device applies to ``selfcheck.npz``: metric -> limit."""

    gates: Mapping[str, float]


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: relative path with ``/``, size in bytes, sha256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The whole record of a bundle; ``manifest.json`` holds it and its digest.

    Attributes:
        name: Bundle name.
        version: Bundle version, a positive integer.
        edgevit: Version of the compiler.
        source_sha256: sha256 of the model that was compiled (its path is never recorded).
        target: Target spec, e.g. ``"iphone-npu:os=18"``.
        target_sha256: sha256 of the target's data.
        backend: Backend name.
        precision: Precision name.
        io: ``"source"`` or ``"native"`` boundary layout of the artifacts.
        recipe: The compile request as an object.
        passes: Executed passes, in order.
        calibration: ``None`` if nothing was calibrated.
        preprocess: ``Preprocess.to_json()``, or ``None``.
        head: Output head (``runtimes/heads.py``), or ``None``.
        entries: One per input shape.
        files: Every file but the manifest and its signature, sorted by path.
        parity: Over all entries, worst figures; ``None`` if not verified.
        verified: Whether the gates were applied and kept.
        unverified_because: Empty exactly if ``verified``.
        coverage: What the native artifact executes.
        tools: Tool name -> version.
        selfcheck: Gates of the device's self-check.
        entry_parity: Parity of each entry where there are several; else empty.
    """

    name: str
    version: int
    edgevit: str
    source_sha256: str
    target: str
    target_sha256: str
    backend: str
    precision: str
    io: Literal["source", "native"]
    recipe: Mapping[str, Any]
    passes: tuple[PassEntry, ...]
    calibration: CalibrationRecord | None
    preprocess: Mapping[str, Any] | None
    head: Mapping[str, Any] | None
    entries: tuple[Entry, ...]
    files: tuple[FileRecord, ...]
    parity: ParityRecord | None
    verified: bool
    unverified_because: str
    coverage: CoverageRecord
    tools: Mapping[str, str]
    selfcheck: SelfCheck
    entry_parity: tuple[ParityRecord, ...] = ()

    where: ClassVar[str] = "manifest.json"

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs (of the first entry)."""
        return self.entries[0].inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs (of the first entry)."""
        return self.entries[0].outputs

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON without the digest itself."""
        return strictjson.digest(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **strictjson.encode(self)}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with ``schema`` and ``digest``."""
        return {**self._fields(), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Inverse of ``to_json``, strict.

        Raises:
            ArtifactError: Unknown schema; missing, unknown or wrong-typed key; a digest that
                is not the content's; records that contradict each other.
        """
        from edgevit.manifest_check import check

        if not isinstance(data, dict):
            raise ArtifactError(f"{cls.where}: expected an object, found {data!r:.40}")
        schema = data.get("schema")
        if type(schema) is not int or schema != SCHEMA:
            raise ArtifactError(
                f"{cls.where}: expected schema {SCHEMA}, found {schema!r}",
                hint="the bundle was made by another version of edgevit: install that one, "
                "or compile again",
            )
        body = {k: v for k, v in data.items() if k not in ("schema", "digest")}
        manifest = strictjson.decode(cls, body, cls.where)
        found = strictjson.digest({k: v for k, v in data.items() if k != "digest"})
        if data.get("digest") != found:
            raise ArtifactError(
                f"{cls.where}: expected digest {found}, found {data.get('digest')!r}",
                hint="the manifest was changed after it was written",
            )
        check(manifest)
        return manifest
