"""Operators on codes: int8 activations (or int16 around zero), int8 or int4 weights.

The kernels compute ``clamp(round(acc * s_x s_w / s_y) + z_y)`` from an int32 (int64) sum
``acc`` that the bias is part of, with the factor as a fixed-point number (TensorFlow Lite's
quantization specification).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.errors import GateError
from edgevit.model import constant, shape_of
from edgevit.quantizers import Quantizer, Stored, stored
from edgevit.targets.attributes import data_of, optional, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.convolution import padded, strided
from edgevit.targets.litert.elementwise import fused, operands
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.kernels import codes_kernel
from edgevit.targets.litert.linear import products
from edgevit.targets.litert.padding import window_of
from edgevit.targets.litert.quantized import codes_behind, meaning
from edgevit.targets.litert.rules import Rule, channels_last
from edgevit.targets.litert.table import Op
from edgevit.targets.litert.writer import parameters
from edgevit.targets.neighbors import is_linear

__all__ = ["INTEGER"]

_NHWC = channels_last(4)


@dataclass(frozen=True)
class _Site:
    """The codes that a group reads and writes.

    Attributes:
        data: Codes of the first operand.
        read: What they mean.
        made: What the result's codes mean.
        weight: The stored weight; ``None`` for two activations.
    """

    data: ir.Value
    read: Quantizer
    made: Quantizer
    weight: Stored | None


def _site(group: Group) -> _Site:
    found, made = codes_behind(group.head.inputs[0]), meaning(group.output)
    if found is None or made is None:
        raise ValueError(f"node {group.head.name!r} has no codes")
    return _Site(found[0], found[1], made, stored(data_of(group.head, 1)))


def _bias(ctx: Context, group: Group, site: _Site, channels: int) -> int:
    """The bias in units of the sum: scale ``s_x s_w`` in float32, as kernels multiply.

    Raises:
        GateError: It does not fit into the integers that kernels sum in.
    """
    if site.weight is None:
        raise ValueError(f"node {group.head.name!r} has no weight")
    value = group.bias or optional(group.head, 2)
    array = constant(value) if group.head.op_type == "Conv" or group.bias else None
    numbers = np.zeros(channels) if array is None else array.reshape(-1).astype(np.float64)
    scale = np.float32(site.read.scale) * site.weight.quantizer.scale.astype(np.float32)
    wide = site.read.dtype == ir.DataType.INT16
    info = np.iinfo(np.int64 if wide else np.int32)
    codes = np.rint(numbers / scale.astype(np.float64))
    fits = np.abs(codes) < float(info.max)  # NaN does not
    if not fits.all():
        channel = int(np.argmin(fits))
        raise _too_wide(group, channel, numbers[channel], codes[channel], info)
    params = parameters(scale, np.zeros(scale.shape, np.int64), 0)
    name = f"{group.output.name}/bias"
    return ctx.writer.codes(name, codes, "int64" if wide else "int32", params)


def _too_wide(group: Group, channel: int, bias: float, code: float, info: Any) -> GateError:
    return GateError(
        f"bias of {group.output.name!r} does not fit into int{info.bits}: channel {channel} "
        f"has {bias:.3g}, {abs(code):.3g} units of its scale, at most {info.max:.3g}",
        hint="its weights are all but zero: set them to zero, raise least_scale of "
        "[quantization.PRECISION] in a device file, or leave the layer float with "
        "quantize{exclude=NAME}",
    )


def _activation(group: Group, made: Quantizer) -> str | None:
    """The fused activation that clamps codes as the group does; ``None`` if there is none."""
    if group.integer is None:
        raise ValueError("the group is not one on codes")
    info, zero = np.iinfo(made.dtype.numpy()), int(made.zero_point)
    low, high = group.integer.low, group.integer.high

    def code(number: float) -> int:
        return int(np.clip(np.rint(number / made.scale) + zero, info.min, info.max))

    if (low, high) == (info.min, info.max):
        return "NONE"
    known = {
        (code(0.0), int(info.max)): "RELU",
        (code(0.0), code(6.0)): "RELU6",
        (code(-1.0), code(1.0)): "RELU_N1_TO_1",
    }
    return known.get((low, high))


def _finish(
    ctx: Context, group: Group, site: _Site, op: str, inputs: Sequence[int], options: Any,
    version: int, perm: tuple[int, ...], shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Write the operator; clamp behind it where it cannot."""
    activation = _activation(group, site.made)
    clamps = hasattr(options, "fusedActivationFunction")
    if activation is not None and (clamps or activation == "NONE"):
        if clamps:
            options.fusedActivationFunction = fused(activation)
        ctx.result(op, inputs, options=options, version=version, perm=perm, shape=shape)
        return
    tensor = ctx.tensor(f"{group.output.name}/{op.lower()}", shape, group.output)
    ctx.writer.operator(op, inputs, [tensor], version=version, options=options)
    _clamp(ctx, group, site, tensor, perm)


