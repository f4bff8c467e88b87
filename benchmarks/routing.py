"""Which tokens should be multiplied: the fitted router next to random routing and norms.

    python -m benchmarks.routing [NAME ...]      measure, into build/routing/NAME.json
    python -m benchmarks.routing --table         the tables of what was measured
    python -m benchmarks.routing --picture FILE  share-error curves

Every perceptron (pvt_v2_b0: every linear layer, as a convolution parts its perceptrons)
becomes a mixture of its own weights and of one power of two a weight. Routers are fitted on 64
training images and judged on test images, the same ones for all. Two errors, squared:

    sites    what remains at the sites' outputs, as a share of all tokens shifting, on the
             float network's own activations: mean over sites
    logits   of the network's answer with all sites routed at once, over that of all
             tokens shifting

Differences to the fitted router are paired by image; intervals are of 2,000 resamplings of
images. The random router is one permutation of the positions for each site.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.plot import Axis, Curve, Panel, draw_panels
from benchmarks.quantization.cases import CALIBRATION, Case, choose
from edgevit.edits import MixExperts
from edgevit.loading import load
from edgevit.passes.fit_router import fit
from edgevit.passes.mixture_experts import Shifted, errors
from edgevit.passes.mixture_sites import Site, sites
from edgevit.passes.moe import Moe, tokens_of
from edgevit.passes.order import canonicalize
from edgevit.pipeline import Context
from edgevit.reference_stream import run_stream
from edgevit.statistics import stream

Array = np.ndarray[Any, Any]
SHARES = (0.2, 0.4, 0.6)
ROUTERS = ("fitted", "norm", "random", "class-attention")
CLASS_TOKENS = ("fashion_vit", "deit_tiny_patch16_224", "vit_s_probe")
MODELS = (
    "fashion_vit",
    "fashion_hybrid",
    "mobilevit_xxs",
    "deit_tiny_patch16_224",
    "pvt_v2_b0",
    "vit_s_probe",
)
TESTS = {
    "fashion_vit": 500,
    "fashion_hybrid": 500,
    "deit_tiny_patch16_224": 100,
    "mobilevit_xxs": 100,
}
OUT = Path("build/routing")
RESAMPLINGS = 2000


@dataclass(frozen=True)
class Subject:
    """A canonical model with its sites and what they see on training images.

    Attributes:
        case: Which model.
        model: Canonical.
        sites: What becomes mixtures.
        tokens: Of each site on training images, and the image of each.
        base: A mixture for each site, whose router and capacity are put in later.
        errors: Of its shift expert, squared, at each of the tokens.
    """

    case: Case
    model: ir.Model
    sites: tuple[Site, ...]
    tokens: list[tuple[Array, Array]]
    base: list[MixExperts]
    errors: list[Array]

    def plan(self, router: str, share: float) -> tuple[MixExperts, ...]:
        """The mixtures of all sites."""
        rng = np.random.default_rng(0)
        made = []
        for site, (x, of), edit, error in zip(
            self.sites, self.tokens, self.base, self.errors, strict=True
        ):
            linear: Array | None = None
            square: Array | None = None
            if router == "fitted":
                found = fit(x, error, of, share)
                linear, square = found.linear, found.square
            if router == "random":
                linear = rng.permutation(site.tokens).astype(np.float32)
            count = round(site.tokens * share)
            given = {"router": router, "linear": linear, "square": square}
            made.append(replace(edit, capacity=count, **given))  # type: ignore[arg-type]
        return tuple(made)


def kind_of(case: Case) -> str:
    """What is a site of a model."""
    return "linear" if case.name == "pvt_v2_b0" else "mlp"


@dataclass(frozen=True)
class Images:
    """Images of a case as samples of its input, made as they are asked for."""

    case: Case
    split: str
    count: int
    input: str
    name: str = "images"
    synthetic: bool = False

    def digest(self) -> str:
        """Which they are."""
        return f"{self.case.name} {self.split} {self.count}"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for image in self.case.images(self.split, self.count):
            yield {self.input: image}


def subject_of(case: Case) -> Subject:
    """Load, canonicalize, and look at training images."""
    source = load(case.find(), dict(case.shapes))
    model = source.model
    canonicalize(model)
    name = str(model.graph.inputs[0].name)
    found = tuple(s for s in sites(model, kind_of(case)) if s.tokens > 1)
    context = Context(Images(case, "train", CALIBRATION, name), None, "fp32")
    seen = tokens_of(model, found, context, "moe", CALIBRATION)
    options, rng = Moe(sites=kind_of(case), router="norm"), np.random.default_rng(0)
    base = [
        options.mixed(site, *tokens, rng) for site, tokens in zip(found, seen, strict=True)
    ]
    off = [
        errors(site, tuple(layer.dense() for layer in layers_of(edit)), x)
        for site, edit, (x, _) in zip(found, base, seen, strict=True)
    ]
    return Subject(case, model, found, seen, base, off)


def scored(edit: MixExperts, x: Array) -> Array:
    """What a router says of tokens, ``[t]``."""
    if edit.router == "norm":
        return np.asarray(np.linalg.norm(x, axis=1))
    if edit.router == "random" or edit.linear is None:
        return np.asarray(edit.linear)
    found = x @ edit.linear
    return np.asarray(found if edit.square is None else found + np.square(x) @ edit.square)


def at_sites(subject: Subject, data: Images, plans: dict[Any, Any]) -> dict[Any, Array]:
    """For each plan and image: what remains at the sites, mean over sites, ``[images]``."""
    names = [str(site.x.name) for site in subject.sites]
    rows: dict[Any, list[float]] = {key: [] for key in plans}
    experts = [
        tuple(shift.dense() for shift in layers_of(edit))
        for edit in next(iter(plans.values()))
    ]
    for sample in stream(subject.model, data, names, threads=1):
        left: dict[Any, list[float]] = {key: [] for key in plans}
        for i, site in enumerate(subject.sites):
            x = sample[names[i]].reshape(site.tokens, -1)
            error = errors(site, experts[i], x)
            for key, edits in plans.items():
                order = np.argsort(-scored(edits[i], x), kind="stable")
                part = error[order[: edits[i].capacity]].sum() / error.sum()
                left[key].append(1 - float(part))
        for key, parts in left.items():
            rows[key].append(float(np.mean(parts)))
    return {key: np.array(values) for key, values in rows.items()}


def layers_of(edit: MixExperts) -> tuple[Shifted, ...]:
    """The shift expert of an edit."""
    first = Shifted(edit.q, edit.scale, edit.bias)
    if edit.q2 is None or edit.scale2 is None or edit.bias2 is None:
        return (first,)
    return first, Shifted(edit.q2, edit.scale2, edit.bias2)


def logits(model: ir.Model, data: Images) -> Array:
    """Answers ``[images, classes]``."""
    content = ir.to_proto(model).SerializeToString()
    found = run_stream(content, data, threads=1)
    return np.concatenate([next(iter(one.values())).reshape(1, -1) for one in found])


def routed(subject: Subject, edits: Sequence[MixExperts]) -> ir.Model:
    """The model with its mixtures."""
    model = subject.model.clone()
    Moe(sites=kind_of(subject.case)).perform(model, edits)
    return model


def measure(case: Case) -> dict[str, Any]:
    """All routers and shares of one model."""
    start = time.perf_counter()
    subject = subject_of(case)
    count = TESTS.get(case.name, 60)
    name = str(subject.model.graph.inputs[0].name)
    data = Images(case, "test", count, name)
    labels = np.array(case.labels(count))
    plain = ROUTERS[:3]
    plans = {(r, share): subject.plan(r, share) for r in plain for share in SHARES}
    left = at_sites(subject, data, plans)
    reference = logits(subject.model, data)
    every = [replace(e, capacity=0) for e in plans["random", SHARES[0]]]
    worst = logits(routed(subject, every), data)
    scale = float(np.square(worst - reference).sum(1).mean())
    if case.name in CLASS_TOKENS:
        plans |= {(ROUTERS[3], s): subject.plan(ROUTERS[3], s) for s in SHARES}
    rows = []
    for (router, share), edits in plans.items():
        found = logits(routed(subject, edits), data)
        row = {
            "router": router,
            "share": share,
            "sites": left.get((router, share), np.array([])).tolist(),
            "logits": (np.square(found - reference).sum(1) / scale).tolist(),
            "agreement": float((found.argmax(1) == reference.argmax(1)).mean()),
            "accuracy": float((found.argmax(1) == labels).mean()),
        }
        rows.append(row)
    return {
        "model": case.name,
        "sites": len(subject.sites),
        "images": count,
        "float_accuracy": float((reference.argmax(1) == labels).mean()),
        "all_shift_accuracy": float((worst.argmax(1) == labels).mean()),
        "all_shift_error": scale / float(np.square(reference).sum(1).mean()),
        "rows": rows,
        "seconds": round(time.perf_counter() - start),
    }


def interval(values: Array) -> tuple[float, float, float]:
    """Mean over images and the middle 95 % of resampled means."""
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(values), (RESAMPLINGS, len(values)))
    low, high = np.percentile(values[picked].mean(1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def shown(values: Array) -> str:
    """``mean [low, high]``."""
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def table(results: Sequence[dict[str, Any]]) -> None:
    """Differences to the fitted router, then accuracies."""
    print(
        "| model | share | fitted | random - fitted | norm - fitted | logits: fitted |", end=""
    )
    print(" random - fitted | norm - fitted |\n|---|---|---|---|---|---|---|---|")
    for result in results:
        rows = {(r["router"], r["share"]): r for r in result["rows"]}
        for share in SHARES:
            cells = []
            for metric in ("sites", "logits"):
                own = np.array(rows["fitted", share][metric])
                cells.append(shown(own))
                for other in ("random", "norm"):
                    cells.append(shown(np.array(rows[other, share][metric]) - own))
            print(f"| {result['model']} | {share:g} | {' | '.join(cells)} |")
    print("\n| model (images) | sites | float | all shift | share | ", end="")
    print(" | ".join(ROUTERS) + " |\n|---|---|---|---|---|---|---|---|---|")
    for result in results:
        rows = {(r["router"], r["share"]): r for r in result["rows"]}
        for share in SHARES:
            parts = [rows.get((r, share)) for r in ROUTERS]
            cells = ["-" if p is None else f"{p['accuracy']:.3f}" for p in parts]
            name = f"{result['model']} ({result['images']})"
            ends = f"{result['float_accuracy']:.3f} | {result['all_shift_accuracy']:.3f}"
            print(f"| {name} | {result['sites']} | {ends} | {share:g} | {' | '.join(cells)} |")


def picture(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """What remains at the sites against the share that is multiplied."""
    x = Axis("share of tokens on the multiplication expert", 0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1))
    y = Axis("error left at the sites", 0, 1, (0, 0.25, 0.5, 0.75, 1))
    panels = []
    for result in results:
        curves = []
        for router in ROUTERS[:3]:
            points = [(0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]
            for row in (r for r in result["rows"] if r["router"] == router):
                mean, low, high = interval(np.array(row["sites"]))
                points.append((row["share"], mean, (high - low) / 2))
            curves.append(Curve(router, tuple(sorted(points))))
        title = f"{result['model']}, n = {result['images']}"
        panels.append(Panel(title, x, y, tuple(curves)))
    draw_panels(path, panels)


def read(names: Sequence[str]) -> list[dict[str, Any]]:
    """What was measured, in the order of the models."""
    files = [OUT / f"{name}.json" for name in names]
    return [json.loads(f.read_text(encoding="utf-8")) for f in files if f.exists()]


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description="Routers of mixtures.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    names = options.names or MODELS
    if options.table:
        table(read(names))
    elif options.picture:
        picture(options.picture, read(names))
    else:
        OUT.mkdir(parents=True, exist_ok=True)
        for case in choose(list(names)):
            result = measure(case)
            content = json.dumps(result, indent=1) + "\n"
            (OUT / f"{case.name}.json").write_text(content, encoding="utf-8")
            print(f"{case.name}: {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
