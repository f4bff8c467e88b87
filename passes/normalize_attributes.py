"""Write out what a node leaves to a default, and count axes from the front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import onnx_ir as ir

from edgevit.passes.facts import attr, rank
from edgevit.pipeline import Change, Effect, Outcome, Pass

__all__ = ["NormalizeAttributes"]

# Resolved by their own passes, because the right value depends on shapes.
_LEFT_OUT = frozenset({"auto_pad", "ceil_mode"})


@dataclass(frozen=True)
class NormalizeAttributes(Pass):
    """Fill in defaults and make ``axis`` non-negative.

    ``Softmax(x)``  ->  ``Softmax(x, axis=2)``

    1. Attributes with a default in the operator's schema are written out.
    2. ``auto_pad=NOTSET`` goes; other values are resolved where shapes are looked at.
    3. ``axis`` below zero is counted from the rank of the first input.
    """

    name: ClassVar[str] = "normalize-attributes"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Edit attributes in place."""
        opset = model.opset_imports.get("", 23)
        changes = [
            Change(self.name, node.outputs[0].name or "", node.op_type)
            for node in model.graph
            if node.domain == "" and _settle(node, opset)
        ]
        return Outcome(model, bool(changes), tuple(changes))


def _settle(node: ir.Node, opset: int) -> bool:
    changed = False
    for name, value in _defaults(node.op_type, opset).items():
        if name not in node.attributes:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
            changed = True
    if attr(node, "auto_pad") == "NOTSET":  # case 2
        del node.attributes["auto_pad"]
        changed = True
    axis = attr(node, "axis")
    source = node.inputs[0] if node.inputs else None
    size = None if source is None else rank(source)
    if isinstance(axis, int) and axis < 0 and size is not None:  # case 3
        node.attributes["axis"] = ir.AttrInt64("axis", axis + size)
        changed = True
    return changed


@cache
def _defaults(op_type: str, opset: int) -> dict[str, Any]:
    import onnx

    if not onnx.defs.has(op_type):
        return {}
    schema = onnx.defs.get_schema(op_type, opset)
    found = {}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        if name in _LEFT_OUT or not default.name:
            continue
        value = onnx.helper.get_attribute_value(default)
        found[name] = value.decode() if isinstance(value, bytes) else value
    return found
