"""Functions of our own, replaced by their bodies for a backend that does not know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.passes.fold_constants import FoldConstants
from edgevit.passes.infer_shapes import InferShapes
from edgevit.passes.normalize_attributes import NormalizeAttributes
from edgevit.passes.normalize_conv import NormalizeConv
from edgevit.passes.normalize_gather import NormalizeGather
from edgevit.passes.normalize_reduce import NormalizeReduce
from edgevit.passes.normalize_reshape import NormalizeReshape
from edgevit.passes.normalize_slice import NormalizeSlice
from edgevit.passes.normalize_split import NormalizeSplit
from edgevit.passes.remove_dead import RemoveDead
from edgevit.passes.slices_to_split import SlicesToSplit
from edgevit.pipeline import Change, Effect, Outcome, Pass
from edgevit.rewrite import RULE_KEY

__all__ = ["InlineFunctions"]

_NESTED = "nested"
# Bodies compute sizes and decode weights, and their axes may be counted from the end.
_SETTLE: tuple[Pass, ...] = (
    InferShapes(),
    FoldConstants(),
    InferShapes(),
    NormalizeAttributes(),
    NormalizeConv(),
    NormalizeGather(),
    NormalizeSlice(),
    NormalizeSplit(),
    SlicesToSplit(),
    NormalizeReduce(),
    NormalizeReshape(),
    RemoveDead(),
)


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Calls of functions that the model defines, replaced by what the functions stand for.

    ``ai.edgevit.SharedConv(x, K, b, tile, pads)``  ->  ``Conv(Reshape(x, tile), K, b, pads)``

    A compile runs it by itself with the functions that the backend does not lower natively.

    1. The model defines the function, and it is named, or none is.
    2. The result keeps the name of the call's; what is between is named anew.
    3. The bodies come out in canonical form: attributes written out, constants stored.
    4. What a body calls is inlined with it, and only there: other calls stay.

    Attributes:
        functions: Names, joined by ``+``; empty: every function.
    """

    name: ClassVar[str] = "inline-functions"
    effect: ClassVar[Effect] = Effect.EXACT
    functions: str = ""

    def call(self, model: ir.Model) -> Outcome:
        """Inline, then bring what came out to canonical form."""
        wanted = set(filter(None, self.functions.split("+")))
        ours = {
            key: function
            for key, function in model.functions.items()
            if not wanted or function.name in wanted  # case 1
        }
        calls = [n for n in model.graph if n.op_identifier() in ours]
        if not calls:
            return Outcome(model, False)
        changes = tuple(
            Change(self.name, str(n.outputs[0].name), f"{n.domain}.{n.op_type}") for n in calls
        )
        before = set(model.graph)
        ours |= _callees(model, ours)  # case 4
        common.InlinePass(criteria=lambda f: f.identifier() in ours)(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        for node in model.graph:
            if node not in before:
                node.metadata_props[RULE_KEY] = self.name
        for settle in _SETTLE:
            settle.call(model)  # case 3
        return Outcome(model, True, changes)


def _callees(
    model: ir.Model, ours: dict[ir.OperatorIdentifier, ir.Function]
) -> dict[ir.OperatorIdentifier, ir.Function]:
    """Copies of the functions that bodies call, under a name of their own; calls follow."""
    made: dict[ir.OperatorIdentifier, ir.Function] = {}
    pending = list(ours.values())
    while pending:
        for node in pending.pop():
            called = model.functions.get(node.op_identifier())
            if called is None or called.identifier() in ours:
                continue
            node.overload = _NESTED
            if node.op_identifier() not in made:
                copy = ir.serde.deserialize_function(ir.serde.serialize_function(called))
                copy.overload = _NESTED
                made[copy.identifier()] = copy
                pending.append(copy)
    model.functions.update(made)
    return made
