"""The public functions: compile, inspect, verify. ``compile`` reads as the flow it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgevit import bundle as bundles
from edgevit import describe, job
from edgevit.inspection import Inspection
from edgevit.inspection import inspect as _inspect
from edgevit.loading import load
from edgevit.optimize import plans
from edgevit.progress import Progress, SilentProgress
from edgevit.recipe import save_recipe as _save_recipe
from edgevit.tuning import tuning_of
from edgevit.variants import Shapes, check_distinct

if TYPE_CHECKING:
    from edgevit.manifest import Manifest

__all__ = ["Bundle", "compile", "inspect", "verify"]

Paths = str | Path


@dataclass(frozen=True)
class Bundle:
    """A compiled bundle.

    Attributes:
        path: Where it is; ``None`` after a dry run.
        manifest: What it says about itself.
        result: The ``result`` object of ``edgevit compile --json``.
    """

    path: Path | None
    manifest: Manifest
    result: dict[str, Any]


def compile(
    model: Paths,
    *,
    target: str | None = None,
    output: Paths | None = None,
    precision: str | None = None,
    passes: str | None = None,
    recipe: str | None = None,
    calibration: str | None = None,
    inputs: str | None = None,
    preprocess: str | None = None,
    shapes: Shapes | Sequence[Shapes] | None = None,
    head: str | None = None,
    io: Literal["source", "native"] | None = None,
    allow_fallback: bool | None = None,
    bundle_version: int | None = None,
    seed: int | None = None,
    target_file: Paths | None = None,
    selfcheck_input: str | None = None,
    verify_each: bool = False,
    verify: bool = True,
    keep_failed: bool = False,
    dry_run: bool = False,
    save_recipe: Paths | None = None,
    tune: int | None = None,
    tuning: Paths | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Compile an ONNX model into a verified bundle.

    Args:
        model: ONNX file.
        target: Target name with overrides, e.g. ``"iphone-npu"``, ``"iphone-npu:os=17"``.
        output: Bundle directory; default ``MODEL-TARGET.edgevit`` in the working directory.
        precision: ``"fp32"``, ``"fp16"``, ...; default: the target's.
        passes: Pass specs run after canonicalization, ``"a,b{opt=1}"``.
        recipe: Recipe file or name; arguments given here win over it.
        calibration: ``DIR``, ``FILE.npz`` or ``"synthetic"``; the last fifth is verified on.
        inputs: ``DIR`` or ``FILE.npz`` of verification samples.
        preprocess: Preprocessing in its short form; recorded in the bundle.
        shapes: Input name -> shape, binding symbolic dimensions. A list of them makes a
            bundle with an entry for each; ``run`` picks by the shapes it is given.
        head: ``"topk"``, ``"ctc"`` or ``"mask"``: what the first output means.
        io: Boundary layout: the source's, or the engine's native one.
        allow_fallback: Let ONNX Runtime take what the target cannot run.
        bundle_version: Version number recorded in the manifest.
        seed: Seed of synthetic samples.
        target_file: A device file of your own.
        selfcheck_input: ``FILE.npz`` used for the self-check instead of synthetic data.
        verify_each: Compare with the source after every pass.
        verify: ``False`` ships unverified; the manifest says so.
        keep_failed: Keep ``OUT.failed.edgevit`` when a gate fails.
        dry_run: Do everything but write the bundle.
        save_recipe: Write the effective options as a recipe.
        tune: Measure up to so many choices of each kernel here, and keep what is faster.
        tuning: File of such measurements, used and, with ``tune``, added to; default with
            ``tune``: ``tuning-MACHINE.json`` beside the bundle.
        overwrite: Replace an existing bundle.
        progress: Told of each step.

    Raises:
        EdgevitError: See ``edgevit.errors``; nothing is left at ``output``.
    """
    start, steps = time.perf_counter(), progress or SilentProgress()
    given = {
        "target": target,
        "precision": precision,
        "passes": passes,
        "preprocess": preprocess,
        "shapes": shapes,
        "head": head,
        "io": io,
        "allow_fallback": allow_fallback,
        "bundle_version": bundle_version,
        "seed": seed,
    }
    plan = job.plan(Path(model), given, recipe, target_file, output, overwrite)
    if verify:
        job.check_verifiable(plan)
    with steps.step("load"):
        sources = [load(plan.model, s, plan.weight_limit) for s in plan.recipe.variants]
        check_distinct(sources)
        data = job.samples(plan, sources, calibration, inputs, selfcheck_input)
        each = list(zip(sources, data, strict=True))
    with steps.step("canonicalize"):
        forms = [job.canonicalize(plan, s, d, verify_each) for s, d in each]
        graphs = [graph for graph, _ in forms]
    with steps.step("optimize") as tick:
        every = job.calibrates(data)
        more = [
            job.optimize(plan, g, d, verify_each, tick=tick, calibrates=every)
            for g, d in zip(graphs, data, strict=True)
        ]
        exact = [m.exact for m in more]
    with steps.step("partition"):
        covered = [job.partition(plan, *s) for s in zip(sources, graphs, strict=True)]
    variants = [parts for _, parts in covered]
    chosen = tuning_of(plan, variants, tune, None if tuning is None else Path(tuning), steps)
    with steps.step("lower"):
        lowered = job.lower(plan, variants, chosen)
    with steps.step("reference"):
        asked = zip(graphs, exact, data, strict=True)
        expected = [job.expect(plan, g, x, d, verify) for g, x, d in asked]
    with bundles.staging(plan.output) as folder:
        with steps.step("stage"):
            edits = [plans(m.records) for m in more]
            staged = job.stage(folder, plan, sources, lowered, data, expected, edits)
        with steps.step("verify"):
            checks = list(zip(graphs, exact, staged, data, expected, strict=True))
            parities = [job.verify(plan, *c) if verify else None for c in checks]
        made = describe.Made(
            plan,
            tuple(
                describe.Shaped(s, g, (*r, *m.records), c, t, p, d)
                for (s, d), (g, r), m, (c, _), t, p in zip(
                    each, forms, more, covered, staged, parities, strict=True
                )
            ),
        )
        bundles.write_files(folder, describe.records(made))
        manifest = describe.manifest(made)
        if save_recipe is not None:
            _save_recipe(plan.recipe, Path(save_recipe))
        manifest, path = _seal(folder, manifest, plan, dry_run, keep_failed, made)
    seconds = time.perf_counter() - start
    return Bundle(path, manifest, describe.result(made, manifest, path, seconds))


