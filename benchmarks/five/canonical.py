"""What canonicalization makes of each model: counts, shape arithmetic, equality of exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.five.cases import Case

__all__ = ["Canonical", "canonicalize_case", "misses"]

_BLOCKS = ("Attention", "LayerNormalization", "Gelu")
_SHAPE_OPS = frozenset({"Shape", "Size", "Range", "ConstantOfShape", "NonZero"})


@dataclass(frozen=True)
class Canonical:
    """One model before and after.

    Attributes:
        name: Of the case.
        before: Nodes in the file, constants apart.
        after: Nodes of the canonical graph.
        blocks: Attention, LayerNormalization, Gelu -> count in the canonical graph.
        transposes: Of the canonical graph.
        shape_arithmetic: Names of nodes that compute shapes or integers.
        structure: Digest of operators, attributes, shapes and wiring.
        digest: Of the structure and of every weight.
    """

    name: str
    before: int
    after: int
    blocks: Mapping[str, int]
    transposes: int
    shape_arithmetic: tuple[str, ...]
    structure: str
    digest: str


def canonicalize_case(case: Case) -> Canonical:
    """Load and canonicalize one model."""
    from edgevit.digest import digest
    from edgevit.loading import load
    from edgevit.passes.order import canonicalize

    model = load(case.find(), dict(case.shapes)).model
    before = sum(node.op_type != "Constant" for node in model.graph)
    canonicalize(model)
    whole = digest(model)
    ops = Counter(node.op_type for node in model.graph)
    return Canonical(
        name=case.name,
        before=before,
        after=sum(ops.values()),
        blocks={op: ops[op] for op in _BLOCKS},
        transposes=ops["Transpose"],
        shape_arithmetic=tuple(str(n.name) for n in model.graph if _computes_shapes(n)),
        structure=_structure(model),
        digest=whole,
    )


def _structure(model: Any) -> str:
    """The digest of the graph with every float weight set to zero.

    Integers stay: they are the axes and sizes that say what an operator does.
    """
    import onnx_ir as ir

    from edgevit.digest import digest

    for value in model.graph.initializers.values():
        array = value.const_value.numpy()
        if array.dtype.kind == "f" and array.size > 1:
            value.const_value = ir.tensor(np.zeros_like(array), name=value.name)
    return digest(model)


def _computes_shapes(node: Any) -> bool:
    if node.op_type in _SHAPE_OPS:
        return True
    return any(v.dtype is not None and v.dtype.is_integer() for v in node.outputs)


def misses(cases: Sequence[Case], found: Mapping[str, Canonical]) -> list[str]:
    """What the canonical graphs miss of what the cases require, one line each."""
    lines = []
    for case in cases:
        got = found[case.name]
        for op, count in case.require.items():
            if got.blocks[op] != count:
                lines.append(f"{case.name}: expected {count} {op}, found {got.blocks[op]}")
        if got.shape_arithmetic:
            lines.append(f"{case.name}: shape arithmetic left: {got.shape_arithmetic[:3]}")
        twin = found.get(case.twin) if case.twin else None
        if twin is not None and twin.structure != got.structure:
            lines.append(f"{case.name}: its canonical graph is not that of {case.twin}")
        if twin is not None and case.same_weights and twin.digest != got.digest:
            lines.append(f"{case.name}: its canonical weights are not those of {case.twin}")
    return lines
