"""The steps of a compile, each from values to values; ``api.compile`` is the flow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgevit import bundle as bundles
from edgevit import partition as partitions
from edgevit import registry
from edgevit.backend import Foreign, LowerOptions
from edgevit.budget import gates
from edgevit.bundle import Entry, TensorInfo
from edgevit.calibration import Counted, DataSource
from edgevit.debugmap import read_debug_map, write_debug_map
from edgevit.edits import Edit, kept_in
from edgevit.edits import dump as dump_edits
from edgevit.edits import parse as parse_edits
from edgevit.errors import ArtifactError, GateError, InputError, UsageError
from edgevit.gatekeeper import PassGate
from edgevit.loading import Source, load
from edgevit.opcheck import check_nodes
from edgevit.optimize import Optimized, calibrated, pipeline
from edgevit.optimize import optimize as run_passes
from edgevit.pipeline import Context, PassRecord
from edgevit.plan import Plan, plan
from edgevit.preprocess import Preprocess
from edgevit.progress import Tick
from edgevit.recipe import Recipe
from edgevit.reference import Arrays
from edgevit.sampling import Data, data, samples, tensor_infos
from edgevit.subject import Expected, LoweredPart, Subject
from edgevit.subject import expect as _expect
from edgevit.target import Target, load_target
from edgevit.trust import check_trust
from edgevit.variants import merge_parts, stem_of
from edgevit.verify import Parity, verify_parts, whole

__all__ = ["Data", "Opened", "Plan", "Staged", "data", "plan", "samples"]

_LOG = logging.getLogger(__name__)

RUN_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Staged:
    """Files of the bundle in its temporary directory, and what is needed to verify them."""

    root: Path
    entry: Entry
    parts: tuple[LoweredPart, ...]
    source: bytes


@dataclass(frozen=True)
class Opened:
    """A sealed bundle with its source model, ready to be verified again."""

    plan: Plan
    canonical: ir.Model
    exact: ir.Model | None
    staged: Staged
    data: Data


def check_verifiable(plan: Plan) -> None:
    """Refuse to verify what cannot run here, before the work is done.

    Raises:
        GateError: The target's artifacts need another machine.
    """
    backend = registry.load("backends", plan.target.backend)()
    reason = backend.foreign(plan.target) if isinstance(backend, Foreign) else None
    if reason is not None:
        raise GateError(
            f"not verifiable here: {reason}",
            hint="--no-verify ships it unverified, and the manifest says so",
        )


def canonicalize(
    p: Plan, source: Source, d: Data, verify_each: bool
) -> tuple[ir.Model, tuple[PassRecord, ...]]:
    """Bring a copy of the source model to canonical form; EXACT passes only."""
    model = source.model.clone()
    observers = (PassGate(source_bytes(p.model), d.samples[:1]),) if verify_each else ()
    run = registry.load_attribute("edgevit.passes.order:canonicalize")
    records: tuple[PassRecord, ...] = run(model, observers)
    # Again after load: folding has made shapes known that were not, and contradictions show.
    check_nodes(model, p.model.name)
    if not len(model.graph):
        raise InputError(
            f"{p.model.name}: every output is an input of the model: nothing is computed",
            hint="check which tensors were exported as outputs",
        )
    return model, records


def calibrates(data: Sequence[Data]) -> bool:
    """Whether every entry has calibration samples.

    Entries share their weights: all of them are rounded on samples, or none.
    """
    have = sum(d.calibration is not None for d in data)
    if 0 < have < len(data):
        _LOG.warning(
            "calibration samples fit %d of %d shapes: where a precision does without, weights "
            "are rounded without them",
            have,
            len(data),
        )
    return have == len(data)


def optimize(
    p: Plan,
    model: ir.Model,
    d: Data,
    verify_each: bool,
    reload: tuple[tuple[str, tuple[Edit, ...]], ...] = (),
    tick: Tick | None = None,
    calibrates: bool = True,
) -> Optimized:
    """Run what target, recipe and precision ask for, in place.

    Args:
        p: The plan.
        model: Canonical model.
        d: Calibration samples, and one to compare on.
        verify_each: Compare with the source after every pass.
        reload: Edits of a sealed bundle, performed instead of planned.
        tick: Told of calibration samples as passes go through them.
        calibrates: Whether a precision that needs no samples may use them.
    """
    observers = (PassGate(source_bytes(p.model), d.samples[:1]),) if verify_each else ()
    if reload:
        known = calibrated(p.target, p.precision, [spec for spec, _ in reload])
    else:
        known = calibrates and d.calibration is not None
    chosen = pipeline(p.target, p.recipe, p.precision, known)
    source: DataSource | None = d.calibration
    if source is not None and tick is not None:
        source = Counted(source, tick)
    context = Context(source, p.target, p.precision, p.recipe.seed, reload)
    return run_passes(model, chosen, context, observers)


def partition(
    p: Plan, source: Source, model: ir.Model
) -> tuple[partitions.Coverage, tuple[partitions.Partition, ...]]:
    """Coverage of the target's backend in source nodes, gated, and the parts."""
    backend = partitions.backend_of(p.target.backend)
    backend.probe().require()
    covered = partitions.coverage(model, backend, p.target, p.precision)
    partitions.check(covered, p.target, p.recipe.allow_fallback)
    parts = partitions.partition(model, p.target.backend, covered)
    return partitions.of_source(covered, source.model, model), parts


