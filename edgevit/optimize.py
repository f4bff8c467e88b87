"""The passes of a compile after canonicalization, and the graph before rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgevit import registry
from edgevit.edits import Edit
from edgevit.inlining import inline_unknown, recover_shifts, store_shifts, unpack_shifts
from edgevit.pipeline import (
    CalibratedPass,
    Context,
    Effect,
    Observer,
    Pass,
    PassRecord,
    Pipeline,
)
from edgevit.recipe import Recipe
from edgevit.target import Target

__all__ = ["Optimized", "calibrated", "optimize", "pipeline", "plans"]

# Behind a precision's name: the passes that make it where there are samples.
CALIBRATED = ":calibrated"


@dataclass(frozen=True)
class Optimized:
    """What came of the optimizing passes.

    Attributes:
        records: One for each pass.
        exact: The graph before the first pass that rounds; ``None`` if none did.
    """

    records: tuple[PassRecord, ...]
    exact: ir.Model | None


def pipeline(
    target: Target, recipe: Recipe, precision: str, samples: bool = False
) -> Pipeline:
    """The target's passes, the recipe's, and those that make the precision.

    A recipe with a quantizing pass replaces the precision's pipeline; its other passes run
    before it.

    Args:
        target: Names passes for each precision, and for some that need no samples others that
            use them (``"w4:calibrated"``).
        recipe: Its passes.
        precision: Name of the precision.
        samples: Whether there are calibration samples.
    """

    def parse(specs: Sequence[str]) -> tuple[Pass, ...]:
        return Pipeline.parse(specs, lambda name: registry.load("passes", name)).passes

    asked = parse((*target.pipeline, *recipe.passes))
    if any(isinstance(p, CalibratedPass) and p.quantizes for p in asked):
        return Pipeline(asked)
    return Pipeline((*asked, *parse(_named(target, precision, samples))))


def _named(target: Target, precision: str, samples: bool) -> tuple[str, ...]:
    plain = target.pipelines.get(precision, ())
    return target.pipelines.get(precision + CALIBRATED, plain) if samples else plain


def calibrated(target: Target, precision: str, recorded: Sequence[str]) -> bool:
    """Whether recorded passes are those of a precision that had samples.

    Args:
        target: As it was compiled for.
        precision: Name of the precision.
        recorded: Specs of the passes whose edits a bundle holds.
    """
    own = set(_named(target, precision, True)) - set(_named(target, precision, False))
    return bool(own & set(recorded))


def optimize(
    model: ir.Model, chosen: Pipeline, context: Context, observers: Sequence[Observer] = ()
) -> Optimized:
    """Run passes in place, keeping a copy from before the first one that rounds.

    What a pass leaves as functions that the target's backend does not know is inlined behind
    it, so that the passes that follow see operators. Shifts that a network was trained to are
    stored as such ahead of all passes, and become functions behind them where it knows those.
    """
    target, precision = context.target, context.precision
    records: list[PassRecord] = []
    exact: ir.Model | None = None
    if target is not None:
        records += store_shifts(model, target, precision, observers)
    uses: Counter[str] = Counter()
    for p in chosen.passes:
        turn = replace(context, turn=uses[str(p)])
        uses[str(p)] += 1
        before = None if exact is not None or p.effect is Effect.EXACT else model.clone()
        found = Pipeline((p,)).run(model, observers, turn)
        records += found
        if target is not None:
            records += unpack_shifts(model, target, precision, observers)
            records += inline_unknown(model, target, precision, observers)
        if any(r.changes for r in found):
            exact = exact or before
    if target is not None:
        records += recover_shifts(model, target, precision, observers)
    return Optimized(tuple(records), exact)


def plans(records: Sequence[PassRecord]) -> tuple[tuple[str, tuple[Edit, ...]], ...]:
    """(spec, edits) of every pass that plans, in order; also of those that found nothing."""
    return tuple((r.spec, r.edits) for r in records if r.planned)
