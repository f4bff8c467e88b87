"""Which values an engine keeps when it fuses quantizers into integer operators.

A replay cuts the artifact at the values it maps. A cut between a ``DequantizeLinear`` and
the layer that reads it would leave the engine nothing to fuse, and what is replayed would no
longer be what ships. So only the borders of integer groups are mapped: what a group's first
quantizer reads, and what its layer (bias, clamp and output quantizer included) gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgevit.model import constant

__all__ = ["feed_codes", "inside_integer_group", "requantized"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CODES = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16),
        *(ir.DataType.INT4, ir.DataType.UINT4),
    }
)
_QUANTIZER = frozenset({"Clip", "QuantizeLinear"})


def inside_integer_group(value: ir.Value) -> bool:
    """Whether a value lies between the borders of an integer group."""
    node = value.producer()
    if node is None or value.is_graph_output():
        return False
    if value.dtype in _CODES or _is_clip_of_quantizer(node):
        return True
    if node.op_type == "DequantizeLinear":
        return constant(node.inputs[0]) is not None or not _writes_result(node)
    return _integer_result(node) and _goes_on(value)


def _integer_result(node: ir.Node) -> bool:
    """A layer on dequantized operands, or the bias or clamp right behind one."""
    if node.op_type in _LAYERS:
        return all(_made_by(v) == "DequantizeLinear" for v in node.inputs[:2])
    if node.op_type in ("Add", "Clip", "Relu"):
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        single = node.inputs[0] is not None and len(node.inputs[0].uses()) == 1
        return single and before is not None and _integer_result(before)
    return False


def _goes_on(value: ir.Value) -> bool:
    """Whether the group takes in the value's only reader: a bias, a clamp, a quantizer."""
    uses = value.uses()
    if len(uses) != 1:
        return False
    (use,) = uses
    if use.node.op_type == "Add":
        return constant(use.node.inputs[1]) is not None
    return use.idx == 0 and use.node.op_type in ("Relu", *_QUANTIZER)


def _writes_result(node: ir.Node) -> bool:
    """Whether a DequantizeLinear ends a group: it is behind an output quantizer."""
    at = node.inputs[0]
    while at is not None:
        made = at.producer()
        if made is None:
            return False
        if at.dtype not in _CODES and not _is_clip_of_quantizer(made):
            return _integer_result(made) and len(at.uses()) == 1
        at = made.inputs[0]
    return False


def _is_clip_of_quantizer(node: ir.Node) -> bool:
    out = node.outputs[0]
    return node.op_type == "Clip" and [u.node.op_type for u in out.uses()] == [
        "QuantizeLinear"
    ]


def _made_by(value: ir.Value | None) -> str:
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def requantized(cut: ir.Value, border: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """What readers of an output quantizer's result read in its place when it is fed.

    Args:
        cut: The fed value; its elements are codes times the scale.
        border: The ``DequantizeLinear`` that gives it in the artifact.

    Returns:
        ``DequantizeLinear(QuantizeLinear(cut))``, which is ``cut`` itself, so that the
        layers behind it still read a quantizer; and the two nodes.
    """
    parameters = list(border.inputs[1:])
    attributes = dict(border.attributes)
    quantize = ir.node("QuantizeLinear", [cut, *parameters], attributes)
    codes = quantize.outputs[0]
    codes.name, codes.shape = f"{cut.name}.codes", cut.shape
    zero_point = parameters[1]
    codes.type = None if zero_point is None else zero_point.type
    dequantize = ir.node("DequantizeLinear", [codes, *parameters], dict(attributes))
    out = dequantize.outputs[0]
    out.name, out.shape, out.type = f"{cut.name}.fed", cut.shape, cut.type
    return out, [quantize, dequantize]


def feed_codes(border: ir.Node, made: Sequence[ir.Node]) -> None:
    """Let what reads the border's codes themselves (``ConvInteger``) read the fed ones.

    Args:
        border: The ``DequantizeLinear`` that was cut.
        made: What ``requantized`` made; nothing if the cut value is no border.
    """
    codes = border.inputs[0]
    if codes is None or not made:
        return
    for use in list(codes.uses()):
        if use.node is not border:
            use.node.replace_input_with(use.idx, made[0].outputs[0])
