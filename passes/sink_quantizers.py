"""Layout operators work on codes: quantizers move to the operators that compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, attrs, given, operand, single_use
from edgevit.passes.nodewise import NodePass, Result
from edgevit.quantizers import Quantizer, dequantizer, quantizer_of
from edgevit.rewrite import Builder

__all__ = ["SinkQuantizers"]

_ANY = frozenset({"Reshape", "Transpose", "Expand", "Tile"})
# These read less than they are given, so quantizing in front of them would be more work.
_DOWN = _ANY | {"Slice", "Split", "Gather", "Pad", "MaxPool", "Concat"}


@dataclass(frozen=True)
class SinkQuantizers(NodePass):
    """Move DequantizeLinear down and QuantizeLinear up through what only moves elements.

    ``Transpose(DequantizeLinear(q))``  ->  ``DequantizeLinear(Transpose(q))``
    ``QuantizeLinear(Reshape(x))``  ->  ``Reshape(QuantizeLinear(x))``
    ``QuantizeLinear(DequantizeLinear(q))``  ->  ``q``

    1. Parameters are constant and per tensor: they hold wherever an element goes. (Taking
       the largest commutes too, because scales are positive.)
    2. ``Concat``: all operands have the same parameters. ``Pad``: its value has a code.
    3. A float tensor that others read as well is not moved a second time as codes.
    4. A pair of equal parameters gives back the very codes: |q - z| stays below 2^16, so the
       two roundings of float32 move the quotient by less than one half.
    """

    name: ClassVar[str] = "sink-quantizers"
    ops: ClassVar[frozenset[str]] = _DOWN | {"QuantizeLinear"}

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """One step down, one step up, or a pair that cancels."""
        if node.op_type == "QuantizeLinear":
            return _cancelled(node) or _raised(node, op)
        return _sunk(node, op)


def _per_tensor(node: ir.Node | None) -> Quantizer | None:
    """The parameters of a quantizer of case 1."""
    found = None if node is None else quantizer_of(node)
    return found if found is not None and found.axis is None else None


def _cancelled(node: ir.Node) -> ir.Value | None:
    """Case 4."""
    maker = dequantizer(node.inputs[0])
    inner, outer = _per_tensor(maker), _per_tensor(node)
    if maker is None or inner is None or outer is None or not inner.same(outer):
        return None
    source = operand(maker, 0)
    return None if constant(source) is not None else source


def _raised(node: ir.Node, op: Builder) -> Result:
    """QuantizeLinear in front of the movement that it reads."""
    moving = operand(node, 0).producer()
    if moving is None or moving.domain or moving.op_type not in _ANY:
        return None
    source = operand(moving, 0)
    if _per_tensor(node) is None or not single_use(moving.outputs[0]):  # case 3
        return None
    if constant(source) is not None or dequantizer(source) is not None:
        return None
    dtype = node.outputs[0].dtype
    inputs = [source, *node.inputs[1:]]
    codes = op.op("QuantizeLinear", inputs, attrs(node), shape=source.shape, dtype=dtype)
    shape = node.outputs[0].shape
    inputs = [codes, *moving.inputs[1:]]
    return op.op(moving.op_type, inputs, attrs(moving), shape=shape, dtype=dtype)


def _sunk(node: ir.Node, op: Builder) -> Result:
    """DequantizeLinear behind the movement that reads it."""
    count = len(node.inputs) if node.op_type == "Concat" else 1
    makers = [dequantizer(v) for v in node.inputs[:count]]
    found = [_per_tensor(m) for m in makers]
    first, maker = found[0], makers[0]
    if maker is None or first is None:
        return None
    if not all(q is not None and q.same(first) for q in found):  # case 2
        return None
    sources = [operand(m, 0) for m in makers if m is not None]
    if any(constant(v) is not None for v in sources) or len(node.outputs) > 1 < _parts(node):
        return None
    rest = _rest(node, op, first, count)
    if rest is None:
        return None
    codes = op.op_n(
        node.op_type, [*sources, *rest], [o.shape for o in node.outputs], attrs(node),
        dtype=first.dtype,
    )  # fmt: skip
    return [
        op.op("DequantizeLinear", [c, *maker.inputs[1:]], attrs(maker), shape=o.shape,
              dtype=o.dtype)
        for c, o in zip(codes, node.outputs, strict=True)
    ]  # fmt: skip


def _parts(node: ir.Node) -> int:
    """Outputs that hold different things: the second of MaxPool are indices."""
    return 1 if node.op_type == "Split" else len([o for o in node.outputs if o.name])


def _rest(
    node: ir.Node, op: Builder, quantizer: Quantizer, count: int
) -> list[ir.Value | None] | None:
    """The other operands; ``None`` if a pad's value has no code of its own."""
    rest = list(node.inputs[count:])
    if node.op_type != "Pad" or attr(node, "mode", "constant") != "constant":
        return rest
    value = constant(given(node, 2))
    number = np.float32(0) if value is None else np.float32(value.reshape(()))
    code = np.rint(number / quantizer.scale) + quantizer.zero_point
    dtype = quantizer.dtype.numpy()
    exact = (code - quantizer.zero_point) * quantizer.scale == number
    if not exact or not np.iinfo(dtype).min <= code <= np.iinfo(dtype).max:
        return None
    return [rest[0], op.constant(np.asarray(code, dtype)), *rest[2:]]