def lower(
    p: Plan,
    variants: Sequence[Sequence[partitions.Partition]],
    tuning: Mapping[str, Any] | None = None,
) -> list[tuple[LoweredPart, ...]]:
    """Lower the parts of every variant, and put into one artifact what can be."""
    count = len(variants)
    made = [
        _lower(p, parts, [stem_of(v, count, i, len(parts)) for i in range(len(parts))], tuning)
        for v, parts in enumerate(variants)
    ]
    return merge_parts(made, p.target)


def _lower(
    p: Plan,
    parts: Sequence[partitions.Partition],
    stems: Sequence[str],
    tuning: Mapping[str, Any] | None,
) -> tuple[LoweredPart, ...]:
    """Lower every part with its backend."""
    made = []
    for part, stem in zip(parts, stems, strict=True):
        native = part.backend == p.target.backend
        precision = p.precision if native else "fp32"
        io = p.recipe.io if native and len(parts) == 1 else "source"
        options = LowerOptions(precision, io, stem, tuning if native else None)
        backend = partitions.backend_of(part.backend)
        made.append(LoweredPart(part.backend, backend.lower(part.model, p.target, options)))
    return tuple(made)


def source_bytes(model: Path) -> bytes:
    """The source model as one protobuf, external data included."""
    import onnx

    if not _has_external_data(model):
        return model.read_bytes()
    return bytes(onnx.load_model(model).SerializeToString())


def _has_external_data(model: Path) -> bool:
    import onnx

    proto = onnx.load_model(model, load_external_data=False)
    kinds = {t.data_location for t in proto.graph.initializer}
    return onnx.TensorProto.EXTERNAL in kinds


def expect(
    p: Plan, canonical: ir.Model, exact: ir.Model | None, d: Data, verify: bool
) -> Expected:
    """What the source model computes for the samples and, last, for the self-check."""
    samples = (*d.samples, d.selfcheck) if verify else (d.selfcheck,)
    source = source_bytes(p.model) if _has_external_data(p.model) else p.model
    return _expect(source, canonical, samples, trace=verify, exact=exact)


def stage(
    folder: Path,
    p: Plan,
    sources: Sequence[Source],
    lowered: Sequence[tuple[LoweredPart, ...]],
    d: Sequence[Data],
    expected: Sequence[Expected],
    edits: Sequence[Sequence[tuple[str, Sequence[Edit]]]] = (),
) -> list[Staged]:
    """Write the artifacts, the debug map and the self-check into the staging directory.

    Args:
        folder: The staging directory.
        p: The plan.
        sources: One for each entry, as all that follow.
        lowered: Parts.
        d: Samples.
        expected: Answers.
        edits: Of passes that planned.
    """
    answers = [e.outputs[-1] for e in expected]
    entries = [
        _entry(source, parts, answer)
        for source, parts, answer in zip(sources, lowered, answers, strict=True)
    ]
    files: dict[str, bytes] = {}
    for part in (part for parts in lowered for part in parts):
        files.update(part.lowered.files)
    checks = [(one.selfcheck, answer) for one, answer in zip(d, answers, strict=True)]
    for index, mine in enumerate(edits):
        if mine:
            files[kept_in(index)] = bundles.npz_bytes(dump_edits(mine))
    files[bundles.DEBUG_MAP] = write_debug_map(lowered)
    files[bundles.SELFCHECK] = bundles.selfcheck_bytes(*checks[0], *checks[1:])
    bundles.write_files(folder, files)
    source = source_bytes(p.model)
    return [
        Staged(folder, entry, parts, source)
        for entry, parts in zip(entries, lowered, strict=True)
    ]


