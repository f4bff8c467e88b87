"""Per-node replay: the shipped bytes, cut at every shared value, on the reference's inputs.

A small fault cannot hide behind what a deep network accumulates, and the first value past its
derived tolerance names the source node at fault.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit import registry
from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.bundle import Entry, Part
from edgevit.model import constant
from edgevit.reference import Arrays, run_reference
from edgevit.roundoff import roundoff
from edgevit.subject import Expected, Subject
from edgevit.target import load_target
from edgevit.tolerance import bounds

__all__ = [
    "Divergence",
    "Origin",
    "replay",
    "rewrites",
    "run_exposed",
    "run_variant",
    "settled",
    "short",
]


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
        """Error over limit; above 1 fails. Without an error there is nothing to fail."""
        if self.error == 0:
            return 0.0
        return self.error / self.limit if self.limit > 0 else float("inf")

    def to_json(self) -> dict[str, Any]:
        """Plain values, three significant digits."""
        return {
            "node": self.node,
            "op": self.op,
            "value": self.value,
            "group": list(self.group),
            "error": short(self.error),
            "limit": short(self.limit),
        }


def short(value: float) -> float:
    """Three significant digits; infinity becomes the largest float, as JSON has none."""
    return float(f"{value:.3g}") if np.isfinite(value) else float(np.finfo(np.float64).max)


def rewrites(subject: Subject, expected: Expected) -> list[Divergence]:
    """What the rewrites made of each source value, on the source's own inputs to it.

    Of a graph that rounds, those are the rewrites before the first pass that does.
    """
    if subject.exact is not None and expected.exact is not None:
        subject = replace(subject, canonical=subject.exact, exact=None)
        return rewrites(subject, expected.exact)
    cut = frozenset(expected.rewritten)
    limits = bounds(subject.canonical, expected.values, cut, roundoff("float32"))
    origin = Origin(subject)
    return [
        _divergence(origin, name, expected.values[name], array, limits[name], cut)
        for name, array in expected.rewritten.items()
    ]


def _divergence(
    origin: Origin,
    name: str,
    reference: np.ndarray[Any, Any],
    found: np.ndarray[Any, Any],
    limit: float,
    cut: frozenset[str],
) -> Divergence:
    node, op = origin.of(name)
    error = _largest_error(reference, found)
    return Divergence(node, op, name, error, limit, origin.group(name, cut))


def settled(
    cut: frozenset[str], rewritten: frozenset[str], arithmetic: Arithmetic
) -> frozenset[str]:
    """The cut values whose reference is exact for what follows: those carry no error on.

    In float32 the reference of a value that the source has is the source's own, while that
    of a value between two such (a product that took in the factor behind it) is computed by
    the rewritten graph, and differs from what the source went through by a rounding of its
    own. A narrow reference comes from the rewritten graph throughout.

    Args:
        cut: Values that the replay is fed.
        rewritten: Values that the source has.
        arithmetic: Of the artifact.
    """
    return cut & rewritten if arithmetic == Arithmetic() else cut


def replay(subject: Subject, expected: Expected) -> list[Divergence]:
    """Replay every part on the reference's inputs; in execution order."""
    found: list[Divergence] = []
    values, rewritten = expected.values, frozenset(expected.rewritten)
    origin = Origin(subject)
    for part in subject.parts:
        if not part.lowered.values:
            continue  # nothing that the artifact shares with the source but its outputs
        cut = frozenset(b.name for b in part.lowered.values)
        backend = registry.load("backends", part.backend)()
        arithmetic = backend.arithmetic(subject.precision)
        known, fed = _narrowed(subject, values, cut, arithmetic)
        exact = cut if subject.exact is not None else settled(cut, rewritten, arithmetic)
        unit = roundoff(arithmetic.tensors, dynamic=arithmetic.dynamic)
        limits = bounds(subject.canonical, known, exact, unit, fed)
        replayed = run_variant(subject, backend.replay(part.lowered), values)
        for name in (b.name for b in part.lowered.values):
            found.append(
                _divergence(origin, name, known[name], replayed[name], limits[name], cut)
            )
    return found


def _narrowed(
    subject: Subject, values: Arrays, cut: frozenset[str], arithmetic: Arithmetic
) -> tuple[Arrays, Arrays]:
    """The reference of a narrow or quantized replay: what is stored narrow rounded.

    What remains between it and the artifact is what the artifact's own arithmetic adds, so
    the tolerance need not hide faults behind the rounding of weights.

    Returns:
        Every value as it is computed, and the cut ones as their readers are fed them.
    """
    if arithmetic == Arithmetic() and subject.exact is None:
        return values, {}
    rounded = subject.canonical.clone()
    for value in rounded.graph.initializers.values():
        array = constant(value)
        if array is None or array.dtype != np.float32:
            continue
        if array.size >= arithmetic.narrow_from:
            narrow = _stored(array, arithmetic.weights)
            value.const_value = ir.tensor(narrow, name=value.name)
    feeds = {n: _stored(a, arithmetic.tensors) for n, a in values.items()}
    backend = registry.load("backends", "onnx")()
    whole = backend.lower(rounded, load_target("onnx"), LowerOptions("fp32", "source", "m"))
    shared = tuple(b for b in whole.values if b.name in cut)
    variant = backend.replay(replace(whole, values=shared))
    fed = {b.artifact: feeds[b.name] for b in variant.part.inputs}
    computed = run_reference(
        variant.files[variant.part.artifact], [fed], trace=1, what="canonical"
    ).traces[0]
    made = {b.name: computed[b.artifact] for b in variant.values}
    return {**feeds, **computed, **made}, {b.name: feeds[b.name] for b in shared}


def _stored(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """A float32 array as ``dtype`` keeps it; finite values saturate."""
    if array.dtype != np.float32 or dtype == "float32":
        return array
    largest = float(np.finfo(dtype).max)
    clipped = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return clipped.astype(dtype).astype(np.float32)


def run_variant(subject: Subject, variant: Lowered, values: Arrays) -> Arrays:
    """Run an edited artifact (cut or exposed) in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="edgevit-replay-") as name:
        root = Path(name)
        for path, content in variant.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        part: Part = variant.part
        feeds = {b.name: values[b.name].reshape(b.shape) for b in part.inputs}
        return subject.run(root, Entry.of_part(part), [feeds])[0]


def run_exposed(subject: Subject, sample: Arrays, values: Arrays) -> Arrays:
    """Every mapped value of an artifact of one part that runs by itself.

    Args:
        subject: What is verified; of one part.
        sample: Input name -> array.
        values: The reference's value of every canonical node, for that sample.
    """
    (part,) = subject.parts
    backend = registry.load("backends", part.backend)()
    return run_variant(subject, backend.expose(part.lowered), {**values, **sample})


def _largest_error(reference: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    r = reference.astype(np.float64)
    y = found.reshape(reference.shape).astype(np.float64)
    finite = np.isfinite(r)
    if not np.array_equal(r[~finite], y[~finite], equal_nan=True) or not np.all(
        np.isfinite(y[finite])
    ):
        return float("inf")
    return float(np.max(np.abs(y[finite] - r[finite]), initial=0.0))


class Origin:
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
