"""Verification: run the staged artifact, compare it with the source, find what differs.

Two questions. Does the whole network agree within its gate? And does each operator, replayed
by the shipped artifact on the *reference's* inputs, stay within its derived tolerance? The
second finds the first source node at fault, and small faults that the first would miss.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit import registry
from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Entry, Part
from edgevit.errors import GateError
from edgevit.model import constant
from edgevit.parity import Figure, Gate, Metrics, compare, judge, top1, worst_of
from edgevit.reference import Arrays, run_reference
from edgevit.target import load_target
from edgevit.tolerance import bounds, roundoff

__all__ = [
    "Divergence",
    "Expected",
    "LoweredPart",
    "Parity",
    "PsnrDrop",
    "Subject",
    "expect",
    "verify_parts",
]

WORST = 5
# Source values whose peak is below this are dead (denormals, zeros): nothing to compare.
ALIVE = 1e-30
Runner = Callable[[Path, Entry, Sequence[Mapping[str, Any]]], Sequence[Arrays]]


@dataclass(frozen=True)
class LoweredPart:
    """A lowered part, the backend that made it, and its region of the canonical graph."""

    backend: str
    lowered: Lowered


@dataclass(frozen=True)
class Subject:
    """What is verified against what.

    Attributes:
        source: Serialized source model, as the user gave it.
        canonical: Canonical model that was lowered.
        parts: Lowered parts in execution order.
        entry: The bundle's entry that runs them.
        root: Directory that holds the staged files.
        precision: Decides the roundoffs of the replay.
        gates: Whole-network gates.
        run: Runs an entry in a child process.
    """

    source: bytes
    canonical: ir.Model
    parts: tuple[LoweredPart, ...]
    entry: Entry
    root: Path
    precision: str
    gates: tuple[Gate, ...]
    run: Runner


@dataclass(frozen=True)
class Expected:
    """What the source model computes.

    Attributes:
        outputs: For each sample, output name -> array.
        values: For the first sample, every value of the canonical graph by name: as the
            source computes it where the source has it, else as the canonical graph computes
            it from those.
        rewritten: The values that the source has, as the canonical graph computes each from
            the source's own ones: what proves the rewrites.
        version: ONNX Runtime's version.
    """

    outputs: tuple[Arrays, ...]
    values: Arrays
    rewritten: Arrays
    version: str


@dataclass(frozen=True)
class Divergence:
    """A replayed value: the source node that makes it, the error, the limit.

    Attributes:
        node: Name of the source node.
        op: Canonical operator.
        value: Value name.
        error: Largest absolute error.
        limit: Derived bound on it.
        group: Canonical values that the artifact computes together, ending with ``value``;
            more than one where operators were fused.
    """

    node: str
    op: str
    value: str
    error: float
    limit: float
    group: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Error over limit; above 1 fails."""
        return self.error / self.limit if self.limit > 0 else float("inf")

    def to_json(self) -> dict[str, Any]:
        """Plain values, three significant digits."""
        return {
            "node": self.node,
            "op": self.op,
            "value": self.value,
            "group": list(self.group),
            "error": _short(self.error),
            "limit": _short(self.limit),
        }


@dataclass(frozen=True)
class PsnrDrop:
    """Where accumulated error first falls below the gate, or is lowest if it never does."""

    node: str
    op: str
    value: str
    psnr_db: float
    below_gate: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "node": self.node,
            "op": self.op,
            "value": self.value,
            "psnr_db": _short(self.psnr_db),
            "below_gate": self.below_gate,
        }


@dataclass(frozen=True)
class Parity:
    """The outcome of verification."""

    figures: tuple[Figure, ...]
    outputs: Mapping[str, Metrics]
    top1_agreement: float | None
    replayed: int
    worst: tuple[Divergence, ...]
    first_divergent: Divergence | None
    psnr_drop: PsnrDrop | None
    samples: int
    synthetic: bool
    reference: str

    @property
    def passed(self) -> bool:
        """All whole-network gates kept and no replayed value past its tolerance."""
        return all(f.passed for f in self.figures) and self.first_divergent is None


def _short(value: float) -> float:
    return float(f"{value:.3g}") if np.isfinite(value) else float(np.finfo(np.float64).max)


def expect(
    source: bytes, canonical: ir.Model, samples: Sequence[Arrays], trace: bool
) -> Expected:
    """Run the source model (and, to trace, the canonical one) in ONNX Runtime.

    Args:
        source: Serialized source model.
        canonical: The model that is lowered.
        samples: Input name -> array, at least one.
        trace: Whether ``values`` is wanted.

    Raises:
        InputError: The source model does not run.
    """
    reference = run_reference(source, samples, trace=1 if trace else 0)
    if not trace:
        return Expected(reference.outputs, {}, {}, reference.version)
    values, rewritten = _canonical_values(canonical, reference.traces[0], samples[0])
    return Expected(reference.outputs, values, rewritten, reference.version)


