"""Which unit of a device runs each operator, by the rules of its device file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from edgevit import registry
from edgevit.backend import Placing
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


def place(
    model: ir.Model,
    target: Target,
    precision: str | None = None,
    stored: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> tuple[Placement, ...]:
    """Apply the target's rules to every node, the first that matches decides.

    Where the backend knows the unit, only rules of that unit match.

    Args:
        model: Canonical model.
        target: Whose rules; without rules it has one kind of unit, and the result is empty.
        precision: Of the program; the target's own where absent.
        stored: Value name -> shape of the artifact's tensor that holds it, where it is known:
            what is padded is that tensor.
    """
    chosen = precision or target.default_precision
    rules = tuple(
        rule for rule in target.placement if not rule.precisions or chosen in rule.precisions
    )
    if not target.placement:
        return ()
    backend = registry.load("backends", target.backend)()
    return tuple(
        _place(node, _held(rules, backend, node, target), stored) for node in model.graph
    )


def _held(
    rules: tuple[PlacementRule, ...], backend: object, node: ir.Node, target: Target
) -> tuple[PlacementRule, ...]:
    """Rules of the unit that the backend names, if it knows."""
    if not isinstance(backend, Placing):
        return rules
    unit = backend.unit(node, target)
    return tuple(rule for rule in rules if rule.unit == unit)


def _place(
    node: ir.Node, rules: tuple[PlacementRule, ...], stored: Mapping[str, tuple[int, ...]]
) -> Placement:
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
                _padding(stored.get(name) or _shape(node), rule.align_elements),
            )
    return Placement(name, node.op_type, None, "", "", "none")


def _matches(rule: PlacementRule, node: ir.Node) -> bool:
    if rule.ops and node.op_type not in rule.ops:
        return False
    return _rank(node) >= rule.min_rank


def _shape(node: ir.Node) -> tuple[int, ...]:
    shape = node.outputs[0].shape
    return () if shape is None else tuple(n if isinstance(n, int) else 0 for n in shape)


def _padding(shape: tuple[int, ...], multiple: int) -> float:
    last = shape[-1] if shape else 0
    if not multiple or last == 0:
        return 1.0
    return round(-(-last // multiple) * multiple / last, 3)


def _rank(node: ir.Node) -> int:
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    return max((len(v.shape) for v in values if v.shape is not None), default=0)
