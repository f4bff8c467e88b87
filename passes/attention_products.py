"""What the products of attention read: queries and keys."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.attention import is_plain
from edgevit.model import constant
from edgevit.passes.exclusion import names_any
from edgevit.passes.facts import operand
from edgevit.passes.quantizable import dequantized

__all__ = ["scored"]


def scored(model: ir.Model, exclude: str) -> dict[str, tuple[str, ...]]:
    """Queries and keys -> the attentions that score them, by their results.

    1. The values that are weighted are another tensor: it stays float.
    2. Queries and keys that are numbers of codes already stay as they are, and so do both
       where one is a constant (a learned query): no sample shows its range.

    Args:
        model: Canonical model.
        exclude: Patterns of attentions that stay float.
    """
    found: dict[str, tuple[str, ...]] = {}
    for node in model.graph:
        key = str(node.outputs[0].name)
        if not is_plain(node) or names_any((str(node.name), key), exclude):
            continue
        q, k, v = (operand(node, i) for i in range(3))
        if v in (q, k) or any(dequantized(x) or constant(x) is not None for x in (q, k)):
            continue
        for value in dict.fromkeys((q, k)):
            found[str(value.name)] = (*found.get(str(value.name), ()), key)
    return found
