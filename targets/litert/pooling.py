"""Pooling in NHWC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import dtype_of, shape_of
from edgevit.targets.attributes import data_of, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.elementwise import fused
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.padding import (
    Window,
    pad_spatial,
    padding_code,
    scheme,
    window_of,
)
from edgevit.targets.litert.rules import Rule, channels_last
from edgevit.targets.litert.table import Op, all_of, floats, rank

__all__ = ["OPS", "share_inside"]

_RULE = Rule("channels-last", data=1)
_NHWC = channels_last(4)
_LOWEST_CODE = -128
_LOWEST = float(np.finfo(np.float32).min)


def _options(window: Window, padding: str, activation: str) -> Any:
    return schema.Pool2DOptionsT(
        padding=padding_code(padding),
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
        fusedActivationFunction=fused(activation),
    )


def _pool_window(node: ir.Node) -> Window:
    """The window of a pooling; ``ceil_mode`` becomes the pads that give its result's size.

    What is past the pads lies in no average and is no maximum, as padding is.
    """
    window = window_of(node)
    if not whole(node, "ceil_mode", 0):
        return window
    size, out = shape_of(data_of(node))[2:], shape_of(node.outputs[0])[2:]
    top, left, bottom, right = window.pads
    needed = [
        (out[i] - 1) * window.strides[i] + window.extent[i] - size[i] - start
        for i, start in enumerate((top, left))
    ]
    ends = (max(bottom, needed[0]), max(right, needed[1]))
    return dataclasses.replace(window, pads=(top, left, *ends))


def _max_pool(ctx: Context, group: Group) -> None:
    window = _pool_window(group.head)
    tensor = ctx.read(data_of(group.head), _NHWC)
    _, h, w, _ = ctx.writer.shape(tensor)
    name = scheme(window, (h, w))
    if name is None:
        lowest = _LOWEST if ctx.writer.dtype(tensor) == "float32" else _LOWEST_CODE
        tensor = pad_spatial(ctx, tensor, window.pads, lowest)
    options = _options(window, name or "VALID", group.activation)
    ctx.result("MAX_POOL_2D", [tensor], options=options, perm=_NHWC)


def share_inside(window: Window, size: tuple[int, int], out: tuple[int, int]) -> Any:
    """Share of each window that lies inside of the image: float64 [out_h, out_w]."""
    shares = []
    for axis in (0, 1):
        start = np.arange(out[axis]) * window.strides[axis] - window.pads[axis]
        stop = np.minimum(start + window.kernel[axis], size[axis])
        shares.append((stop - np.maximum(start, 0)) / window.kernel[axis])
    return shares[0][:, None] * shares[1][None, :]


def _is_sampling(window: Window, size: tuple[int, int]) -> bool:
    """Whether windows of one pixel take every n-th row and column of a multiple of n."""
    single = window.kernel == (1, 1) and not any(window.pads)
    return single and all(d % s == 0 for d, s in zip(size, window.strides, strict=True))


def _sample(ctx: Context, group: Group, tensor: int, strides: tuple[int, int]) -> None:
    """The same as a SLICE, because XNNPACK takes no pooling of one pixel."""
    n, h, w, c = ctx.writer.shape(tensor)
    rows, columns = h // strides[0], w // strides[1]
    cut = ctx.reshape(tensor, (n, rows, strides[0], columns, strides[1] * c))
    size = (n, rows, 1, columns, c)
    begin = ctx.constant("begin", (0,) * 5, "int32")
    operands = [cut, begin, ctx.constant("size", size, "int32")]
    ctx.result("SLICE", operands, options=schema.SliceOptionsT(), perm=_NHWC, shape=size)


def _average_pool(ctx: Context, group: Group) -> None:
    """TFLite leaves padding out of the average, and only SAME pads.

    Other pads are made explicit; if they are not to be counted, each window's mean is
    divided by the share of it that lies inside.
    """
    node, window = group.head, _pool_window(group.head)
    tensor = ctx.read(data_of(node), _NHWC)
    _, h, w, _ = ctx.writer.shape(tensor)
    if group.activation == "NONE" and _is_sampling(window, (h, w)):
        _sample(ctx, group, tensor, window.strides)
        return
    counted = bool(whole(node, "count_include_pad", 0))
    name = scheme(window, (h, w))
    if name == "VALID" or (name == "SAME" and not counted):
        options = _options(window, name, group.activation)
        ctx.result("AVERAGE_POOL_2D", [tensor], options=options, perm=_NHWC)
        return
    tensor = pad_spatial(ctx, tensor, window.pads)
    if counted:
        options = _options(window, "VALID", group.activation)
        ctx.result("AVERAGE_POOL_2D", [tensor], options=options, perm=_NHWC)
        return
    n, oh, ow, c = permuted(shape_of(group.output), _NHWC)
    plain = _options(window, "VALID", "NONE")
    mean = ctx.emit("AVERAGE_POOL_2D", [tensor], (n, oh, ow, c), options=plain)
    factor = 1 / share_inside(window, (h, w), (oh, ow))
    grid = ctx.constant("inverse share", factor.reshape(1, oh, ow, 1), "float32")
    scaled = schema.MulOptionsT(fusedActivationFunction=fused(group.activation))
    ctx.result("MUL", [mean, grid], options=scaled, perm=_NHWC)


def _dense(node: ir.Node) -> str | None:
    dilations = window_of(node).dilations
    return (
        None if dilations == (1, 1) else f"dilations {dilations}: pooling has no such kernel"
    )


def _divisor(node: ir.Node) -> str | None:
    """Counted padding ends where the pads end; ``ceil_mode`` may reach past it."""
    past = _pool_window(node).pads != window_of(node).pads
    if past and whole(node, "count_include_pad", 0):
        return "count_include_pad=1 with ceil_mode=1: a window reaches past the counted pads"
    return None


def _ordered(node: ir.Node) -> str | None:
    """Codes are in the order of their numbers, so the largest is the same."""
    return None if dtype_of(data_of(node)).name == "int8" else floats(node)


_CHECK = all_of(floats, rank(4), _dense)

OPS: Mapping[str, Op] = {
    "MaxPool": Op(_max_pool, _RULE, all_of(_ordered, rank(4), _dense)),
    "AveragePool": Op(_average_pool, _RULE, all_of(_CHECK, _divisor)),
}
