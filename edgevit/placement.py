"""Which unit of a device runs each operator, by the rules of its device file."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgevit.target import PlacementRule, Target

__all__ = ["Placement", "place"]


@dataclass(frozen=True)
class Placement:
    """A prediction for one node.

    Attributes:
        node: Name of the node's first output.
        op: Operator.
        unit: ``ANE``, ``GPU`` or ``CPU``; ``None`` where no rule matches.
        rule: Name of the rule that decided; empty where none did.
        source: Where the rule comes from.
        confidence: ``measured``, ``published``, ``estimated``, or ``none``.
        padding: Bytes that the unit stores for each byte of the node's output, where it
            aligns the last axis; 1.0 if it does not, or if the axis is aligned already.
    """

    node: str
    op: str
    unit: str | None
    rule: str
    source: str
    confidence: str
    padding: float = 1.0


def place(model: ir.Model, target: Target) -> tuple[Placement, ...]:
    """Apply the target's rules to every node, the first that matches decides.

    A target without rules has one kind of unit: the result is empty.
    """
    if not target.placement:
        return ()
    return tuple(_place(node, target.placement) for node in model.graph)


def _place(node: ir.Node, rules: tuple[PlacementRule, ...]) -> Placement:
    name = str(node.outputs[0].name)
    for rule in rules:
        if _matches(rule, node):
            return Placement(
                name,
                node.op_type,
                rule.unit,
                rule.name,
                rule.source,
                rule.confidence,
                _padding(node, rule.align_elements),
            )
    return Placement(name, node.op_type, None, "", "", "none")


def _matches(rule: PlacementRule, node: ir.Node) -> bool:
    if rule.ops and node.op_type not in rule.ops:
        return False
    return _rank(node) >= rule.min_rank


def _padding(node: ir.Node, multiple: int) -> float:
    shape = node.outputs[0].shape
    last = shape[-1] if shape is not None and len(shape) else None
    if not multiple or not isinstance(last, int) or last == 0:
        return 1.0
    return round(-(-last // multiple) * multiple / last, 3)


def _rank(node: ir.Node) -> int:
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    return max((len(v.shape) for v in values if v.shape is not None), default=0)
