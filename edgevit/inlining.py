"""One rule for every backend: a function that it does not know is replaced by its body."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgevit import registry
from edgevit.partition import backend_of
from edgevit.pipeline import Observer, PassRecord, Pipeline
from edgevit.shift_codes import FUNCTIONS
from edgevit.target import Target

__all__ = ["inline_unknown", "recover_shifts", "store_shifts", "unknown", "unpack_shifts"]


def unknown(model: ir.Model, target: Target, precision: str) -> tuple[str, ...]:
    """Names of the functions of which the target's backend refuses a call, sorted."""
    calls = [n for n in model.graph if n.op_identifier() in model.functions]
    if not calls:
        return ()
    backend = backend_of(target.backend)
    refused = {
        n.op_type
        for n in calls
        if n.op_type in target.exclude_ops
        or backend.unsupported(n, target, precision) is not None
    }
    return tuple(sorted(refused))


def inline_unknown(
    model: ir.Model, target: Target, precision: str, observers: Sequence[Observer] = ()
) -> tuple[PassRecord, ...]:
    """Inline them, in place.

    Args:
        model: Canonical, apart from functions that passes have left.
        target: Its backend is asked about every call.
        precision: Name of the precision.
        observers: Called after the pass.

    Returns:
        The record of the pass; nothing where every function is known.
    """
    names = unknown(model, target, precision)
    if not names:
        return ()
    spec = f"inline-functions{{functions={'+'.join(names)}}}"
    chosen = Pipeline.parse([spec], lambda name: registry.load("passes", name))
    return chosen.run(model, observers)


def unpack_shifts(
    model: ir.Model, target: Target, precision: str, observers: Sequence[Observer] = ()
) -> tuple[PassRecord, ...]:
    """Make stored integers of packed shift codes, in place, where no kernel reads the codes.

    A backend that executes functions by their bodies would get the same numbers from the
    body; but integers are what its own lowering makes integer kernels of.
    """
    calls = [n for n in model.graph if n.domain == "ai.edgevit" and "Shift" in n.op_type]
    if not calls:
        return ()
    backend = backend_of(target.backend)
    bodies = getattr(backend, "executes_bodies", False)
    if not bodies and all(backend.unsupported(n, target, precision) is None for n in calls):
        return ()
    unpack = registry.load("passes", "unpack-shifts")()
    return Pipeline((unpack,)).run(model, observers)


def store_shifts(
    model: ir.Model, target: Target, precision: str, observers: Sequence[Observer] = ()
) -> tuple[PassRecord, ...]:
    """Keep trained sums of shifts from being rounded anew, in place, for kernels of theirs."""
    return _found("store-shifts", model, target, precision, observers)


def recover_shifts(
    model: ir.Model, target: Target, precision: str, observers: Sequence[Observer] = ()
) -> tuple[PassRecord, ...]:
    """Make functions again of trained sums of shifts, in place, for kernels of theirs."""
    return _found("recover-shifts", model, target, precision, observers)


def _found(
    name: str,
    model: ir.Model,
    target: Target,
    precision: str,
    observers: Sequence[Observer],
) -> tuple[PassRecord, ...]:
    """The record of a pass that looks for trained shifts; nothing where there are none.

    A backend that quantizes rows as the model runs multiplies int8 then, not packed codes.
    """
    backend = backend_of(target.backend)
    known: frozenset[str] = getattr(backend, "functions", frozenset())
    if not known >= FUNCTIONS:
        return ()
    if FUNCTIONS & set(target.exclude_ops) or backend.arithmetic(precision).dynamic:
        return ()
    records = Pipeline((registry.load("passes", name)(),)).run(model, observers)
    return tuple(r for r in records if r.changes or r.refusals)
