"""From what a compile made to its records: the manifest, and the ``result`` of ``--json``."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgevit import __version__, registry
from edgevit.budget import AGREEMENT, gates, selfcheck_gates
from edgevit.cost import peak_activation_bytes, total_cost
from edgevit.errors import Availability, GateError
from edgevit.estimate import estimate
from edgevit.job import Data, Plan, Staged
from edgevit.loading import Source
from edgevit.manifest import (
    CalibrationRecord,
    CoverageRecord,
    Entry,
    FallbackRecord,
    Manifest,
    Measured,
    NoteEntry,
    ParityRecord,
    PassEntry,
    RefusedEntry,
    SelfCheck,
)
from edgevit.parity import Gate, Metrics, judge
from edgevit.partition import Coverage
from edgevit.pipeline import PassRecord
from edgevit.placement import Placement, place
from edgevit.record import record_of, record_path
from edgevit.report import artifact_text
from edgevit.verify import Parity, overall

__all__ = [
    "Made",
    "Shaped",
    "failed_gate",
    "manifest",
    "meant_to_differ",
    "parity_json",
    "records",
    "result",
    "verification",
]

TOOLS = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
TOOLS_OF = {
    "coreml": ("coremltools",),
    "litert": ("ai-edge-litert", "flatbuffers"),
    "tvm": ("apache-tvm", "apache-tvm-ffi"),
}


@dataclass(frozen=True)
class Shaped:
    """What a compile made of the model at one input shape."""

    source: Source
    canonical: ir.Model
    records: tuple[PassRecord, ...]
    covered: Coverage
    staged: Staged
    parity: Parity | None
    data: Data


@dataclass(frozen=True)
class Made:
    """Everything a compile made: the plan, and what came of it at each input shape."""

    plan: Plan
    shapes: tuple[Shaped, ...]

    @property
    def first(self) -> Shaped:
        """The first input shape."""
        return self.shapes[0]

    @property
    def parities(self) -> tuple[Parity, ...]:
        """One for each input shape; empty if not verified."""
        return tuple(s.parity for s in self.shapes if s.parity is not None)

    @property
    def parity(self) -> Parity | None:
        """Over all input shapes; ``None`` if not verified."""
        return overall(self.parities) if self.parities else None


def manifest(made: Made) -> Manifest:
    """The bundle's manifest; ``seal`` fills in the files."""
    p = made.plan
    parity = made.parity
    several = made.parities if len(made.shapes) > 1 else ()
    return Manifest(
        name=p.output.name.removesuffix(".edgevit"),
        version=p.recipe.bundle_version,
        edgevit=__version__,
        source_sha256=made.first.source.sha256,
        target=_target_spec(p),
        target_sha256=p.target.digest(),
        backend=p.target.backend,
        precision=p.precision,
        io=p.recipe.io,
        recipe=p.recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        passes=_passes(made),
        calibration=_calibration(made.first.data),
        preprocess=None if p.preprocess is None else p.preprocess.to_json(),
        head=_head(p, made.first.source),
        entries=tuple(s.staged.entry for s in made.shapes),
        files=(),
        parity=None if parity is None else _parity_record(made, parity),
        verified=parity is not None and parity.passed,
        unverified_because=_why_unverified(parity),
        coverage=_coverage(_least([s.covered for s in made.shapes])),
        tools=_tools(made),
        selfcheck=SelfCheck(_selfcheck(made)),
        entry_parity=tuple(_parity_record(made, found) for found in several),
    )


def _selfcheck(made: Made) -> dict[str, float]:
    """The limits of a device's self-check: of every entry the widest."""
    p = made.plan
    found = gates(p.target, p.precision, p.recipe.limits)
    parities = made.parities or (None,)
    each = [selfcheck_gates(found, None if q is None else q.selfcheck) for q in parities]
    return {m: min(e[m] for e in each) for m in each[0]}


def _least(found: Sequence[Coverage]) -> Coverage:
    """The coverage of the input shape of which the target runs least."""
    return min(found, key=lambda c: c.on_target / max(c.nodes, 1))


def _passes(made: Made) -> tuple[PassEntry, ...]:
    """Passes as they went at the first input shape, with the refusals at any."""
    found = []
    others = [{p.spec: p for p in pass_entries(s.records)} for s in made.shapes[1:]]
    for entry in pass_entries(made.first.records):
        refused = dict.fromkeys(entry.refused)
        for other in others:
            refused |= dict.fromkeys(other[entry.spec].refused if entry.spec in other else ())
        found.append(replace(entry, refused=tuple(refused)))
    return tuple(found)


def records(made: Made) -> dict[str, bytes]:
    """The bundle's ``report.json``, and the same for each further entry, by path."""
    p = made.plan
    found = (
        record_of(s.canonical, p.target, s.parity, p.precision, _stored(s))
        for s in made.shapes
    )
    return {record_path(index): record.to_bytes() for index, record in enumerate(found)}


def _stored(shaped: Shaped) -> dict[str, tuple[int, ...]]:
    """Value name -> shape of the tensor that was lowered."""
    parts = shaped.staged.parts
    return {b.name: b.artifact_shape for part in parts for b in part.lowered.values}


