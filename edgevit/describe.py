"""From what a compile made to its records: the manifest, and the ``result`` of ``--json``."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgevit import __version__, registry
from edgevit.cost import peak_activation_bytes, total_cost
from edgevit.errors import Availability, GateError
from edgevit.estimate import estimate
from edgevit.job import Data, Plan, Staged, gates
from edgevit.loading import Source
from edgevit.manifest import (
    CalibrationRecord,
    CoverageRecord,
    FallbackRecord,
    Manifest,
    Measured,
    ParityRecord,
    PassEntry,
    RefusedEntry,
    SelfCheck,
)
from edgevit.parity import Gate, Metrics, judge
from edgevit.partition import Coverage
from edgevit.pipeline import PassRecord
from edgevit.placement import Placement, place
from edgevit.record import record_of
from edgevit.verify import Parity

__all__ = ["Made", "failed_gate", "manifest", "parity_json", "record", "result"]

TOOLS = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
TOOLS_OF = {
    "coreml": ("coremltools",),
    "litert": ("ai-edge-litert", "flatbuffers"),
}


@dataclass(frozen=True)
class Made:
    """Everything a compile made."""

    plan: Plan
    source: Source
    canonical: ir.Model
    records: tuple[PassRecord, ...]
    covered: Coverage
    staged: Staged
    parity: Parity | None
    data: Data


def manifest(made: Made) -> Manifest:
    """The bundle's manifest; ``seal`` fills in the files."""
    p = made.plan
    verified = made.parity is not None and made.parity.passed
    return Manifest(
        name=p.output.name.removesuffix(".edgevit"),
        version=p.recipe.bundle_version,
        edgevit=__version__,
        source_sha256=made.source.sha256,
        target=_target_spec(p),
        target_sha256=p.target.digest(),
        backend=p.target.backend,
        precision=p.precision,
        io=p.recipe.io,
        recipe=p.recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        passes=pass_entries(made.records),
        calibration=_calibration(made.data),
        preprocess=None if p.preprocess is None else p.preprocess.to_json(),
        head=_head(p, made.source),
        entries=(made.staged.entry,),
        files=(),
        parity=None if made.parity is None else _parity_record(made, made.parity),
        verified=verified,
        unverified_because=_why_unverified(made.parity),
        coverage=_coverage(made.covered),
        tools=_tools(made),
        selfcheck=SelfCheck({g.metric: g.limit for g in gates(p.target, p.precision)}),
    )


def record(made: Made) -> bytes:
    """The content of the bundle's ``report.json``."""
    p = made.plan
    return record_of(made.canonical, p.target, made.parity, p.precision).to_bytes()


def _placed(made: Made) -> tuple[Placement, ...]:
    """Where each node runs; what the unit pads are the tensors that were lowered."""
    stored = {
        b.name: b.artifact_shape for part in made.staged.parts for b in part.lowered.values
    }
    return place(made.canonical, made.plan.target, made.plan.precision, stored)


def _target_spec(p: Plan) -> str:
    overrides = ",".join(f"{k}={v}" for k, v in sorted(p.target.options.items()))
    return f"{p.target.name}:{overrides}" if overrides else p.target.name


def _why_unverified(parity: Parity | None) -> str:
    if parity is None:
        return "--no-verify was given"
    return "" if parity.passed else "a gate failed"


def _calibration(data: Data) -> CalibrationRecord | None:
    source = data.calibration
    return None if source is None else CalibrationRecord(source.digest(), source.synthetic)


def _head(p: Plan, source: Source) -> Mapping[str, Any] | None:
    if p.recipe.head is None:
        return None
    build = registry.load_attribute("edgevit.runtimes.heads:head_for")
    found: Mapping[str, Any] = build(p.recipe.head, source.metadata)
    return found


def pass_entries(records: tuple[PassRecord, ...]) -> tuple[PassEntry, ...]:
    """One entry a pass: edits summed over rounds, refusals of its last round."""
    merged: dict[str, PassEntry] = {}
    for record in records:
        before = merged[record.spec].changed if record.spec in merged else 0
        refused = tuple(RefusedEntry(r.rule, r.node, r.reason) for r in record.refusals)
        merged[record.spec] = PassEntry(
            record.spec, record.effect.value, before + len(record.changes), refused
        )
    return tuple(merged.values())


def _coverage(covered: Coverage) -> CoverageRecord:
    fallback = tuple(FallbackRecord(f.node, f.op, f.reason) for f in covered.fallback)
    return CoverageRecord(covered.nodes, covered.on_target, fallback)


