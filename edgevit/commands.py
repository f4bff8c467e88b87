"""What each command does: options in, a JSON result and a text out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit import registry
from edgevit.errors import UsageError
from edgevit.progress import choose

__all__ = ["Answer", "parse_shapes"]


@dataclass(frozen=True)
class Answer:
    """A command's outcome; ``ok=False`` is exit code 1."""

    result: dict[str, Any]
    text: str
    ok: bool = True


def parse_shapes(texts: Sequence[str]) -> list[dict[str, tuple[int, ...]]]:
    """Parse ``name=1,3,224,224`` options: one binding of the inputs for each entry.

    The k-th shape of every input belongs to the k-th entry; an input that is given once has
    that shape in all of them.

    Raises:
        UsageError: Not of that form, a dimension below 1, or inputs with different numbers
            of shapes, of which none is one.
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        numbers = dims.split(",")
        if not equals or not name or not all(_is_size(n.strip()) for n in numbers):
            raise UsageError(
                f"--shape {text!r}: expected name=D0,D1,... with positive integers",
                hint="for example --shape x=1,3,224,224",
            )
        found.setdefault(name, []).append(tuple(int(n) for n in numbers))
    counts = {name: len(shapes) for name, shapes in found.items() if len(shapes) > 1}
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{n} of {name!r}" for name, n in counts.items())
        raise UsageError(
            f"--shape: expected as many shapes of each input, found {given}",
            hint="the k-th shape of every input makes entry k; one shape serves all entries",
        )
    count = max(counts.values(), default=1)
    return [
        {name: shapes[k % len(shapes)] for name, shapes in found.items()} for k in range(count)
    ]


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _progress(options: argparse.Namespace) -> Any:
    return choose(options.quiet)


def compile_command(options: argparse.Namespace) -> Answer:
    """``edgevit compile``."""
    from edgevit import api
    from edgevit.report import text_of_compile

    given = {
        "target": options.target,
        "precision": options.precision,
        "passes": options.passes,
        "preprocess": options.preprocess,
        "shapes": parse_shapes(options.shape) if options.shape else None,
        "head": options.head,
        "io": options.io,
        "allow_fallback": options.allow_fallback or None,
        "bundle_version": options.bundle_version,
        "seed": options.seed,
    }
    bundle = api.compile(
        options.model,
        **{k: v for k, v in given.items() if v is not None},
        output=options.output,
        target_file=options.target_file,
        recipe=options.recipe,
        calibration=options.calib,
        inputs=options.inputs,
        selfcheck_input=options.selfcheck_input,
        verify_each=options.verify_each,
        verify=not options.no_verify,
        keep_failed=options.keep_failed,
        dry_run=options.dry_run,
        save_recipe=options.save_recipe,
        tune=options.tune,
        tuning=options.tuning,
        overwrite=options.overwrite,
        progress=_progress(options),
    )
    return Answer(bundle.result, text_of_compile(bundle.result, options.verbose))


def inspect_command(options: argparse.Namespace) -> Answer:
    """``edgevit inspect``."""
    from edgevit.inspection import inspect, text_of_inspection

    several = parse_shapes(options.shape)
    found = [
        inspect(Path(options.model), shapes, options.target, primitives=options.primitives)
        for shapes in several
    ]
    result = found[0].to_json()
    texts: list[str] = []
    if len(found) > 1:
        result["entries"] = [
            {"shapes": {n: list(d) for n, d in shapes.items()}, **one.to_json()}
            for shapes, one in zip(several, found, strict=True)
        ]
    for shapes, one in zip(several, found, strict=True):
        named = ", ".join(f"{n}={','.join(map(str, d))}" for n, d in shapes.items())
        head = f"entry {len(texts)}: {named}\n" if len(found) > 1 else ""
        texts.append(head + text_of_inspection(one, options.verbose))
    return Answer(result, "\n\n".join(texts), not any(one.unknown for one in found))


def verify_command(options: argparse.Namespace) -> Answer:
    """``edgevit verify``."""
    if options.against is None:
        load = registry.load_attribute("edgevit.runtimes.session:load")
        with load(options.bundle, trust=options.trust) as session:
            checked = session.self_check()
        text = f"hashes and self-check: {'pass' if checked.passed else 'FAIL'}"
        return Answer(checked.to_json(), text, checked.passed)
    from edgevit import api
    from edgevit.report import text_of_entries, text_of_parity

    found = api.verify(
        options.bundle,
        options.against,
        inputs=options.inputs,
        target_file=options.target_file,
        trust=options.trust,
        progress=_progress(options),
    )
    ok = bool(found["pass"])
    lines = [text_of_parity(found), *text_of_entries(found.get("entries", []))]
    return Answer(found, "\n".join([*lines, "PASS" if ok else "FAIL"]), ok)


def run_command(options: argparse.Namespace) -> Answer:
    """``edgevit run``."""
    run_bundle = registry.load_attribute("edgevit.runtimes.cli:run_bundle")
    result, text = run_bundle(
        Path(options.bundle),
        [Path(p) for p in options.input],
        Path(options.output) if options.output else None,
        threads=options.threads,
        trust=options.trust,
    )
    return Answer(result, text)


def bench_command(options: argparse.Namespace) -> Answer:
    """``edgevit bench``."""
    from edgevit.bench import bench
    from edgevit.bench_subjects import subjects_of
    from edgevit.report import text_of_bench

    against = tuple(filter(None, (options.against or "").split(",")))
    several = parse_shapes(options.shape)
    with subjects_of(options.subjects, against, several, trust=options.trust) as subjects:
        timings = bench(subjects, options.threads, options.runs)
    entries = [t.to_json() for t in timings]
    return Answer({"entries": entries}, text_of_bench(entries))


def report_command(options: argparse.Namespace) -> Answer:
    """``edgevit report``."""
    from edgevit.bundle import open_bundle
    from edgevit.report import text_of_manifest

    manifest = open_bundle(Path(options.bundle), failed=True).to_json()
    if options.html is None and options.overwrite:
        raise UsageError("--overwrite has nothing to replace", hint="it goes with --html FILE")
    if options.html is None:
        return Answer({"manifest": manifest}, text_of_manifest(manifest))
    from edgevit.html import write_page

    write_page(Path(options.bundle), Path(options.html), overwrite=options.overwrite)
    return Answer({"manifest": manifest, "html": options.html}, f"{options.html} written")


def simulate_command(options: argparse.Namespace) -> Answer:
    """``edgevit simulate``."""
    from edgevit.simtext import text_of_simulation
    from edgevit.simulate import Pictures, Study, simulate
    from edgevit.studies import parse_axes

    if (options.layer is None) != (options.pictures is None):
        raise UsageError("--layer and --pictures go together", hint="give both")
    if options.against is not None and options.reference_ms is not None:
        raise UsageError(
            "--against measures the digital latency, --reference-ms gives it",
            hint="leave one out",
        )
    pictures = None
    if options.layer is not None:
        pictures = Pictures(options.layer, options.frame, Path(options.pictures))
    study = Study(
        data=None if options.data is None else Path(options.data),
        count=options.samples,
        base=_single(parse_axes(options.device)),
        curves=parse_axes(options.curve),
        path=options.path,
        setup=options.setup,
        reference_ms=options.reference_ms,
        against=None if options.against is None else Path(options.against),
        pictures=pictures,
        seed=options.seed,
    )
    found = simulate(Path(options.bundle), study, _progress(options))
    return Answer(found, text_of_simulation(found))


def _single(device: Mapping[str, Sequence[str]]) -> dict[str, str]:
    for key, values in device.items():
        if len(values) > 1:
            raise UsageError(
                f"--device {key}: expected one value, found {len(values)}",
                hint=f"vary it with --curve {key}={','.join(values)}",
            )
    return {key: values[0] for key, values in device.items()}


def sweep_command(options: argparse.Namespace) -> Answer:
    """``edgevit sweep``."""
    from edgevit.studies import parse_axes
    from edgevit.sweep import Sweep, sweep, text_of_sweep

    if options.workers < 1:
        raise UsageError(f"--workers: expected at least 1, found {options.workers}")
    what = Sweep(
        subject=Path(options.subject),
        axes=parse_axes(options.grid),
        output=Path(options.output),
        data=None if options.data is None else Path(options.data),
        count=options.samples,
        workers=options.workers,
        scheduler=options.scheduler,
        seed=options.seed,
        setups=tuple(options.setup.split(",")) if options.setup else (),
    )
    found = sweep(what, _progress(options))
    return Answer(found, text_of_sweep(found))


def targets_command(options: argparse.Namespace) -> Answer:
    """``edgevit targets``."""
    from edgevit.report import table
    from edgevit.target import load_target

    rows: list[dict[str, Any]] = []
    for name, owner in registry.names("targets").items():
        target = load_target(name)
        rows.append(
            {
                "name": name,
                "title": target.title,
                "backend": target.backend,
                "engine": target.engine,
                "precisions": list(target.precisions),
                "default_precision": target.default_precision,
                "overrides": {k: list(v) for k, v in target.overridable.items()},
                "owner": owner,
            }
        )
    text = table(
        ("target", "backend", "precisions", "what"),
        [(r["name"], r["backend"], ",".join(r["precisions"]), r["title"]) for r in rows],
    )
    return Answer({"targets": rows}, text)


def passes_command(options: argparse.Namespace) -> Answer:
    """``edgevit passes``."""
    import dataclasses

    from edgevit.report import table

    rows = []
    for name, owner in registry.names("passes").items():
        cls = registry.load("passes", name)
        fields = [
            {"name": f.name.replace("_", "-"), "type": str(f.type), "default": str(f.default)}
            for f in dataclasses.fields(cls)
        ]
        doc = (cls.__doc__ or "").strip().splitlines()[0]
        effect = cls.effect.value
        rows.append(
            {"name": name, "effect": effect, "options": fields, "what": doc, "owner": owner}
        )
    text = table(
        ("pass", "effect", "what"), [(r["name"], r["effect"], r["what"]) for r in rows]
    )
    return Answer({"passes": rows}, text)


def doctor_command(options: argparse.Namespace) -> Answer:
    """``edgevit doctor``."""
    from edgevit.doctor import diagnose
    from edgevit.report import table

    rows = diagnose()
    text = table(
        ("backend", "can lower", "can run", "version", "reason"),
        [
            (
                r["name"],
                "yes" if r["can_lower"] else "no",
                "yes" if r["can_run"] else "no",
                r["version"],
                r["reason"],
            )
            for r in rows
        ],
    )
    return Answer({"backends": rows, "python": sys.version.split()[0]}, text)