def _canonical_values(
    canonical: ir.Model, trace: Arrays, sample: Arrays
) -> tuple[Arrays, Arrays]:
    """Cut the canonical graph at every value of the source, and run it on those values.

    Returns:
        Every canonical value, and the source's values recomputed.
    """
    backend = registry.load("backends", "onnx")()
    whole = backend.lower(canonical, load_target("onnx"), LowerOptions("fp32", "source", "m"))
    known = {}
    for b in whole.values:
        if b.name in trace and trace[b.name].size == np.prod(b.shape, dtype=np.int64):
            known[b.name] = trace[b.name].reshape(b.shape)
    shared = tuple(b for b in whole.values if b.name in known)
    cut = backend.replay(replace(whole, values=shared))
    feeds = {b.artifact: {**known, **sample}[b.name] for b in cut.part.inputs}
    computed = run_reference(cut.files[cut.part.artifact], [feeds], trace=1).traces[0]
    rewritten = {b.name: computed[b.artifact] for b in cut.values}
    return {**computed, **sample, **known}, rewritten


def verify_parts(
    subject: Subject, samples: Sequence[Arrays], expected: Expected, synthetic: bool
) -> Parity:
    """Verify lowered parts on samples.

    Args:
        subject: What is verified.
        samples: Input name -> array, at least one; the first is replayed node by node.
        expected: Of these samples, with values.
        synthetic: The samples were made up.

    Raises:
        GateError: The artifact does not run, or the source's outputs are dead.
    """
    _check_alive(expected.outputs)
    candidate = subject.run(subject.root, subject.entry, samples)
    metrics = _whole(expected.outputs, candidate)
    figures = tuple(worst_of(metrics, gate)[1] for gate in subject.gates)
    found = [*_rewrites(subject, expected), *_replay(subject, expected.values)]
    past = [d for d in found if d.ratio > 1]
    return Parity(
        figures=figures,
        outputs=metrics,
        top1_agreement=None if synthetic else _agreement(expected.outputs, candidate),
        replayed=len(found) - len(expected.rewritten),
        worst=tuple(sorted(found, key=lambda d: -d.ratio)[:WORST]),
        first_divergent=past[0] if past else None,
        psnr_drop=_first_drop(subject, samples[0], expected.values),
        samples=len(samples),
        synthetic=synthetic,
        reference=expected.version,
    )


def _check_alive(outputs: Sequence[Arrays]) -> None:
    for name in outputs[0]:
        arrays = [o[name] for o in outputs]
        if not any(np.any(a[np.isfinite(a)]) for a in arrays if a.dtype.kind == "f"):
            if arrays[0].dtype.kind != "f":
                continue
            raise GateError(
                f"output {name!r} of the source model is zero on every sample",
                hint="the model has dead weights; parity would be vacuous. Use real weights "
                "or real --inputs",
            )
        peak = max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays)
        if arrays[0].dtype.kind == "f" and peak < ALIVE:
            raise GateError(f"output {name!r} of the source model is denormal: peak {peak:.1e}")


