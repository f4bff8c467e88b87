"""Unsigned codes as signed ones and back, for engines whose integer kernels take one kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant
from edgevit.passes.facts import Array, attr, given, operand
from edgevit.pipeline import Change, Effect, Outcome, Pass, Refusal

__all__ = ["SignQuantizers"]

_MIDDLE = 128
_MOVES = frozenset(
    {"Reshape", "Transpose", "Expand", "Tile", "Slice", "Split", "Gather", "Pad", "MaxPool"}
    | {"Concat", "Identity", "DepthToSpace", "SpaceToDepth"}
)


@dataclass(frozen=True)
class _Kinds:
    """A direction: which codes, what they become, by how much they move."""

    old: ir.DataType
    new: ir.DataType
    shift: int
    suffix: str


_SIGNED = _Kinds(ir.DataType.UINT8, ir.DataType.INT8, -_MIDDLE, "signed")
_UNSIGNED = _Kinds(ir.DataType.INT8, ir.DataType.UINT8, _MIDDLE, "unsigned")


@dataclass(frozen=True)
class SignQuantizers(Pass):
    """Shift uint8 codes and their zero points by 128.

    ``DequantizeLinear(QuantizeLinear(x, s, z), s, z)``, uint8
    ->  the same with zero point ``z - 128``, int8

    1. A family of uint8 values is shifted as a whole: from the quantizers (or stored
       constants) that make them, through operators that only move elements, to the
       dequantizers that read them. The numbers they stand for stay the same.
    2. Another operator in between, or a uint8 input or output of the graph, is a refusal.
    3. ``unsigned``: the other way, int8 to uint8, of codes that are computed. Families with
       stored codes stay: kernels of uint8 data take int8 weights.
    """

    unsigned: bool = False

    name: ClassVar[str] = "sign-quantizers"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Shift every family that case 1 allows."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        names = Names(model.graph)
        seen: set[ir.Value] = set()
        kinds = _UNSIGNED if self.unsigned else _SIGNED
        for value in _coded(model.graph, kinds.old):
            if value in seen:
                continue
            family = _family(value)
            seen |= set(family)
            if self.unsigned and any(constant(v) is not None for v in family):
                continue
            site, reason = value.name or "", _reason(family)
            if reason is not None:
                refusals.append(Refusal(self.name, site, reason))
                continue
            _shift(model.graph, family, names, kinds)
            changes.append(Change(self.name, site, f"{len(family)} values"))
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))


def _coded(graph: ir.Graph, dtype: ir.DataType) -> list[ir.Value]:
    """Values of a dtype that are quantized or dequantized."""
    found: dict[ir.Value, None] = {}
    for node in graph:
        if node.domain == "" and node.op_type == "QuantizeLinear":
            found[node.outputs[0]] = None
        elif node.domain == "" and node.op_type == "DequantizeLinear":
            found[operand(node, 0)] = None
    return [v for v in found if v.dtype == dtype]


def _moves(node: ir.Node | None) -> bool:
    return node is not None and node.domain == "" and node.op_type in _MOVES


def _data(node: ir.Node) -> list[ir.Value]:
    count = len(node.inputs) if node.op_type == "Concat" else 1
    return [v for v in node.inputs[:count] if v is not None]


def _family(start: ir.Value) -> list[ir.Value]:
    """All values that movements tie to ``start``."""
    family: dict[ir.Value, None] = {}
    pending = [start]
    while pending:
        value = pending.pop()
        if value in family:
            continue
        family[value] = None
        maker = value.producer()
        if maker is not None and _moves(maker):
            pending += _data(maker)
        for use in value.uses():
            if _moves(use.node) and value in _data(use.node):
                pending += [o for o in use.node.outputs if o.dtype == value.dtype]
                pending += _data(use.node)
    return list(family)


def _reason(family: list[ir.Value]) -> str | None:
    """Case 2."""
    for value in family:
        maker = value.producer()
        if value.is_graph_input() or value.is_graph_output():
            return f"{value.name!r} is an input or output of the model"
        makes = maker is not None and (_moves(maker) or _is(maker, "QuantizeLinear"))
        if constant(value) is None and not makes:
            return f"{value.name!r} is made by something else than QuantizeLinear"
        for use in value.uses():
            if not (_moves(use.node) or _constants(use.node)):
                return f"{value.name!r} is read by {use.node.op_type}"
    return None


def _is(node: ir.Node, op_type: str) -> bool:
    return node.domain == "" and node.op_type == op_type and _constants(node, (op_type,))


def _constants(
    node: ir.Node, ops: tuple[str, ...] = ("DequantizeLinear", "QuantizeLinear")
) -> bool:
    """Whether a node is a quantizer whose zero point is constant."""
    zero = given(node, 2)
    return node.op_type in ops and (zero is None or constant(zero) is not None)


def _shift(graph: ir.Graph, family: list[ir.Value], names: Names, kinds: _Kinds) -> None:
    nodes: dict[ir.Node, None] = {}
    for value in family:
        maker = value.producer()
        nodes |= {} if maker is None else {maker: None}
        nodes |= {use.node: None for use in value.uses()}
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _shift_zero(graph, node, names, kinds)
        elif node.op_type == "Pad" and attr(node, "mode", "constant") == "constant":
            _shift_pad(graph, node, names, kinds)
    for value in family:
        _retype(graph, value, names, kinds)


def _retype(graph: ir.Graph, value: ir.Value, names: Names, kinds: _Kinds) -> None:
    name = names.fresh(f"{value.name}.{kinds.suffix}")
    array = constant(value)
    if array is None:
        value.name, value.dtype = name, kinds.new
        return
    moved = array.astype(np.int16) + kinds.shift
    value.replace_all_uses_with(_stored(graph, name, moved, kinds))
    del graph.initializers[value.name or ""]


def _stored(graph: ir.Graph, name: str, codes: Array, kinds: _Kinds) -> ir.Value:
    array = codes.astype(kinds.new.numpy())
    made = ir.val(name, kinds.new, list(array.shape))
    made.const_value = ir.tensor(array, name=name)
    graph.register_initializer(made)
    return made


def _shift_zero(graph: ir.Graph, node: ir.Node, names: Names, kinds: _Kinds) -> None:
    given_zero, scale = constant(given(node, 2)), constant(given(node, 1))
    shape = () if scale is None else scale.shape
    zero = np.zeros(shape, np.int16) if given_zero is None else given_zero.astype(np.int16)
    name = names.fresh(f"{node.outputs[0].name}.zero")
    made = _stored(graph, name, zero + kinds.shift, kinds)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, made)
    node.attributes.pop("output_dtype", None)


def _shift_pad(graph: ir.Graph, node: ir.Node, names: Names, kinds: _Kinds) -> None:
    value = constant(given(node, 2))
    code = np.zeros((), np.int16) if value is None else value.astype(np.int16)
    name = names.fresh(f"{node.outputs[0].name}.value")
    made = _stored(graph, name, code + kinds.shift, kinds)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, made)
