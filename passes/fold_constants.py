"""Evaluate what depends on constants only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, fresh_name
from edgevit.passes.facts import Array, static
from edgevit.passes.infer_shapes import InferShapes, open_values
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal
from edgevit.rewrite import RULE_KEY, Refused

__all__ = ["FoldConstants"]

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
     "Bernoulli"}
)  # fmt: skip
# A weight stays in its narrow type: its DequantizeLinear is what makes it an integer weight.
_KEPT = _RANDOM | {"DequantizeLinear"}
_STEPS = 64


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose result is known by initializers.

    ``Concat(Slice(Shape(x)), [-1])``  ->  ``[1, 64, -1]``

    1. All inputs are constant; the operator has no sub-graph and is not random.
    2. ``Shape`` and ``Size`` need only the static shape of their input.
    3. ``DequantizeLinear`` is kept: folding it would widen a stored integer weight. That of
       a vector or scalar (bias, norm, factor) is no weight, and is folded.
    4. The result is not larger than its inputs together, or not larger than ``grow`` bytes:
       a small constant does not become a huge one.
    5. A constant graph output is an ``Identity`` of an initializer: outputs need a node.

    Folding and shape inference feed each other, so the pass alternates until nothing moves.

    Attributes:
        grow: Bytes up to which a result may be larger than its inputs (masks, positions).
    """

    name: ClassVar[str] = "fold-constants"
    effect: ClassVar[Effect] = Effect.EXACT
    grow: int = 1 << 24

    def call(self, model: ir.Model) -> Outcome:
        """Fold until nothing changes."""
        changes: list[Change] = []
        for _ in range(_STEPS):
            folded, refusals = self._sweep(model)
            changes += folded
            if not folded or not open_values(model):
                break
            InferShapes()(model)
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))

    def _sweep(self, model: ir.Model) -> tuple[list[Change], list[Refusal]]:
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(model.graph):
            site = node.outputs[0].name or node.op_type
            found = self._evaluate(model, node)
            if isinstance(found, Refused):
                refusals.append(Refusal(self.name, site, found.reason))
            elif found is not None:
                _install(model.graph, node, found)
                changes.append(Change(self.name, site, node.op_type))
        return changes, refusals

    def _evaluate(self, model: ir.Model, node: ir.Node) -> tuple[Array, ...] | Refused | None:
        if node.domain != "":
            return None
        if node.op_type == "Identity" and node.outputs[0].is_graph_output():
            return None  # case 5
        if node.op_type in ("Shape", "Size"):
            return _dims(node)
        inputs = [None if v is None else constant(v) for v in node.inputs]
        known = [a for a in inputs if a is not None]
        if len(known) < sum(v is not None for v in node.inputs) or _has_graph(node):
            return None
        if node.op_type in _KEPT and not _vector(node):  # cases 1 and 3
            return Refused(f"{node.op_type} of a constant is kept")
        limit = max(self.grow, sum(a.nbytes for a in known))
        if any(_nbytes(o) > limit for o in node.outputs):
            return Refused(f"the result would be larger than {limit} bytes")
        return _run(node, inputs, model.opset_imports.get("", 23), limit)


def _vector(node: ir.Node) -> bool:
    """A dequantized constant of less than two axes."""
    shape = static(node.outputs[0])
    return node.op_type == "DequantizeLinear" and shape is not None and len(shape) < 2


def _dims(node: ir.Node) -> tuple[Array, ...] | None:
    source = node.inputs[0]
    shape = static(source)
    if shape is None:
        return None
    if node.op_type == "Size":
        return (np.array(int(np.prod(shape, dtype=np.int64)), np.int64),)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", None)
    return (np.array(shape[start:end], np.int64),)


def _has_graph(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(a.type in kinds for a in node.attributes.values())


def _nbytes(value: ir.Value) -> int:
    shape = static(value)
    if shape is None or value.dtype is None:
        return 0
    return int(np.prod(shape, dtype=np.int64)) * value.dtype.bitwidth // 8


@cache
def _evaluator(key: bytes, opset: int) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    node = onnx.NodeProto()
    node.ParseFromString(key)
    return ReferenceEvaluator(node, opsets={"": opset})


def _run(
    node: ir.Node, inputs: list[Array | None], opset: int, limit: int
) -> tuple[Array, ...] | Refused:
    proto = ir.serde.serialize_node(node)
    # Names do not matter to the result; plain ones let equal nodes share an evaluator.
    names = [f"i{i}" if a is not None else "" for i, a in enumerate(inputs)]
    del proto.input[:], proto.output[:], proto.metadata_props[:]
    proto.input.extend(names)
    proto.output.extend(f"o{i}" if o.name else "" for i, o in enumerate(node.outputs))
    proto.name = ""
    feeds = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    try:
        with np.errstate(all="ignore"):
            results = _evaluator(proto.SerializeToString(), opset).run(None, feeds)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as e:
        return Refused(f"the reference cannot evaluate {node.op_type}: {e}")
    arrays = tuple(np.asarray(r) for r in results)
    if any(a.nbytes > limit for a in arrays):
        return Refused(f"the result is larger than {limit} bytes")
    return _typed(node, arrays)


def _typed(node: ir.Node, arrays: tuple[Array, ...]) -> tuple[Array, ...] | Refused:
    for out, array in zip(node.outputs, arrays, strict=False):
        if out.dtype is not None and ir.DataType.from_numpy(array.dtype) != out.dtype:
            return Refused(f"the reference gives {array.dtype} where {out.dtype} is declared")
    return arrays


def _install(graph: ir.Graph, node: ir.Node, arrays: tuple[Array, ...]) -> None:
    named = [o for o in node.outputs if o.name]
    for out, array in zip(named, arrays, strict=True):
        _install_one(graph, node, out, array)
    graph.remove(node, safe=True)


def _install_one(graph: ir.Graph, node: ir.Node, out: ir.Value, array: Array) -> None:
    name, out.name = out.name or "", None
    dtype = out.dtype or ir.DataType.from_numpy(array.dtype)
    plain = np.ascontiguousarray(array).reshape(array.shape)
    is_output = out.is_graph_output()
    own = fresh_name(graph, f"{name}.fold-constants.const") if is_output else name
    value = ir.val(
        own, dtype, list(array.shape), const_value=ir.tensor(plain, dtype, name=own)
    )
    graph.register_initializer(value)
    if is_output:  # case 5
        identity = ir.Node("", "Identity", [value])
        identity.metadata_props[RULE_KEY] = FoldConstants.name
        graph.insert_before(node, identity)
        value = identity.outputs[0]
        value.name, value.shape, value.type = name, ir.Shape(array.shape), ir.TensorType(dtype)
    out.replace_all_uses_with(value, replace_graph_outputs=True)