def _clamp(
    ctx: Context, group: Group, site: _Site, tensor: int, perm: tuple[int, ...]
) -> None:
    """MAXIMUM and MINIMUM of codes: narrow precisions use a part of their dtype."""
    tail, shape = group.integer, ctx.writer.shape(tensor)
    if tail is None:
        raise ValueError("the group is not one on codes")
    dtype = site.made.dtype.name.lower()
    params = ctx.writer.quantization(tensor)

    def bound(label: str, code: int) -> int:
        return ctx.writer.codes(label, np.full((1,), code), dtype, params)

    options = schema.MaximumMinimumOptionsT()
    name = f"{group.output.name}/maximum"
    raised = ctx.tensor(name, shape, group.output)
    ctx.writer.operator("MAXIMUM", [tensor, bound(f"{name}/low", tail.low)], [raised],
                        version=2, options=options)  # fmt: skip
    high = bound(f"{group.output.name}/high", tail.high)
    ctx.result("MINIMUM", [raised, high], options=options, version=2, perm=perm, shape=shape)


def _version(site: _Site, byte: int, half: int, wide: int) -> int:
    """Operator version by the dtypes: int8, int4 weights, int16 activations."""
    if site.read.dtype == ir.DataType.INT16:
        return wide
    narrow = site.weight is not None and site.weight.quantizer.dtype == ir.DataType.INT4
    return half if narrow else byte


def _conv(ctx: Context, group: Group) -> None:
    node, site = group.head, _site(group)
    if site.weight is None:
        raise ValueError(f"node {node.name!r} has no weight")
    filters, inner = site.weight.codes.shape[:2]
    window, total = window_of(node), shape_of(site.data)[1]
    tensor, padding = padded(ctx, ctx.read(site.data, _NHWC), window)
    bias = _bias(ctx, group, site, filters)
    common = strided(window, padding)
    shape = permuted(shape_of(group.output), _NHWC)
    if whole(node, "group", 1) == total and total > 1:
        kernel = codes_kernel(ctx, site.weight, lambda a: a.transpose(1, 2, 3, 0), 3)
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=filters // total, **common)
        _finish(ctx, group, site, "DEPTHWISE_CONV_2D", [tensor, kernel, bias], options,
                _version(site, 3, 7, 5), _NHWC, shape)  # fmt: skip
        return
    kernel = codes_kernel(ctx, site.weight, lambda a: a.transpose(0, 2, 3, 1), 0)
    options = schema.Conv2DOptionsT(**common)
    version = 6 if inner != total else _version(site, 3, 7, 4)
    _finish(
        ctx, group, site, "CONV_2D", [tensor, kernel, bias], options, version, _NHWC, shape
    )


def _linear(ctx: Context, group: Group) -> None:
    site = _site(group)
    if site.weight is None:
        raise ValueError(f"node {group.head.name!r} has no weight")
    k, n = site.weight.codes.shape
    full = permuted(shape_of(site.data), ctx.perm)
    shape = full if len(full) > 1 else (1, k)
    tensor = ctx.read(site.data, ctx.perm, shape)
    kernel = codes_kernel(ctx, site.weight, np.transpose, 0)
    inputs = [tensor, kernel, _bias(ctx, group, site, n)]
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    _finish(ctx, group, site, "FULLY_CONNECTED", inputs, options,
            _version(site, 5, 10, 7), ctx.perm, (*shape[:-1], n))  # fmt: skip


def _products(ctx: Context, group: Group) -> None:
    site, other = _site(group), codes_behind(group.head.inputs[1])
    if other is None:
        raise ValueError(f"node {group.head.name!r} has no codes on the right")
    inputs, options, shape = products(ctx, site.data, other[0])
    plain = tuple(range(len(shape_of(group.output))))
    _finish(ctx, group, site, "BATCH_MATMUL", inputs, options, 2, plain, shape)


def _matmul(ctx: Context, group: Group) -> None:
    (_linear if is_linear(group.head) else _products)(ctx, group)


def _matmul_rule(group: Group) -> Rule:
    linear = is_linear(group.head)
    return Rule("same", last="last", data=1) if linear else Rule("products")


_PAIRS: Mapping[str, tuple[str, type[Any], int]] = {
    "Add": ("ADD", schema.AddOptionsT, 2),
    "Sub": ("SUB", schema.SubOptionsT, 2),
    "Mul": ("MUL", schema.MulOptionsT, 2),
}


def _pair(ctx: Context, group: Group) -> None:
    """Sum, difference or product of two tensors of codes, each with its own meaning."""
    site, node = _site(group), group.head
    found = [codes_behind(v) for v in node.inputs]
    tensors, shape = operands(ctx, [f[0] for f in found if f is not None])
    op, options, version = _PAIRS[node.op_type]
    _finish(ctx, group, site, op, tensors, options(), version, ctx.perm, shape)


_PLAIN = Rule("elementwise")

INTEGER: Mapping[str, Op] = {
    "Conv": Op(_conv, Rule("channels-last", data=1)),
    "MatMul": Op(_matmul, _matmul_rule),
    **{op: Op(_pair, _PLAIN) for op in _PAIRS},
}
