"""Several input shapes of one model: which there are, and artifacts that hold them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgevit import partition as partitions
from edgevit.backend import Merging
from edgevit.errors import UsageError
from edgevit.loading import Source
from edgevit.model import shape_of
from edgevit.subject import LoweredPart
from edgevit.target import Target

__all__ = ["Shapes", "check_distinct", "merge_parts", "split_shapes", "stem_of"]

Shapes = Mapping[str, tuple[int, ...]]


def split_shapes(given: Shapes | Sequence[Shapes]) -> dict[str, object]:
    """The recipe's keys for one or several bindings of the input shapes."""
    if isinstance(given, Mapping):
        return {"shapes": given, "more_shapes": ()}
    several = [dict(shapes) for shapes in given] or [{}]
    return {"shapes": several[0], "more_shapes": tuple(several[1:])}


def check_distinct(sources: Sequence[Source]) -> None:
    """Each entry of a bundle is found by its input shapes: they must differ.

    Raises:
        UsageError: Two are equal.
    """
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for source in sources:
        shapes = tuple(shape_of(v) for v in source.model.graph.inputs)
        if shapes in seen:
            found = ", ".join(
                f"{v.name}={','.join(map(str, s))}"
                for v, s in zip(source.model.graph.inputs, shapes, strict=True)
            )
            raise UsageError(
                f"--shape: the same input shapes twice: {found}",
                hint="give each combination of shapes once",
            )
        seen.add(shapes)


def stem_of(variant: int, variants: int, part: int, parts: int) -> str:
    """File name stem of an artifact: ``model``, ``part0``, ``shape1``, ``shape1.part0``."""
    words = [f"shape{variant}"] if variants > 1 else []
    words += [f"part{part}"] if parts > 1 else []
    return ".".join(words) or "model"


def merge_parts(
    variants: Sequence[tuple[LoweredPart, ...]], target: Target
) -> list[tuple[LoweredPart, ...]]:
    """Put parts that are the same but for their shapes into one artifact, where one can be.

    Variants that were cut into different parts keep an artifact each.

    Args:
        variants: The lowered parts of each input shape.
        target: What they were lowered for.
    """
    backends = {tuple(p.backend for p in parts) for parts in variants}
    if len(variants) == 1 or len(backends) != 1:
        return list(variants)
    columns = []
    for index, name in enumerate(next(iter(backends))):
        column = [parts[index] for parts in variants]
        backend = partitions.backend_of(name)
        if isinstance(backend, Merging):
            stem = stem_of(0, 1, index, len(variants[0]))
            made = backend.merge([p.lowered for p in column], target, stem)
            column = [replace(p, lowered=m) for p, m in zip(column, made, strict=True)]
        columns.append(column)
    return list(zip(*columns, strict=True))
