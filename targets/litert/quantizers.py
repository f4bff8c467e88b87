"""QuantizeLinear and DequantizeLinear between operators on codes and operators on floats."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of
from edgevit.quantizers import quantizer_of, stored
from edgevit.targets.attributes import data_of
from edgevit.targets.litert.context import Context
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.kernels import codes_kernel, widened
from edgevit.targets.litert.quantized import absorbed
from edgevit.targets.litert.rules import Rule
from edgevit.targets.litert.table import Op

__all__ = ["OPS"]

_ANY = Rule("same", data=1)
_CODES = frozenset({"int4", "int8", "uint8", "int16"})


def _quantize(ctx: Context, group: Group) -> None:
    tensor = ctx.read(data_of(group.head), ctx.perm)
    options = schema.QuantizeOptionsT()
    ctx.result("QUANTIZE", [tensor], options=options, shape=ctx.writer.shape(tensor))


def _dequantize(ctx: Context, group: Group) -> None:
    """Of an activation. A stored constant is written for each operator that reads it."""
    node = group.head
    if absorbed(node):
        return
    found = stored(node.outputs[0])
    if found is None:
        tensor = ctx.read(data_of(node), ctx.perm)
        options = schema.DequantizeOptionsT()
        shape = ctx.writer.shape(tensor)
        ctx.result("DEQUANTIZE", [tensor], options=options, version=2, shape=shape)
        return
    axis = found.quantizer.axis
    where = 0 if axis is None else ctx.perm.index(axis)
    codes = codes_kernel(ctx, found, lambda a: a.transpose(ctx.perm), where)
    ctx.adopt(group.output, widened(ctx, node.outputs[0], codes), ctx.perm)


def _parameters(node: ir.Node) -> str | None:
    found = quantizer_of(node)
    if found is None:
        return "scale and zero point must be constant"
    if found.block:
        return "block-wise scales have no kernel: choose scales of channels"
    name = found.dtype.name.lower()
    if name not in _CODES:
        return f"codes of {name} have no kernel: only {', '.join(sorted(_CODES))} have"
    if found.dtype == ir.DataType.INT16 and not found.symmetric:
        return "int16 codes have a zero point other than 0"
    held = constant(data_of(node)) is not None
    if found.axis is not None and not held:
        return "an activation has scales of channels: kernels take one a tensor"
    return None


def _numbers(node: ir.Node) -> str | None:
    """The numbers are float32."""
    value = node.outputs[0] if node.op_type == "DequantizeLinear" else data_of(node)
    dtype = dtype_of(value).name
    return None if dtype == "float32" else f"quantized numbers are {dtype}, not float32"


def _check(node: ir.Node) -> str | None:
    return _parameters(node) or _numbers(node)


OPS: Mapping[str, Op] = {
    "QuantizeLinear": Op(_quantize, _ANY, _check),
    "DequantizeLinear": Op(_dequantize, _ANY, _check),
}
