"""The steps of a compile, each from values to values; ``api.compile`` is the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgevit import bundle as bundles
from edgevit import partition as partitions
from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.bundle import Entry, TensorInfo
from edgevit.calibration import DataSource, SyntheticSource, held_out, open_source
from edgevit.debugmap import read_debug_map, write_debug_map
from edgevit.errors import ArtifactError, InputError, UnsupportedModelError, UsageError
from edgevit.gatekeeper import PassGate
from edgevit.loading import Source, load
from edgevit.model import dtype_of, shape_of
from edgevit.opcheck import check_nodes
from edgevit.parity import Gate
from edgevit.pipeline import PassRecord, Pipeline, split_specs
from edgevit.preprocess import Preprocess
from edgevit.recipe import Recipe, load_recipe
from edgevit.reference import Arrays
from edgevit.subject import Expected, LoweredPart, Subject
from edgevit.subject import expect as _expect
from edgevit.target import Target, load_target
from edgevit.verify import Parity, verify_parts

__all__ = ["Data", "Opened", "Plan", "Staged"]

SYNTHETIC_SAMPLES = 4
FLOATS = frozenset({"fp32", "fp16", "w8", "w4", "w8a8-dyn"})
RUN_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, after recipe, target and options are merged and checked."""

    model: Path
    recipe: Recipe
    target: Target
    precision: str
    preprocess: Preprocess | None
    output: Path
    overwrite: bool


@dataclass(frozen=True)
class Data:
    """Samples of a compile.

    Attributes:
        calibration: Samples for calibrated passes; ``None`` if none were given.
        samples: Verification samples, at least one.
        digest: sha256 of the verification samples.
        synthetic: The verification samples were made up.
        selfcheck: One sample that ships with the bundle.
    """

    calibration: DataSource | None
    samples: tuple[Arrays, ...]
    digest: str
    synthetic: bool
    selfcheck: Arrays


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
    staged: Staged
    data: Data


def plan(
    model: Path,
    given: dict[str, Any],
    recipe: str | None,
    target_file: str | Path | None,
    output: str | Path | None,
    overwrite: bool,
) -> Plan:
    """Merge recipe and options, load the target, check the combination.

    Raises:
        UsageError: Unknown names, no target, a precision that cannot be executed, or an
            output that exists.
    """
    explicit = {k: v for k, v in given.items() if v is not None}
    if "passes" in explicit:
        explicit["passes"] = split_specs(explicit["passes"])
    merged = (load_recipe(recipe) if recipe else Recipe()).merged(explicit)
    if merged.target is None and target_file is None:
        known = ", ".join(registry.names("targets"))
        raise UsageError("no target was given", hint=f"--target NAME; known: {known}")
    target = load_target(merged.target or "", Path(target_file) if target_file else None)
    precision = merged.precision or target.default_precision
    _check_precision(target, precision)
    preprocess = Preprocess.parse(merged.preprocess) if merged.preprocess else None
    out = Path(output) if output else Path(f"{model.stem}-{target.name}.edgevit")
    if out.name.endswith(bundles.FAILED_SUFFIX):
        raise UsageError(
            f"{out}: names ending in {bundles.FAILED_SUFFIX} are for bundles that failed",
            hint="choose another name for -o",
        )
    bundles.check_output(out, overwrite)
    return Plan(model, merged, target, precision, preprocess, out, overwrite)


def _check_precision(target: Target, precision: str) -> None:
    if precision in target.precisions:
        return
    known = ("fp32", "fp16", "w8", "w4", "w8a8", "w8a8-dyn", "w4a8", "w8a16", "w6a6", "w4a4")
    if precision not in (*known, "mixed"):
        raise UsageError(
            f"unknown precision {precision!r}", hint=registry.nearest(precision, [*known])
        )
    raise UnsupportedModelError(
        f"{target.name} cannot execute precision {precision!r}",
        hint=f"the nearest that it can: --precision {target.precisions[-1]}",
    )


def tensor_infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
    """A model's inputs or outputs, with static shapes."""
    return tuple(
        TensorInfo(name=str(v.name), dtype=str(dtype_of(v)), shape=shape_of(v)) for v in values
    )


def data(
    p: Plan,
    source: Source,
    calibration: str | None,
    inputs: str | None,
    selfcheck_input: str | None,
) -> Data:
    """Choose verification data: ``--inputs``, else held-out calibration, else synthetic."""
    infos = tensor_infos(source.model.graph.inputs)
    seed = p.recipe.seed
    given = open_source(calibration, infos, p.preprocess, seed) if calibration else None
    synthetic = SyntheticSource(infos, SYNTHETIC_SAMPLES, seed, p.preprocess)
    chosen: DataSource = synthetic
    if inputs is not None:
        chosen = open_source(inputs, infos, p.preprocess, seed)
    elif given is not None and not given.synthetic:
        given, chosen = held_out(given)
    selfcheck = next(iter(synthetic))
    if selfcheck_input is not None:
        selfcheck = next(iter(open_source(selfcheck_input, infos, p.preprocess, seed)))
    samples = tuple(chosen)
    _check_finite(samples)
    return Data(given, samples, chosen.digest(), chosen.synthetic, selfcheck)


def _check_finite(samples: Sequence[Arrays]) -> None:
    import numpy as np

    if not samples:
        raise InputError("no verification samples: the source of --inputs is empty")
    for i, sample in enumerate(samples):
        for name, array in sample.items():
            if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                raise InputError(f"sample {i}: input {name!r} has NaN or infinity")


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
    return model, records


