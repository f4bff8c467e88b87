"""Convolutions in NHWC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, shape_of
from edgevit.quantizers import stored
from edgevit.targets.attributes import data_of, optional, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.elementwise import fused
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.kernels import kernel
from edgevit.targets.litert.padding import (
    Window,
    pad_spatial,
    padding_code,
    scheme,
    window_of,
)
from edgevit.targets.litert.rules import Rule, channels_last
from edgevit.targets.litert.table import Op, all_of, constant_input, floats, rank

__all__ = ["OPS", "padded", "strided"]

_RULE = Rule("channels-last", data=1)
_NHWC = channels_last(4)
_HEADS = 64  # channels up to which a product with unpacked weights is as good
_POINTWISE = Rule("pointwise", data=1, penalty=1)
Array = np.ndarray[Any, Any]


def _weights(node: ir.Node) -> Array:
    value = data_of(node, 1)
    found = stored(value)
    array = constant(value) if found is None else found.numbers()
    if array is None:
        raise ValueError(f"node {node.name!r}: the weight is not constant")
    return array


def _bias(ctx: Context, node: ir.Node, channels: int) -> int:
    value = optional(node, 2)
    array = constant(value)
    if value is None or array is None:
        return ctx.constant(f"zeros {channels}", np.zeros(channels, np.float32))
    return ctx.weight(f"{value.name}", array)


def padded(ctx: Context, tensor: int, window: Window) -> tuple[int, int]:
    """The operand, padded if no scheme says it, and the scheme's code."""
    _, h, w, _ = ctx.writer.shape(tensor)
    name = scheme(window, (h, w))
    if name is not None:
        return tensor, padding_code(name)
    return pad_spatial(ctx, tensor, window.pads), padding_code("VALID")


def strided(window: Window, padding: int) -> dict[str, int]:
    """What the options of both convolutions say of a window."""
    return {
        "padding": padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
    }


def _conv_rule(group: Group) -> Rule:
    """Small 1x1 convolutions, such as those that mix attention heads, work in any layout."""
    node, window = group.head, window_of(group.head)
    if constant(data_of(node, 1)) is None:
        return _RULE  # codes have a kernel with channels last only
    moving = (*window.kernel, *window.strides, *window.dilations, whole(node, "group", 1))
    plain = set(moving) == {1} and not any(window.pads)
    small = max(_weights(node).shape) <= _HEADS
    return _POINTWISE if plain and small else _RULE


def _product(ctx: Context, group: Group) -> None:
    """A 1x1 convolution in logical order: weight [O, C] times data [N, C, H W]."""
    node, x = group.head, data_of(group.head)
    n, c, h, w = shape_of(x)
    weights = _weights(node)
    o = weights.shape[0]
    matrix = np.broadcast_to(weights.reshape(o, c), (n, o, c))
    kernel = ctx.weight(f"{data_of(node, 1).name}", np.ascontiguousarray(matrix))
    data = ctx.read(x, ctx.perm, (n, c, h * w))
    shape = (n, o, h * w)
    options = schema.BatchMatMulOptionsT()
    product = ctx.emit("BATCH_MATMUL", [kernel, data], shape, dtype="float32",
                       options=options)  # fmt: skip
    bias = constant(optional(node, 2))
    offsets = np.zeros(o, np.float32) if bias is None else bias
    added = ctx.constant(f"{data_of(node, 1).name}.bias", offsets.reshape(1, o, 1))
    plus = schema.AddOptionsT(fusedActivationFunction=fused(group.activation))
    ctx.result("ADD", [product, added], options=plus, shape=shape)


def _conv(ctx: Context, group: Group) -> None:
    if _conv_rule(group).flexible and ctx.perm != _NHWC:
        _product(ctx, group)
        return
    node, window = group.head, window_of(group.head)
    x = data_of(node)
    channels = shape_of(x)[1]
    weights = shape_of(data_of(node, 1))
    depthwise = whole(node, "group", 1) == channels and channels > 1
    tensor, padding = padded(ctx, ctx.read(x, _NHWC), window)
    common = strided(window, padding)
    common["fusedActivationFunction"] = fused(group.activation)
    bias = _bias(ctx, node, weights[0])
    if depthwise:
        weight = kernel(ctx, node, lambda a: a.transpose(1, 2, 3, 0), 3, hybrid=False)
        options = schema.DepthwiseConv2DOptionsT(
            depthMultiplier=weights[0] // channels, **common
        )
        version = 1 if window.dilations == (1, 1) else 2
        ctx.result(
            "DEPTHWISE_CONV_2D",
            [tensor, weight, bias],
            options=options,
            version=version,
            perm=_NHWC,
        )
        return
    held = stored(data_of(node, 1))
    dense = held is not None and held.quantizer.dtype == ir.DataType.INT8
    weight = kernel(ctx, node, lambda a: a.transpose(0, 2, 3, 1), 0, hybrid=dense)
    plain = 1 if ctx.writer.dtype(weight) == "float32" else 5
    version = plain if weights[1] == channels else 6
    ctx.result(
        "CONV_2D",
        [tensor, weight, bias],
        options=schema.Conv2DOptionsT(**common),
        version=version,
        perm=_NHWC,
    )


