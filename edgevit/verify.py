"""Verification: run the staged artifact, compare it with the source, find what differs.

Two questions. Does the whole network agree within its gate? And does each operator, replayed
by the shipped artifact on the *reference's* inputs, stay within its derived tolerance? The
second finds the first source node at fault, and small faults that the first would miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgevit.accumulation import Accumulation, accumulation, lowest
from edgevit.budget import AGREEMENT, judged
from edgevit.errors import GateError
from edgevit.parity import Figure, Gate, Metrics, compare, joined, top1, worst_of
from edgevit.reference import Arrays
from edgevit.replay import Divergence, replay, rewrites, run_exposed
from edgevit.routing import TokenSets, token_sets
from edgevit.subject import Expected, Subject

__all__ = ["Parity", "overall", "verify_parts", "whole"]

Named = Mapping[str, np.ndarray[Any, Any]]
WORST = 5
# Source outputs whose peak is below this are dead (denormals, zeros): nothing to compare.
ALIVE = 1e-30


@dataclass(frozen=True)
class Parity:
    """The outcome of verification; ``replays`` is in execution order."""

    figures: tuple[Figure, ...]
    outputs: Mapping[str, Metrics]
    top1_agreement: float | None
    replays: tuple[Divergence, ...]
    worst: tuple[Divergence, ...]
    first_divergent: Divergence | None
    accumulation: Accumulation | None
    samples: int
    synthetic: bool
    reference: str
    not_measured: tuple[str, ...] = ()
    selfcheck: Mapping[str, Metrics] | None = None
    routing: tuple[TokenSets, ...] = ()

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Replayed values without a derived tolerance: an operator has no rule for one."""
        return tuple(d.value for d in self.replays if d.limit == float("inf"))

    @property
    def passed(self) -> bool:
        """All whole-network gates kept and no replayed value past its tolerance."""
        return all(f.passed for f in self.figures) and self.first_divergent is None


# What a source or an artifact computes may hold infinities: figures to report, no warnings.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
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
    metrics = whole(expected.outputs, candidate)
    agreement = None if synthetic else _agreement(expected.outputs, candidate)
    measured, not_measured = judged(subject.gates, agreement is None)
    figures = tuple(_figure(metrics, agreement, gate) for gate in measured)
    replays = tuple(replay(subject, expected))
    found = [*rewrites(subject, expected), *replays]

    @cache
    def exposed() -> Arrays:
        return run_exposed(subject, samples[0], expected.values)

    past = [d for d in found if d.ratio > 1]
    return Parity(
        figures=figures,
        outputs=metrics,
        top1_agreement=agreement,
        replays=replays,
        worst=tuple(sorted(found, key=lambda d: -d.ratio)[:WORST]),
        first_divergent=past[0] if past else None,
        accumulation=accumulation(
            subject, samples[0], expected.values, expected.outputs[0], exposed
        ),
        samples=len(samples),
        synthetic=synthetic,
        reference=expected.version,
        not_measured=not_measured,
        routing=token_sets(subject, expected.values, exposed),
    )


def _figure(found: Mapping[str, Metrics], agreement: float | None, gate: Gate) -> Figure:
    """Judge one gate, over all outputs."""
    if gate.metric == AGREEMENT:
        value = float("nan") if agreement is None else agreement
        return Figure(gate.metric, agreement, gate.limit, passed=value >= gate.limit)
    return worst_of(found, gate)[1]


def overall(entries: Sequence[Parity]) -> Parity:
    """Parity over all entries of a bundle: of every figure the worst.

    The divergences of all entries are put together in the order of the entries; where
    accumulated error was followed, the entry in which it fell lowest stands for all.
    """
    if len(entries) == 1:
        return entries[0]
    gates = {f.metric: Gate(f.metric, f.limit) for e in entries for f in e.figures}
    every = {f"{i}:{n}": m for i, e in enumerate(entries) for n, m in e.outputs.items()}
    past = [e.first_divergent for e in entries if e.first_divergent is not None]
    agreements = [e.top1_agreement for e in entries if e.top1_agreement is not None]
    divergences = [d for e in entries for d in e.worst]
    return Parity(
        figures=tuple(
            _figure(every, min(agreements, default=None), g) for g in gates.values()
        ),
        outputs={n: joined([e.outputs[n] for e in entries]) for n in entries[0].outputs},
        top1_agreement=min(agreements, default=None),
        replays=tuple(d for e in entries for d in e.replays),
        worst=tuple(sorted(divergences, key=lambda d: -d.ratio)[:WORST]),
        first_divergent=past[0] if past else None,
        accumulation=lowest([e.accumulation for e in entries]),
        samples=sum(e.samples for e in entries),
        synthetic=any(e.synthetic for e in entries),
        reference=entries[0].reference,
        not_measured=tuple(dict.fromkeys(m for e in entries for m in e.not_measured)),
        routing=tuple(sets for e in entries for sets in e.routing),
    )


def _check_alive(outputs: Sequence[Arrays]) -> None:
    for name in outputs[0]:
        arrays = [o[name] for o in outputs]
        if arrays[0].dtype.kind != "f":
            continue
        if not any(np.any(np.isfinite(a)) for a in arrays):
            raise GateError(f"output {name!r} of the source model is not finite on any sample")
        if not any(np.any(a[np.isfinite(a)]) for a in arrays):
            raise GateError(
                f"output {name!r} of the source model is zero on every sample",
                hint="the model has dead weights; parity would be vacuous. Use real weights "
                "or real --inputs",
            )
        peak = max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays)
        if peak < ALIVE:
            raise GateError(
                f"output {name!r} of the source model is denormal: peak {peak:.1e}"
            )


def whole(reference: Sequence[Named], candidate: Sequence[Named]) -> dict[str, Metrics]:
    """Metrics of each output over all samples."""
    return {
        name: compare(
            np.stack([r[name] for r in reference]),
            np.stack(
                [
                    c[name].reshape(r[name].shape)
                    for r, c in zip(reference, candidate, strict=True)
                ]
            ),
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