def _placed(made: Made, shaped: Shaped) -> tuple[Placement, ...]:
    """Where each node runs; what the unit pads are the tensors that were lowered."""
    p = made.plan
    return place(shaped.canonical, p.target, p.precision, _stored(shaped))


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
    """One entry a pass: edits summed over rounds, refusals and notes of its last round."""
    merged: dict[str, PassEntry] = {}
    for record in records:
        before = merged[record.spec].changed if record.spec in merged else 0
        refused = tuple(RefusedEntry(r.rule, r.node, r.reason) for r in record.refusals)
        changed = before + len(record.changes)
        notes = tuple(NoteEntry(n.node, n.text, n.gain_db) for n in record.notes)
        merged[record.spec] = PassEntry(
            record.spec, record.effect.value, changed, refused, notes
        )
    return tuple(merged.values())


def _coverage(covered: Coverage) -> CoverageRecord:
    fallback = tuple(FallbackRecord(f.node, f.op, f.reason) for f in covered.fallback)
    return CoverageRecord(covered.nodes, covered.on_target, fallback)


def _tools(made: Made) -> dict[str, str]:
    used = {p.backend for p in made.first.staged.parts}
    names = [*TOOLS, *(t for backend in sorted(used) for t in TOOLS_OF.get(backend, ()))]
    return {name: importlib.metadata.version(name) for name in names}


def _figures(parity: Parity) -> dict[str, dict[str, Any]]:
    return {f.metric: f.to_json() for f in parity.figures}


def _outputs(parity: Parity) -> dict[str, dict[str, Any]]:
    # Agreement is of the network's answers, not of one output's elements.
    limits = [Gate(f.metric, f.limit) for f in parity.figures if f.metric != AGREEMENT]
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
        "not_measured": list(parity.not_measured),
        "top1_agreement": parity.top1_agreement,
        "routing": [sets.to_json() for sets in parity.routing],
        "reference": {"engine": "onnxruntime", "version": parity.reference},
        "pass": parity.passed,
    }


def verification(parities: Sequence[Parity], entries: Sequence[Entry]) -> dict[str, Any]:
    """``parity_json`` over all entries, and where there are several, of each."""
    found = parity_json(overall(parities))
    if len(parities) == 1:
        return found
    each = zip(parities, entries, strict=True)
    return {**found, "entries": [{**entry_json(e), **parity_json(p)} for p, e in each]}


def entry_json(entry: Entry) -> dict[str, Any]:
    """What tells an entry: input name -> shape, and the artifacts that run it."""
    return {
        "shapes": {i.name: list(i.shape) for i in entry.inputs},
        "artifacts": [artifact_text(p.artifact, p.function) for p in entry.parts],
    }


def result(made: Made, found: Manifest, path: Path | None, seconds: float) -> dict[str, Any]:
    """The ``result`` object of ``edgevit compile --json`` (design.md)."""
    files = [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in found.files]
    as_json = found.to_json()
    entries = [s.staged.entry for s in made.shapes]
    return {
        "bundle": None if path is None else str(path),
        "target": found.target,
        "backend": found.backend,
        "precision": found.precision,
        "files": files,
        "passes": as_json["passes"],
        "coverage": as_json["coverage"],
        "placement": [asdict(p) for p in _placed(made, made.first)],
        "parity": None if made.parity is None else _figures(made.parity),
        "verification": verification(made.parities, entries) if made.parities else None,
        "unverified_because": found.unverified_because,
        "warnings": list(dict.fromkeys(w for s in made.shapes for w in s.data.warnings)),
        "cost": _cost(made, made.first, found),
        "entries": [
            {
                **entry_json(s.staged.entry),
                "parity": None if s.parity is None else _figures(s.parity),
                "cost": _cost(made, s, found),
            }
            for s in made.shapes
        ],
        "seconds": round(seconds, 3),
    }


def _cost(made: Made, shaped: Shaped, found: Manifest) -> dict[str, Any]:
    total = total_cost(shaped.canonical)
    return {
        "macs": total.macs,
        "params": total.params,
        "bytes": sum(f.bytes for f in found.files),
        "activation_bytes": peak_activation_bytes(shaped.canonical),
        **estimate(shaped.canonical, made.plan.target, found.precision).to_json(),
    }


def _came_quantized(made: Made) -> bool:
    return any(n.op_type == "QuantizeLinear" for n in made.first.source.model.graph)


def meant_to_differ(precision: str, passes: tuple[PassEntry, ...]) -> str:
    """What to do where a pass changes the function, and limits are those of rounding."""
    names = ", ".join(p.spec for p in passes if p.effect != "exact" and p.changed)
    if precision not in ("fp32", "fp16") or not names:
        return ""
    return f"; {names}: not exact, so say in the recipe's [budget] what it may cost"


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
    if found.precision in ("fp32", "fp16") and _came_quantized(made):
        where += (
            "; the model quantizes activations, and integer kernels tip other ties than "
            "floats do: compile it with --precision w8a8"
        )
    where += meant_to_differ(found.precision, found.passes)
    error = GateError("verification failed: " + "; ".join(lines), hint=where)
    error.result = result(made, found, kept, 0.0)
    return error