def _dilated(weights: Array, dilations: tuple[int, int]) -> Array:
    """The kernel with zeros between its taps: TRANSPOSE_CONV knows no dilation."""
    i, o, kh, kw = weights.shape
    dh, dw = dilations
    wide = np.zeros((i, o, (kh - 1) * dh + 1, (kw - 1) * dw + 1), weights.dtype)
    wide[:, :, ::dh, ::dw] = weights
    return wide


def _transposed(
    ctx: Context, tensor: int, weights: Array, bias: int, strides: tuple[int, int], name: str
) -> int:
    """TRANSPOSE_CONV without any cropping: [N, (H-1)s+k, (W-1)s+k, O]."""
    n, h, w, _ = ctx.writer.shape(tensor)
    _, o, kh, kw = weights.shape
    shape = (n, (h - 1) * strides[0] + kh, (w - 1) * strides[1] + kw, o)
    size = ctx.constant("output shape", shape, "int32")
    kernel = ctx.weight(name, np.ascontiguousarray(weights.transpose(1, 2, 3, 0)))
    options = schema.TransposeConvOptionsT(
        padding=padding_code("VALID"), strideH=strides[0], strideW=strides[1]
    )
    inputs = [size, kernel, tensor, bias]
    return ctx.emit(
        "TRANSPOSE_CONV", inputs, shape, dtype="float32", options=options, version=3
    )


def _grouped(ctx: Context, tensor: int, node: ir.Node, weights: Array, bias: Array) -> int:
    """One TRANSPOSE_CONV a group, with the channels split before and joined after."""
    groups, strides = whole(node, "group", 1), window_of(node).strides
    name = f"{data_of(node, 1).name}"
    if groups == 1:
        return _transposed(
            ctx, tensor, weights, ctx.constant(f"{name}.bias", bias), strides, name
        )
    n, h, w, c = ctx.writer.shape(tensor)
    outs = []
    for i, (part, offset) in enumerate(
        zip(np.split(weights, groups), np.split(bias, groups), strict=True)
    ):
        begin = ctx.constant("begin", (0, 0, 0, i * (c // groups)), "int32")
        size = ctx.constant("size", (n, h, w, c // groups), "int32")
        piece = ctx.emit(
            "SLICE",
            [tensor, begin, size],
            (n, h, w, c // groups),
            options=schema.SliceOptionsT(),
        )
        added = ctx.constant(f"{name}.bias{i}", np.ascontiguousarray(offset))
        outs.append(_transposed(ctx, piece, part, added, strides, f"{name}.{i}"))
    shape = ctx.writer.shape(outs[0])
    options = schema.ConcatenationOptionsT(axis=3)
    return ctx.emit("CONCATENATION", outs, (*shape[:3], shape[3] * groups), options=options)


def _conv_transpose(ctx: Context, group: Group) -> None:
    """The full transposed convolution, cropped by ``pads``."""
    node = group.head
    window = window_of(node)
    weights = _dilated(_weights(node), window.dilations)
    channels = weights.shape[1] * whole(node, "group", 1)
    bias = constant(optional(node, 2))
    offsets = np.zeros(channels, np.float32) if bias is None else bias
    full = _grouped(ctx, ctx.read(data_of(node), _NHWC), node, weights, offsets)
    n, h, w, c = ctx.writer.shape(full)
    target = permuted(shape_of(group.output), _NHWC)
    top, left = window.pads[:2]
    if target == (n, h, w, c):
        ctx.adopt(group.output, full, _NHWC)
        return
    missing = (max(0, top + target[1] - h), max(0, left + target[2] - w))
    if any(missing):  # output_padding: rows that no window reaches hold the bias alone
        full = _extended(ctx, full, missing, offsets)
    begin = ctx.constant("begin", (0, top, left, 0), "int32")
    size = ctx.constant("size", target, "int32")
    ctx.result("SLICE", [full, begin, size], options=schema.SliceOptionsT(), perm=_NHWC)


def _extended(ctx: Context, full: int, missing: tuple[int, int], bias: Array) -> int:
    """Append rows and columns that hold the bias."""
    for axis, amount in zip((1, 2), missing, strict=True):
        if amount == 0:
            continue
        shape = list(ctx.writer.shape(full))
        shape[axis] = amount
        strip = ctx.constant("bias strip", np.broadcast_to(bias, shape).astype(np.float32))
        joined = list(ctx.writer.shape(full))
        joined[axis] += amount
        options = schema.ConcatenationOptionsT(axis=axis)
        full = ctx.emit("CONCATENATION", [full, strip], joined, options=options)
    return full


_CHECK = all_of(floats, rank(4), constant_input(1, "the weight"))

OPS: Mapping[str, Op] = {
    "Conv": Op(_conv, _conv_rule, _CHECK),
    "ConvTranspose": Op(_conv_transpose, _RULE, _CHECK),
}