def _tools(made: Made) -> dict[str, str]:
    used = {p.backend for p in made.staged.parts}
    names = [*TOOLS, *(t for backend in sorted(used) for t in TOOLS_OF.get(backend, ()))]
    return {name: importlib.metadata.version(name) for name in names}


def _figures(parity: Parity) -> dict[str, dict[str, Any]]:
    return {f.metric: f.to_json() for f in parity.figures}


def _outputs(parity: Parity) -> dict[str, dict[str, Any]]:
    limits = [Gate(f.metric, f.limit) for f in parity.figures]
    return {
        name: {g.metric: judge(m, g).to_json() for g in limits}
        for name, m in parity.outputs.items()
    }


def _parity_record(made: Made, parity: Parity) -> ParityRecord:
    engine: Availability = registry.load("engines", made.plan.target.engine)().probe()
    return ParityRecord(
        figures=_figures(parity),
        outputs=_outputs(parity),
        measured=Measured(engine.name, engine.version, platform.machine()),
        samples=parity.samples,
        synthetic=parity.synthetic,
        top1_agreement=parity.top1_agreement,
        replayed=len(parity.replays),
        worst=tuple(d.to_json() for d in parity.worst),
        first_divergent=(
            None if parity.first_divergent is None else parity.first_divergent.to_json()
        ),
        **_accumulation(parity),
    )


def _accumulation(parity: Parity) -> dict[str, Any]:
    found = parity.accumulation
    if found is None:
        return {"psnr_drop": None, "large": (), "fp16_accumulate_psnr_db": None}
    return {
        "psnr_drop": None if found.drop is None else found.drop.to_json(),
        "large": tuple(value.to_json() for value in found.large),
        "fp16_accumulate_psnr_db": found.pessimistic_psnr_db,
    }


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    names = ("max_rel", "psnr_db", "sqnr_db", "cosine")
    found: dict[str, Any] = {name: getattr(metrics, name) for name in names}
    return {**found, "exact": metrics.exact, "broken": metrics.broken}


def parity_json(parity: Parity) -> dict[str, Any]:
    """The certificate as ``verify --json`` and ``compile --json`` print it."""
    first = parity.first_divergent
    return {
        "figures": _figures(parity),
        "parity": _figures(parity),
        "outputs": [{"name": n, **_metrics_json(m)} for n, m in parity.outputs.items()],
        "worst": [d.to_json() for d in parity.worst],
        "first_divergent": None if first is None else first.to_json(),
        **_accumulation(parity),
        "replayed": len(parity.replays),
        "unjudged": list(parity.unjudged),
        "samples": parity.samples,
        "synthetic": parity.synthetic,
        "top1_agreement": parity.top1_agreement,
        "reference": {"engine": "onnxruntime", "version": parity.reference},
        "pass": parity.passed,
    }


def result(made: Made, found: Manifest, path: Path | None, seconds: float) -> dict[str, Any]:
    """The ``result`` object of ``edgevit compile --json`` (design.md)."""
    total = total_cost(made.canonical)
    files = [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in found.files]
    as_json = found.to_json()
    return {
        "bundle": None if path is None else str(path),
        "target": found.target,
        "backend": found.backend,
        "precision": found.precision,
        "files": files,
        "passes": as_json["passes"],
        "coverage": as_json["coverage"],
        "placement": [asdict(p) for p in _placed(made)],
        "parity": None if made.parity is None else _figures(made.parity),
        "verification": None if made.parity is None else parity_json(made.parity),
        "unverified_because": found.unverified_because,
        "cost": {
            "macs": total.macs,
            "params": total.params,
            "bytes": sum(f["bytes"] for f in as_json["files"]),
            "activation_bytes": peak_activation_bytes(made.canonical),
            **estimate(made.canonical, made.plan.target, found.precision).to_json(),
        },
        "seconds": round(seconds, 3),
    }


def failed_gate(made: Made, found: Manifest, kept: Path | None) -> GateError:
    """The error of a compile whose verification failed: what, where, by how much."""
    parity = made.parity
    assert parity is not None
    lines = [
        f"{f.metric} is {'undefined' if f.value is None else format(f.value, '.3g')}, "
        f"limit {f.limit:g}"
        for f in parity.figures
        if not f.passed
    ]
    first = parity.first_divergent
    if first is not None:
        lines.append(
            f"first node past its tolerance: {first.op} {first.node!r} "
            f"(value {first.value!r}): error {first.error:.3g}, limit {first.limit:.3g}"
        )
    where = (
        f"the failed bundle was kept at {kept}" if kept else "--keep-failed keeps the bundle"
    )
    error = GateError("verification failed: " + "; ".join(lines), hint=where)
    error.result = result(made, found, kept, 0.0)
    return error
