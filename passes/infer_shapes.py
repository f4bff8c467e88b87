"""Give every value a dtype and a static shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.facts import static
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal
from edgevit.shapes import infer_shapes

__all__ = ["InferShapes", "open_values"]


def open_values(model: ir.Model) -> list[ir.Value]:
    """Values of the main graph whose dtype or shape is not fully known."""
    return [
        v
        for node in model.graph
        for v in node.outputs
        if v.name and (v.dtype is None or static(v) is None)
    ]


@dataclass(frozen=True)
class InferShapes(Pass):
    """Fill in dtypes and shapes that are not known yet.

    ``y : ?``  ->  ``y : float32[1, 49, 64]``

    1. Values whose dtype and static shape are known are left as they are.
    2. A value that stays open is a refusal: its operator's shape depends on data.
    """

    name: ClassVar[str] = "infer-shapes"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Run inference if anything is open."""
        before = {v: (v.dtype, v.shape) for v in open_values(model)}
        if not before:
            return Outcome(model, False)
        known = [
            (v, v.type, v.shape) for n in model.graph for v in n.outputs if v not in before
        ]
        infer_shapes(model, model.graph.name or "model")
        for value, kind, shape in known:  # case 1
            value.type, value.shape = kind, shape
        changes = tuple(
            Change(self.name, v.name or "")
            for v, (dtype, shape) in before.items()
            if v.dtype != dtype or v.shape != shape
        )
        refusals = tuple(
            Refusal(self.name, v.name or "", f"shape of {_producer(v)} depends on data")
            for v in open_values(model)
        )
        return Outcome(model, bool(changes), changes, refusals)


def _producer(value: ir.Value) -> str:
    node = value.producer()
    return "?" if node is None else node.op_type
