"""Float weights that are sums of signed powers of two, stored as the integers they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.passes.apply_shifts import LAYERS
from edgevit.passes.facts import Array, given
from edgevit.passes.quantizable import drop_unread
from edgevit.pipeline import Change, Effect, Outcome, Pass
from edgevit.rewrite import Builder
from edgevit.shift_codes import MOST_TERMS, NARROW_LIMIT, fewest, on_grid

__all__ = ["StoreShifts", "matrix_of"]


@dataclass(frozen=True)
class StoreShifts(Pass):
    """Weights of networks that were trained to shifts, kept from being rounded anew.

    ``MatMul(x, W)``  ->  ``MatMul(x, DequantizeLinear(q, 2^e))`` where ``W = 2^e q``; likewise
    ``Conv``. A file whose shift functions are inlined has this form already; one whose
    constants were folded has floats, which a quantizing pass would round to other scales.

    1. Every weight of the layer is *equal* to a sum of up to three signed powers of two times
       its channel's own. One that is off in the last bit keeps the layer as it is.
    2. Integers within 127 are int8, as bodies of ``ShiftLinear`` have them; else int32.
    3. Weights that are zero throughout are left alone.

    A compile runs it by itself for backends with kernels of shifts, in front of other passes.
    """

    name: ClassVar[str] = "store-shifts"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Store every weight that can be."""
        changes: list[Change] = []
        names = Names(model.graph)
        for node in list(model.graph):
            weight = given(node, 1)
            if node.domain or node.op_type not in LAYERS or weight is None:
                continue
            detail = _stored(model.graph, node, weight, names)
            if detail is not None:
                changes.append(Change(self.name, str(node.outputs[0].name), detail))
        return Outcome(model, bool(changes), tuple(changes))


def matrix_of(weight: Array, conv: bool) -> Array:
    """A weight as ``[K, N]``: a column for each output channel."""
    return weight.reshape(len(weight), -1).T if conv else weight


def _stored(graph: ir.Graph, node: ir.Node, weight: ir.Value, names: Names) -> str | None:
    """Replace one layer's weight; what was found, ``None`` if it is no sum of shifts."""
    array, conv = constant(weight), node.op_type == "Conv"
    if array is None or array.dtype != np.float32 or array.ndim != (4 if conv else 2):
        return None
    found = on_grid(matrix_of(array, conv)) if array.any() else None  # case 3
    if found is None:
        return None
    q, scale = found
    wide = bool(np.abs(q).max() > NARROW_LIMIT)
    terms = fewest(q, MOST_TERMS, wide)
    if terms is None:  # case 1
        return None
    op = Builder(StoreShifts.name, graph, str(node.outputs[0].name), names)
    kept = (q.T if conv else q).reshape(array.shape).astype(np.int32 if wide else np.int8)
    codes, factors = op.constant(np.ascontiguousarray(kept)), op.constant(scale)
    axis = {"axis": 0 if conv else 1}
    dtype = ir.DataType.FLOAT
    y = op.op("DequantizeLinear", [codes, factors], axis, shape=array.shape, dtype=dtype)
    graph.insert_before(node, op.nodes)
    node.replace_input_with(1, y)
    drop_unread(graph, weight)
    return f"{terms} {'wide ' if wide else ''}terms a weight, exactly"
