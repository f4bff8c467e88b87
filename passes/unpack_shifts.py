"""Shift layers for backends without kernels of their own: the same numbers as stored codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.model import Names, constant, shape_of
from edgevit.passes.facts import Array, attr, operand
from edgevit.passes.functions import DOMAIN
from edgevit.passes.nodewise import substitute
from edgevit.passes.quantizable import MOVES, drop_unread
from edgevit.passes.shift_functions import CONV_KEYS, SHIFT_FUNCTIONS
from edgevit.pipeline import Change, Effect, Note, Outcome, Pass, Refusal
from edgevit.quantizers import dequantizer
from edgevit.rewrite import Builder
from edgevit.shift_codes import Packed, decode

__all__ = ["UnpackShifts", "decoded"]

_EXACT = 2**24  # integers up to here, and their sums, are exact in float32


@dataclass(frozen=True)
class UnpackShifts(Pass):
    """The function's own definition, its codes decoded now.

    ``ShiftLinear(x, codes, s)``  ->  ``MatMul(x, DequantizeLinear(q, s))``, q int8; likewise
    ``ShiftConv``; wide forms  ->  ``MatMul(x, W)``, ``W = s q`` in float32

    1. Narrow sums are int8: engines multiply integers, and every sum is exact.
    2. Wide sums are not: products are in float32. With codes x behind a quantizer they are
       exact where ``sum |q| |x| < 2^24`` for every channel (scales being powers of two), else
       within the rounding of a sum; the report says which.
    3. Codes are constant; whatever computes them is executed by the function's body.
    """

    name: ClassVar[str] = "unpack-shifts"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        """Unpack every layer whose codes are constant."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        names = Names(model.graph)
        for node in list(model.graph):
            if node.domain != DOMAIN or node.op_type not in SHIFT_FUNCTIONS:
                continue
            name = str(node.outputs[0].name)
            found = decoded(node)
            if found is None:  # case 3
                refusals.append(Refusal(self.name, name, "its codes are computed"))
                continue
            changes.append(Change(self.name, name, _unpack(model.graph, node, *found, names)))
        used = {n.op_identifier() for n in model.graph}
        for key in [k for k in model.functions if k[0] == DOMAIN and k[1] in SHIFT_FUNCTIONS]:
            if key not in used and not _called(model, key):
                del model.functions[key]
        notes = tuple(Note(c.node, c.detail) for c in changes)
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals), notes)


def _called(model: ir.Model, key: tuple[str, str, str]) -> bool:
    """Whether another function calls one."""
    return any(n.op_identifier() == key for f in model.functions.values() for n in f)


def decoded(node: ir.Node) -> tuple[Packed, Array] | None:
    """The codes of a shift layer, and the integers ``[K, N]`` that they are.

    ``None`` if they, or the scales, are not constant.

    Raises:
        InputError: They are no valid codes.
    """
    wide = node.op_type.startswith("Wide")
    arrays = [constant(operand(node, i)) for i in range(1, 4 if wide else 3)]
    scale = constant(operand(node, 3 if wide else 2))
    if scale is None or any(a is None for a in arrays):
        return None
    codes, signs = arrays[0], arrays[1] if wide else None
    assert codes is not None
    packed = Packed(codes, signs, int(attr(node, "inputs")))
    try:
        total = decode(packed)
    except InputError as e:
        raise InputError(f"shift layer {node.outputs[0].name!r}: {e}") from e
    if scale.shape != (total.shape[1],) or not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(
            f"shift layer {node.outputs[0].name!r}: expected {total.shape[1]} positive "
            f"scales, found {list(scale.shape)}, least {scale.min(initial=np.inf):.3g}"
        )
    return packed, total


def _unpack(graph: ir.Graph, node: ir.Node, packed: Packed, total: Array, names: Names) -> str:
    out, conv = node.outputs[0], node.op_type.endswith("Conv")
    op = Builder(UnpackShifts.name, graph, str(out.name), names)
    scale_at = 3 if packed.wide else 2
    scale = operand(node, scale_at)
    q = total.T.reshape(attr(node, "weight_shape")) if conv else total
    weight = _float(op, q, scale, conv) if packed.wide else _stored(op, q, scale, conv)
    inputs = [operand(node, 0), weight]
    attributes: dict[str, object] = {}
    if conv:
        inputs.append(operand(node, scale_at + 1))
        attributes = {key: attr(node, key) for key in CONV_KEYS}
    kind = "Conv" if conv else "MatMul"
    y = op.op(kind, inputs, attributes, shape=out.shape, dtype=out.dtype)
    old = [v for v in node.inputs[1:] if v is not None]
    substitute(graph, node, (y,), op.nodes)
    for value in old:
        drop_unread(graph, value)
    return _judged(inputs[0], total, packed)


def _stored(op: Builder, q: Array, scale: ir.Value, conv: bool) -> ir.Value:
    codes = op.constant(np.ascontiguousarray(q.astype(np.int8)))
    zero = op.constant(np.zeros(shape_of(scale), np.int8))
    axis = {"axis": 0 if conv else 1}
    return op.op(
        "DequantizeLinear",
        [codes, scale, zero],
        axis,
        shape=q.shape,
        dtype=ir.DataType.FLOAT,
    )


def _float(op: Builder, q: Array, scale: ir.Value, conv: bool) -> ir.Value:
    factors = constant(scale)
    assert factors is not None
    wide = factors.reshape(-1, *[1] * (q.ndim - 1)) if conv else factors
    return op.constant((q.astype(np.float32) * wide).astype(np.float32))


def _quantized(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that elements come from, wherever they were moved to since."""
    node = None if value is None else value.producer()
    while node is not None and not node.domain and node.op_type in MOVES:
        node = operand(node, 0).producer()
    return None if node is None else dequantizer(node.outputs[0])


def _judged(x: ir.Value | None, total: Array, packed: Packed) -> str:
    """How the products are computed, for the report (cases 1 and 2)."""
    sums = int(np.abs(total.astype(np.int64)).sum(axis=0).max(initial=0))
    maker = _quantized(x)
    codes = None if maker is None else operand(maker, 0).dtype
    bits = 16 if codes in (ir.DataType.INT16, ir.DataType.UINT16) else 8
    largest = sums * (2**bits - 1)
    if maker is None:
        return f"stored codes, float activations: sum of |q| is {sums}"
    if not packed.wide:
        return f"int8 codes on {bits}-bit activations: sums within {largest} are exact"
    if largest < _EXACT:
        return f"float32 products, exact: sum |q| |x| <= {largest} < 2^24"
    return (
        f"float32 products within the rounding of sums: sum |q| |x| <= {largest}, not below "
        f"2^24, on {bits}-bit activations"
    )
