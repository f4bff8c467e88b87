"""What is to be done: recipe, target and options merged and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit import bundle as bundles
from edgevit import registry
from edgevit.backend import Resolving
from edgevit.errors import UnsupportedModelError, UsageError
from edgevit.loading import WeightLimit
from edgevit.pipeline import split_specs
from edgevit.preprocess import Preprocess
from edgevit.recipe import Recipe, load_recipe
from edgevit.target import Target, load_target
from edgevit.variants import split_shapes

__all__ = ["Plan", "plan"]

# 2 GiB, with room for what is not weights.
_WEIGHTS = (1 << 31) - (1 << 24)
_OFFSETS = "a LiteRT model is a flatbuffer, whose offsets end at 2 GiB"
_PROTOBUF = "the source is run for comparison as one protobuf, which ends at 2 GiB"


@dataclass(frozen=True)
class Plan:
    """What is to be done, after recipe, target and options are merged and checked."""

    model: Path
    recipe: Recipe
    target: Target
    precision: str
    preprocess: Preprocess | None
    output: Path
    overwrite: bool

    @property
    def weight_limit(self) -> WeightLimit:
        """What a model may weigh: limits of the formats, not of this machine."""
        flat = self.target.backend == "litert"
        return WeightLimit(_WEIGHTS, _OFFSETS if flat else _PROTOBUF)


def plan(
    model: Path,
    given: dict[str, Any],
    recipe: str | None,
    target_file: str | Path | None,
    output: str | Path | None,
    overwrite: bool,
) -> Plan:
    """Merge recipe and options, load the target, check the combination.

    Raises:
        UsageError: Unknown names, no target, a precision that cannot be executed, or an
            output that exists.
    """
    explicit = {k: v for k, v in given.items() if v is not None}
    if "passes" in explicit:
        explicit["passes"] = split_specs(explicit["passes"])
    if "shapes" in explicit:
        explicit.update(split_shapes(explicit["shapes"]))
    merged = (load_recipe(recipe) if recipe else Recipe()).merged(explicit)
    if merged.target is None and target_file is None:
        known = ", ".join(registry.names("targets"))
        raise UsageError("no target was given", hint=f"--target NAME; known: {known}")
    target = load_target(merged.target or "", Path(target_file) if target_file else None)
    backend = registry.load("backends", target.backend)()
    target = backend.resolve(target) if isinstance(backend, Resolving) else target
    precision = merged.precision or target.default_precision
    _check_precision(target, precision)
    preprocess = Preprocess.parse(merged.preprocess) if merged.preprocess else None
    out = Path(output) if output else Path(f"{model.stem}-{target.name}.edgevit")
    if out.name.endswith(bundles.FAILED_SUFFIX):
        raise UsageError(
            f"{out}: names ending in {bundles.FAILED_SUFFIX} are for bundles that failed",
            hint="choose another name for -o",
        )
    bundles.check_output(out, overwrite)
    return Plan(model, merged, target, precision, preprocess, out, overwrite)


def _check_precision(target: Target, precision: str) -> None:
    if precision in target.precisions:
        return
    known = ("fp32", "fp16", "w8", "w4", "w8a8", "w8a8-dyn", "w4a8", "w8a16", "w6a6", "w4a4")
    if precision not in (*known, "mixed"):
        raise UsageError(
            f"unknown precision {precision!r}", hint=registry.nearest(precision, [*known])
        )
    raise UnsupportedModelError(
        f"{target.name} cannot execute precision {precision!r}",
        hint=f"the nearest that it can: --precision {target.precisions[-1]}",
    )
