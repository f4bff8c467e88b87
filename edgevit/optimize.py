"""The passes of a compile after canonicalization, and the graph before rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit import registry
from edgevit.edits import Edit
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

__all__ = ["Optimized", "optimize", "pipeline", "plans"]


@dataclass(frozen=True)
class Optimized:
    """What came of the optimizing passes.

    Attributes:
        records: One for each pass.
        exact: The graph before the first pass that rounds; ``None`` if none did.
    """

    records: tuple[PassRecord, ...]
    exact: ir.Model | None


def pipeline(target: Target, recipe: Recipe, precision: str) -> Pipeline:
    """The target's passes, the recipe's, and those that make the precision.

    A recipe with a quantizing pass replaces the precision's pipeline; its other passes run
    before it.
    """

    def parse(specs: Sequence[str]) -> tuple[Pass, ...]:
        return Pipeline.parse(specs, lambda name: registry.load("passes", name)).passes

    asked = parse((*target.pipeline, *recipe.passes))
    if any(isinstance(p, CalibratedPass) and p.quantizes for p in asked):
        return Pipeline(asked)
    return Pipeline((*asked, *parse(target.pipelines.get(precision, ()))))


def optimize(
    model: ir.Model, chosen: Pipeline, context: Context, observers: Sequence[Observer] = ()
) -> Optimized:
    """Run passes in place, keeping a copy from before the first one that rounds."""
    records: list[PassRecord] = []
    exact: ir.Model | None = None
    for p in chosen.passes:
        before = None if exact is not None or p.effect is Effect.EXACT else model.clone()
        found = Pipeline((p,)).run(model, observers, context)
        records += found
        if any(r.changes for r in found):
            exact = exact or before
    return Optimized(tuple(records), exact)


def plans(records: Sequence[PassRecord]) -> tuple[tuple[str, tuple[Edit, ...]], ...]:
    """(spec, edits) of every pass that planned any, in order."""
    return tuple((r.spec, r.edits) for r in records if r.edits)