def _whole(reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> dict[str, Metrics]:
    return {
        name: compare(
            np.stack([r[name] for r in reference]),
            np.stack([c[name].reshape(r[name].shape) for r, c in zip(
                reference, candidate, strict=True)]),
        )
        for name in reference[0]
    }


def _agreement(reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> float | None:
    """Arg-max agreement of the first output that looks like class scores."""
    for name, array in reference[0].items():
        if array.dtype.kind == "f" and array.ndim >= 2 and array.shape[-1] > 1:
            pairs = zip(reference, candidate, strict=True)
            return float(np.mean([top1(r[name], c[name]) for r, c in pairs]))
    return None


def _rewrites(subject: Subject, expected: Expected) -> list[Divergence]:
    """What the rewrites made of each source value, on the source's own inputs to it."""
    cut = frozenset(expected.rewritten)
    limits = bounds(subject.canonical, expected.values, cut, roundoff("fp32"))
    origin = _Origin(subject)
    return [
        _divergence(origin, name, expected.values[name], array, limits[name], cut)
        for name, array in expected.rewritten.items()
    ]


def _divergence(
    origin: _Origin,
    name: str,
    reference: np.ndarray[Any, Any],
    found: np.ndarray[Any, Any],
    limit: float,
    cut: frozenset[str],
) -> Divergence:
    node, op = origin.of(name)
    error = _largest_error(reference, found)
    return Divergence(node, op, name, error, limit, origin.group(name, cut))


def _replay(subject: Subject, values: Arrays) -> list[Divergence]:
    """Replay every part on the reference's inputs; in execution order."""
    found: list[Divergence] = []
    origin = _Origin(subject)
    for part in subject.parts:
        cut = frozenset(b.name for b in part.lowered.values)
        unit = roundoff(subject.precision)
        known = _narrowed(subject, values, cut) if unit.storage > unit.compute else values
        limits = bounds(subject.canonical, known, cut, unit)
        backend = registry.load("backends", part.backend)()
        replayed = _run_variant(subject, backend.replay(part.lowered), values)
        for name in (b.name for b in part.lowered.values):
            found.append(
                _divergence(origin, name, known[name], replayed[name], limits[name], cut)
            )
    return found


def _narrowed(subject: Subject, values: Arrays, cut: frozenset[str]) -> Arrays:
    """The reference of a float16 replay: feeds and weights rounded, then float32 throughout.

    What remains between it and the artifact is what the artifact's own arithmetic adds, so
    the tolerance need not hide faults behind the rounding of weights.
    """
    rounded = subject.canonical.clone()
    for value in rounded.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype == np.float32:
            value.const_value = ir.tensor(_round16(array), name=value.name)
    feeds = {n: _round16(a) if a.dtype == np.float32 else a for n, a in values.items()}
    backend = registry.load("backends", "onnx")()
    whole = backend.lower(rounded, load_target("onnx"), LowerOptions("fp32", "source", "m"))
    shared = tuple(b for b in whole.values if b.name in cut)
    variant = backend.replay(replace(whole, values=shared))
    fed = {b.artifact: feeds[b.name] for b in variant.part.inputs}
    computed = run_reference(variant.files[variant.part.artifact], [fed], trace=1).traces[0]
    return {**feeds, **computed, **{b.name: computed[b.artifact] for b in variant.values}}


def _round16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    largest = float(np.finfo(np.float16).max)
    clipped = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return clipped.astype(np.float16).astype(np.float32)


def _run_variant(subject: Subject, variant: Lowered, values: Arrays) -> Arrays:
    """Run an edited artifact (cut or exposed) in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="edgevit-replay-") as name:
        root = Path(name)
        for path, content in variant.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        part: Part = variant.part
        feeds = {b.name: values[b.name].reshape(b.shape) for b in part.inputs}
        return subject.run(root, Entry.of_part(part), [feeds])[0]


def _largest_error(reference: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    r = reference.astype(np.float64)
    y = found.reshape(reference.shape).astype(np.float64)
    finite = np.isfinite(r)
    if not np.array_equal(r[~finite], y[~finite], equal_nan=True) or not np.all(
        np.isfinite(y[finite])
    ):
        return float("inf")
    return float(np.max(np.abs(y[finite] - r[finite]), initial=0.0))


class _Origin:
    """Which source node makes a value: its own producer, or the canonical one."""

    def __init__(self, subject: Subject) -> None:
        import onnx

        source = onnx.load_model_from_string(subject.source)
        self._source = {
            out: (node.name or f"{node.op_type}:{out}", node.op_type)
            for node in source.graph.node
            for out in node.output
        }
        self._canonical = {
            str(out.name): node for node in subject.canonical.graph for out in node.outputs
        }

    def of(self, value: str) -> tuple[str, str]:
        """(source node name, operator); follows canonical values to the next source one."""
        seen = value
        while seen not in self._source:
            node = self._canonical[seen]
            following = [u.node for out in node.outputs for u in out.uses()]
            if not following:
                return str(node.name or seen), node.op_type
            seen = str(following[0].outputs[0].name)
        name, op = self._source[seen]
        made = self._canonical.get(value)
        return name, made.op_type if made is not None else op


    def group(self, value: str, cut: frozenset[str]) -> tuple[str, ...]:
        """The canonical values computed between the cut values and ``value``, in order."""
        found: list[str] = []
        pending = [value]
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.append(name)
            before = (v for v in self._canonical[name].inputs if v is not None)
            names = (str(v.name) for v in before)
            pending += [n for n in names if n in self._canonical and n not in cut]
        return tuple(reversed(found))


def _first_drop(subject: Subject, sample: Arrays, values: Arrays) -> PsnrDrop | None:
    """For a PSNR gate: the first exposed value whose accumulated PSNR is below it."""
    limits = [g.limit for g in subject.gates if g.metric == "psnr_db"]
    if not limits or len(subject.parts) != 1:
        return None
    part = subject.parts[0]
    backend = registry.load("backends", part.backend)()
    exposed = _run_variant(subject, backend.expose(part.lowered), {**values, **sample})
    origin = _Origin(subject)
    lowest: PsnrDrop | None = None
    for binding in part.lowered.values:
        if values[binding.name].dtype.kind != "f":
            continue
        r = values[binding.name]
        m = compare(r, exposed[binding.name].reshape(r.shape))
        figure = judge(m, Gate("psnr_db", limits[0]))
        if figure.value is None:
            continue
        node, op = origin.of(binding.name)
        drop = PsnrDrop(node, op, binding.name, figure.value, not figure.passed)
        if drop.below_gate:
            return drop
        if lowest is None or drop.psnr_db < lowest.psnr_db:
            lowest = drop
    return lowest