def _entry(source: Source, parts: tuple[LoweredPart, ...], answer: Arrays) -> Entry:
    outputs = tuple(
        TensorInfo(name=name, dtype=str(array.dtype), shape=array.shape)
        for name, array in answer.items()
    )
    infos = tensor_infos(source.model.graph.inputs)
    return Entry(tuple(part.lowered.part for part in parts), infos, outputs)


def verify(
    p: Plan,
    canonical: ir.Model,
    exact: ir.Model | None,
    staged: Staged,
    d: Data,
    expected: Expected,
) -> Parity:
    """Run the staged files and compare them with the source model."""
    run = registry.load_attribute("edgevit.runtimes.child:run_isolated")

    def isolated(root: Path, entry: Entry, batches: Sequence[Any]) -> Sequence[Arrays]:
        found: Sequence[Arrays] = run(root, entry, batches, threads=2, timeout_s=RUN_TIMEOUT_S)
        return found

    subject = Subject(
        source=staged.source,
        canonical=canonical,
        parts=staged.parts,
        entry=staged.entry,
        root=staged.root,
        precision=p.precision,
        gates=gates(p.target, p.precision, p.recipe.limits),
        run=isolated,
        exact=exact,
    )
    known = replace(expected, outputs=expected.outputs[: len(d.samples)])
    found = verify_parts(subject, d.samples, known, d.synthetic)
    if exact is None:
        return found
    answer = isolated(staged.root, staged.entry, [d.selfcheck])
    return replace(found, selfcheck=whole(expected.outputs[-1:], answer))


def _recorded_target(spec: str, file: str | Path | None) -> Target:
    name, colon, overrides = spec.partition(":")
    if file is not None:
        return load_target(colon + overrides, Path(file))
    if name not in registry.names("targets"):
        raise UsageError(
            f"the bundle was compiled for {name!r}, which is no target here",
            hint="give the device file it was compiled with: --target-file FILE",
        )
    return load_target(spec)


def reopen(
    path: Path,
    against: Path,
    inputs: str | None,
    target_file: str | Path | None = None,
    trust: bool = False,
) -> tuple[Opened, ...]:
    """Open every entry of a sealed bundle together with the model it was compiled from.

    Raises:
        ArtifactError: The bundle is corrupt, or holds code that is not trusted.
        InputError: ``against`` is not the bundle's source (its sha256 differs).
    """
    manifest = bundles.open_bundle(path)
    check_trust(manifest, trust)
    recipe = Recipe().merged(dict(manifest.recipe))
    sources = [load(against, {i.name: i.shape for i in e.inputs}) for e in manifest.entries]
    if sources[0].sha256 != manifest.source_sha256:
        raise InputError(
            f"{against} is not the model this bundle was compiled from: expected sha256 "
            f"{manifest.source_sha256[:12]}..., found {sources[0].sha256[:12]}...",
            hint="give the original file with --against",
        )
    target = _recorded_target(manifest.target, target_file)
    if target.digest() != manifest.target_sha256:
        raise ArtifactError(
            f"the device file of {manifest.target} has changed since the compile"
        )
    preprocess = Preprocess.parse(recipe.preprocess) if recipe.preprocess else None
    p = Plan(against, recipe, target, manifest.precision, preprocess, path, False)
    found, content = [], source_bytes(against)
    each = zip(sources, samples(p, sources, None, inputs, None), strict=True)
    for index, ((source, d), entry, parts) in enumerate(
        zip(each, manifest.entries, read_debug_map(path, manifest), strict=True)
    ):
        kept = path / kept_in(index)
        reload = parse_edits(kept.read_bytes()) if kept.is_file() else ()
        canonical, _ = canonicalize(p, source, d, False)
        exact = optimize(p, canonical, d, False, reload).exact
        found.append(Opened(p, canonical, exact, Staged(path, entry, parts, content), d))
    return tuple(found)
