"""How error accumulates through the shipped artifact, for gates in decibels (float16).

The artifact runs once with every mapped value exposed: the first value below the gate is
named, and so are values whose magnitude comes near the end of float16's range. Where the
engine has a pessimistic variant (sums in float16 too), its figure stands beside the gate's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.bundle import Entry
from edgevit.parity import compare
from edgevit.reference import Arrays
from edgevit.replay import Origin, short
from edgevit.subject import Subject

__all__ = ["Accumulation", "Large", "PsnrDrop", "accumulation", "lowest"]

# Half of float16's largest number (65,504): one more doubling overflows.
LARGE = 32768.0
# Engine -> the variant of it with pessimistic arithmetic.
PESSIMISTIC = {"coreml": "coreml-fp16-accumulate"}


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
            "psnr_db": short(self.psnr_db),
            "below_gate": self.below_gate,
        }


@dataclass(frozen=True)
class Large:
    """A value of the artifact whose magnitude is above ``LARGE``."""

    node: str
    op: str
    value: str
    peak: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "node": self.node,
            "op": self.op,
            "value": self.value,
            "peak": short(self.peak),
        }


@dataclass(frozen=True)
class Accumulation:
    """What following the error through the artifact gave.

    Attributes:
        drop: First value below the gate, or the lowest.
        trail: Value -> PSNR in dB, in execution order; exact values are left out.
        large: Values near the end of float16's range.
        pessimistic_psnr_db: Whole-network figure with sums in float16; ``None`` if the
            engine has no such variant or it is exact.
    """

    drop: PsnrDrop | None
    trail: Mapping[str, float]
    large: tuple[Large, ...]
    pessimistic_psnr_db: float | None


def accumulation(
    subject: Subject,
    sample: Arrays,
    values: Arrays,
    outputs: Arrays,
    exposed: Callable[[], Arrays],
) -> Accumulation | None:
    """Follow the error, if the precision's gate is in decibels; else ``None``.

    Args:
        subject: What is verified.
        sample: Input name -> array.
        values: The reference's value of every canonical node, for that sample.
        outputs: The source model's outputs for that sample.
        exposed: Gives the artifact's own values (``run_exposed``); called only for such gates.
    """
    limits = [g.limit for g in subject.gates if g.metric == "psnr_db"]
    if not limits or len(subject.parts) != 1:
        return None
    found = exposed()
    trail = _trail(subject, values, found)
    return Accumulation(
        drop=_first_drop(subject, trail, limits[0]),
        trail=trail,
        large=_large(subject, found),
        pessimistic_psnr_db=_pessimistic(subject, sample, outputs),
    )


def lowest(found: Sequence[Accumulation | None]) -> Accumulation | None:
    """Of several entries, the one whose error accumulates most; ``None`` without one."""
    measured = [a for a in found if a is not None]

    def drop(a: Accumulation) -> float:
        return float("inf") if a.drop is None else a.drop.psnr_db

    return min(measured, key=drop, default=None)


def _trail(subject: Subject, values: Arrays, exposed: Arrays) -> dict[str, float]:
    found = {}
    for binding in subject.parts[0].lowered.values:
        r = values[binding.name]
        if r.dtype.kind != "f":
            continue
        metrics = compare(r, exposed[binding.name].reshape(r.shape))
        if metrics.psnr_db is not None:
            found[binding.name] = metrics.psnr_db
    return found


def _first_drop(subject: Subject, trail: Mapping[str, float], limit: float) -> PsnrDrop | None:
    if not trail:
        return None
    below = [value for value, psnr_db in trail.items() if psnr_db < limit]
    value = below[0] if below else min(trail, key=lambda v: trail[v])
    node, op = Origin(subject).of(value)
    return PsnrDrop(node, op, value, trail[value], bool(below))


def _large(subject: Subject, exposed: Arrays) -> tuple[Large, ...]:
    origin = Origin(subject)
    found = []
    for binding in subject.parts[0].lowered.values:
        array = exposed[binding.name]
        if array.dtype.kind != "f":
            continue
        peak = float(np.max(np.abs(array), initial=0.0))
        if not peak <= LARGE:
            node, op = origin.of(binding.name)
            found.append(Large(node, op, binding.name, peak))
    return tuple(found)


def _pessimistic(subject: Subject, sample: Arrays, outputs: Arrays) -> float | None:
    part = subject.entry.parts[0]
    if part.engine not in PESSIMISTIC:
        return None
    slow = replace(part, engine=PESSIMISTIC[part.engine])
    entry: Entry = replace(subject.entry, parts=(slow,))
    found = subject.run(subject.root, entry, [sample])[0]
    figures = [
        compare(outputs[name], found[name].reshape(outputs[name].shape)).psnr_db
        for name in outputs
        if outputs[name].dtype.kind == "f"
    ]
    finite = [f for f in figures if f is not None]
    return min(finite) if finite else None