def _seal(
    folder: Path,
    manifest: Manifest,
    plan: job.Plan,
    dry_run: bool,
    keep_failed: bool,
    made: describe.Made,
) -> tuple[Manifest, Path | None]:
    """Rename the staged bundle into place, unless a gate failed."""
    parity = made.parity
    if parity is not None and not parity.passed:
        kept = None
        if keep_failed and not dry_run:
            kept = bundles.failed_path(plan.output)
            manifest = bundles.seal(folder, manifest, kept, overwrite=True)
        raise describe.failed_gate(made, manifest, kept)
    if dry_run:
        return replace(manifest, files=bundles.file_records(folder)), None
    sealed = bundles.seal(folder, manifest, plan.output, overwrite=plan.overwrite)
    return sealed, plan.output


def inspect(
    model: Paths,
    *,
    target: str | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Inspection:
    """What a model holds, and what a target would do with it.

    Args:
        model: ONNX file.
        target: Adds coverage and placement.
        shapes: Input name -> shape, binding symbolic dimensions.

    Raises:
        EdgevitError: The model cannot be loaded.
    """
    return _inspect(Path(model), shapes or {}, target)


def verify(
    bundle: Paths,
    against: Paths,
    *,
    inputs: str | None = None,
    target_file: Paths | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a bundle with its source model.

    Args:
        bundle: Bundle directory.
        against: The ONNX file that it was compiled from.
        inputs: ``DIR`` or ``FILE.npz`` of samples; synthetic ones if absent.
        target_file: The device file of your own that the bundle was compiled with.
        trust: Whether native code in the bundle may be loaded.
        progress: Told of each step.

    Returns:
        ``parity`` figures, ``outputs``, ``worst``, ``first_divergent``, ``pass``; with several
        entries these are the worst over all, and ``entries`` has them one by one.

    Raises:
        EdgevitError: The bundle is corrupt, or ``against`` is another model.
    """
    steps = progress or SilentProgress()
    with steps.step("open"):
        opened = job.reopen(Path(bundle), Path(against), inputs, target_file, trust)
    with steps.step("reference"):
        expected = [job.expect(o.plan, o.canonical, o.exact, o.data, True) for o in opened]
    with steps.step("verify"):
        parities = [
            job.verify(o.plan, o.canonical, o.exact, o.staged, o.data, e)
            for o, e in zip(opened, expected, strict=True)
        ]
    return describe.verification(parities, [o.staged.entry for o in opened])
