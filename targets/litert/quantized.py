"""Which nodes become one integer operator, and what integer tensors mean.

An integer operator reads codes and writes codes: the head, whose data comes out of
DequantizeLinear nodes, what is fused behind it, and the QuantizeLinear at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.quantizers import Quantizer, dequantizer, quantizer_of, stored
from edgevit.targets.neighbors import bias_of, is_linear, only_consumer

__all__ = ["Tail", "absorbed", "codes_behind", "meaning", "tail_of"]

_PAIRS = frozenset({"Add", "Sub", "Mul"})
_MOVES = frozenset(
    {"Reshape", "Transpose", "Expand", "Tile", "Slice", "Split", "Gather", "Pad", "MaxPool"}
    | {"Concat", "Identity"}
)
_LOWEST = -127  # kernels multiply pairs of products in 16 bits: -128 * -128 would overflow


@dataclass(frozen=True)
class Tail:
    """What follows the head of an integer operator.

    Attributes:
        nodes: The fused nodes, ending with the QuantizeLinear.
        bias: Constant vector added behind the head.
        low: Smallest code of the result.
        high: Largest code of the result.
    """

    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None
    low: int
    high: int


def _plain(node: ir.Node | None) -> Quantizer | None:
    """Parameters that an activation may have: per tensor, int8, or int16 around zero."""
    found = None if node is None else quantizer_of(node)
    if found is None or found.axis is not None:
        return None
    wide = found.dtype == ir.DataType.INT16 and found.symmetric
    return found if wide or found.dtype == ir.DataType.INT8 else None


def codes_behind(value: ir.Value | None) -> tuple[ir.Value, Quantizer] | None:
    """The codes that a value is the dequantization of, with their parameters."""
    node = dequantizer(value)
    found = _plain(node)
    if node is None or found is None or node.inputs[0] is None:
        return None
    return node.inputs[0], found


def _weight_fits(node: ir.Node, data: Quantizer) -> bool:
    """Whether the kernels take the weight: symmetric codes, one scale an output channel."""
    found = stored(node.inputs[1])
    if found is None:
        return False
    q, axis = found.quantizer, 0 if node.op_type == "Conv" else 1
    narrow = q.dtype in (ir.DataType.INT8, ir.DataType.INT4)
    if data.dtype == ir.DataType.INT16 and q.dtype != ir.DataType.INT8:
        return False
    lowest = int(found.codes.min(initial=0))
    return (
        narrow
        and q.symmetric
        and not q.block
        and q.axis in (None, axis)
        and (lowest >= _LOWEST)
    )


def _operands_fit(node: ir.Node) -> Quantizer | None:
    """The parameters of the first operand if all of them have codes that a kernel takes."""
    data = codes_behind(node.inputs[0])
    if data is None:
        return None
    if node.op_type == "Conv" or is_linear(node):
        return data[1] if _weight_fits(node, data[1]) else None
    if node.op_type not in _PAIRS and node.op_type != "MatMul":
        return None
    other = codes_behind(node.inputs[1])
    both = other is not None and other[1].dtype == data[1].dtype == ir.DataType.INT8
    constants = any(stored(v) is not None for v in node.inputs)
    return data[1] if both and not constants else None


def tail_of(node: ir.Node) -> Tail | None:
    """What makes ``node`` the head of an integer operator; ``None`` if it is not one."""
    if node.domain or node.op_type not in _PAIRS | {"Conv", "MatMul"}:
        return None
    data = _operands_fit(node)
    if data is None:
        return None
    nodes, bias, value = [], None, node.outputs[0]
    follower = only_consumer(value)
    if follower is not None and is_linear(node):
        bias = bias_of(follower, value)
        nodes += [follower] if bias is not None else []
    value = nodes[-1].outputs[0] if nodes else value
    return _ending(nodes, bias, value, data)


def _ending(
    nodes: list[ir.Node], bias: ir.Value | None, value: ir.Value, data: Quantizer
) -> Tail | None:
    """Follow clamps to the quantizer."""
    least, most = -np.inf, np.inf
    node = only_consumer(value)
    while node is not None and node.op_type in ("Relu", "Clip"):
        low, high = _range(node)
        # A clamp of a clamp: the inner limits are clamped by the outer ones.
        least, most = (float(np.clip(v, low, high)) for v in (least, most))
        nodes.append(node)
        node = only_consumer(node.outputs[0])
    found = None
    if node is not None and node.domain == "" and node.op_type == "QuantizeLinear":
        found = _plain(node)
    if node is None or found is None or found.dtype != data.dtype:
        return None
    low, high = _code(least, found), _code(most, found)
    return Tail((*nodes, node), bias, low, high)


def _range(node: ir.Node) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = (constant(node.inputs[i]) if i < len(node.inputs) else None for i in (1, 2))
    low, high = ends
    return (
        -np.inf if low is None else float(low),
        np.inf if high is None else float(high),
    )


def _code(number: float, q: Quantizer) -> int:
    """The code of a number; rounding is monotonic, so clamping codes clamps numbers."""
    info = np.iinfo(q.dtype.numpy())
    if not np.isfinite(number):
        return int(info.max if number > 0 else info.min)
    code = np.rint(np.float32(number) / q.scale) + q.zero_point
    return int(np.clip(code, info.min, info.max))


def absorbed(node: ir.Node) -> bool:
    """Whether a DequantizeLinear is part of every operator that reads it."""
    if node.domain or node.op_type != "DequantizeLinear":
        return False
    out = node.outputs[0]
    if out.is_graph_output() or not out.uses():
        return False
    return all(takes_codes(use.node, use.idx) for use in out.uses())


def takes_codes(node: ir.Node, index: int) -> bool:
    """Whether the lowering of ``node`` reads the codes behind its input ``index`` itself."""
    weighted = node.op_type in ("Conv", "ConvTranspose") or is_linear(node)
    if index == 1 and weighted and not node.domain:
        found = stored(node.inputs[1])
        return found is not None and not found.quantizer.block
    return tail_of(node) is not None


def meaning(value: ir.Value) -> Quantizer | None:
    """What the codes of an integer tensor mean; ``None`` if nothing quantizes it."""
    return _made(value) or _read(value)


def _made(value: ir.Value) -> Quantizer | None:
    maker = value.producer()
    while maker is not None and maker.domain == "" and maker.op_type in _MOVES:
        source = maker.inputs[0]
        maker = None if source is None else source.producer()
    if maker is None or maker.op_type != "QuantizeLinear":
        return None
    return quantizer_of(maker)


def _read(value: ir.Value) -> Quantizer | None:
    for use in value.uses():
        if use.node.op_type == "DequantizeLinear" and use.idx == 0:
            return quantizer_of(use.node)
        if use.node.domain == "" and use.node.op_type in _MOVES:
            found = next((q for o in use.node.outputs if (q := _read(o))), None)
            if found is not None:
                return found
    return None


def channels(node: ir.Node) -> int:
    """Output channels of a convolution or linear layer."""
    shape = shape_of(node.outputs[0])
    return shape[1] if node.op_type == "Conv" else shape[-1]