def optimize(
    p: Plan, model: ir.Model, source: Source, d: Data, verify_each: bool
) -> tuple[PassRecord, ...]:
    """Run what the target and the recipe ask for, in place."""
    specs = (*p.target.pipeline, *p.recipe.passes)
    observers = (PassGate(source_bytes(p.model), d.samples[:1]),) if verify_each else ()
    pipeline = Pipeline.parse(specs, lambda name: registry.load("passes", name))
    return pipeline.run(model, observers)


def partition(
    p: Plan, model: ir.Model
) -> tuple[partitions.Coverage, tuple[partitions.Partition, ...]]:
    """Coverage of the target's backend, gated, and the parts."""
    backend = partitions.backend_of(p.target.backend)
    backend.probe().require()
    covered = partitions.coverage(model, backend, p.target, p.precision)
    partitions.check(covered, p.target, p.recipe.allow_fallback)
    return covered, partitions.partition(model, p.target.backend, covered)


def lower(p: Plan, parts: Sequence[partitions.Partition]) -> tuple[LoweredPart, ...]:
    """Lower every part with its backend."""
    made = []
    for i, part in enumerate(parts):
        stem = "model" if len(parts) == 1 else f"part{i}"
        native = part.backend == p.target.backend
        precision = p.precision if native else "fp32"
        io = p.recipe.io if native and len(parts) == 1 else "source"
        options = LowerOptions(precision, io, stem)
        backend = partitions.backend_of(part.backend)
        made.append(LoweredPart(part.backend, backend.lower(part.model, p.target, options)))
    return tuple(made)


def source_bytes(model: Path) -> bytes:
    """The source model as one protobuf, external data included."""
    import onnx

    proto = onnx.load_model(model, load_external_data=False)
    external = any(
        t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer
    )
    if not external:
        return model.read_bytes()
    return bytes(onnx.load_model(model).SerializeToString())


def expect(p: Plan, canonical: ir.Model, d: Data, verify: bool) -> Expected:
    """What the source model computes for the samples and, last, for the self-check."""
    samples = (*d.samples, d.selfcheck) if verify else (d.selfcheck,)
    return _expect(source_bytes(p.model), canonical, samples, trace=verify)


def stage(
    folder: Path,
    p: Plan,
    source: Source,
    parts: tuple[LoweredPart, ...],
    d: Data,
    expected: Expected,
) -> Staged:
    """Write the artifacts, the debug map and the self-check into the staging directory."""
    answer = expected.outputs[-1]
    outputs = tuple(
        TensorInfo(name=name, dtype=str(array.dtype), shape=array.shape)
        for name, array in answer.items()
    )
    infos = tensor_infos(source.model.graph.inputs)
    entry = Entry(tuple(part.lowered.part for part in parts), infos, outputs)
    files = {path: data for part in parts for path, data in part.lowered.files.items()}
    files[bundles.DEBUG_MAP] = write_debug_map(parts)
    files[bundles.SELFCHECK] = bundles.selfcheck_bytes(d.selfcheck, answer)
    bundles.write_files(folder, files)
    return Staged(folder, entry, parts, source_bytes(p.model))


def gates(target: Target, precision: str) -> tuple[Gate, ...]:
    """The device file's whole-network gates for a precision."""
    found = target.tolerance.get(precision)
    limits = found.model_dump(exclude_none=True) if found is not None else {}
    if not limits:
        raise UsageError(
            f"device file {target.name}: no tolerance for precision {precision!r}"
        )
    return tuple(Gate(metric, limit) for metric, limit in sorted(limits.items()))


def verify(
    p: Plan, canonical: ir.Model, staged: Staged, d: Data, expected: Expected
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
        gates=gates(p.target, p.precision),
        run=isolated,
    )
    known = replace(expected, outputs=expected.outputs[: len(d.samples)])
    return verify_parts(subject, d.samples, known, d.synthetic)


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
    path: Path, against: Path, inputs: str | None, target_file: str | Path | None = None
) -> Opened:
    """Open a sealed bundle together with the model it was compiled from.

    Raises:
        ArtifactError: The bundle is corrupt.
        InputError: ``against`` is not the bundle's source (its sha256 differs).
    """
    manifest = bundles.open_bundle(path)
    recipe = Recipe().merged(dict(manifest.recipe))
    shapes = {i.name: i.shape for i in manifest.inputs}
    source = load(against, shapes)
    if source.sha256 != manifest.source_sha256:
        raise InputError(
            f"{against} is not the model this bundle was compiled from: expected sha256 "
            f"{manifest.source_sha256[:12]}..., found {source.sha256[:12]}...",
            hint="give the original file with --against",
        )
    target = _recorded_target(manifest.target, target_file)
    if target.digest() != manifest.target_sha256:
        raise ArtifactError(
            f"the device file of {manifest.target} has changed since the compile"
        )
    preprocess = Preprocess.parse(recipe.preprocess) if recipe.preprocess else None
    p = Plan(against, recipe, target, manifest.precision, preprocess, path, False)
    d = data(p, source, None, inputs, None)
    canonical, _ = canonicalize(p, source, d, False)
    optimize(p, canonical, source, d, False)
    parts = read_debug_map(path, manifest)
    staged = Staged(path, manifest.entries[0], parts, source_bytes(against))
    return Opened(p, canonical, staged, d)
