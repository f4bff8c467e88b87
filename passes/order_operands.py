"""The constant operand of a commutative operator is the second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import operand
from edgevit.pipeline import Change, Effect, Outcome, Pass

__all__ = ["COMMUTATIVE", "OrderOperands"]

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal"})


@dataclass(frozen=True)
class OrderOperands(Pass):
    """Swap the operands of commutative operators so that a constant comes second.

    ``Add(b, MatMul(x, W))``  ->  ``Add(MatMul(x, W), b)``

    1. The operator is commutative and has two inputs.
    2. The first is constant and the second is not.
    """

    name: ClassVar[str] = "order-operands"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Swap in place: the result is the same, bit for bit."""
        changes = []
        for node in model.graph:
            if node.domain or node.op_type not in COMMUTATIVE or len(node.inputs) != 2:
                continue
            first, second = operand(node, 0), operand(node, 1)
            if constant(first) is None or constant(second) is not None:
                continue
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)
            changes.append(Change(self.name, node.outputs[0].name or "", node.op_type))
        return Outcome(model, bool(changes), tuple(changes))
