"""Resize: native where TFLite's formula is ONNX's, else a gather or two matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import shape_of
from edgevit.targets.attributes import attribute, data_of, text
from edgevit.targets.interpolation import (
    Axis,
    interpolation_matrix,
    native_linear,
    native_nearest,
    nearest_indices,
)
from edgevit.targets.litert.context import Context
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.rules import Rule, channels_last
from edgevit.targets.litert.table import Op, all_of, floats, rank

__all__ = ["OPS"]

_NHWC = channels_last(4)
_RULE = Rule("channels-last", data=1)
_SAME_WEIGHTS = 1e-6  # float32 rounding of source coordinates below 2^3; larger: a matrix
_FLAGS = ((False, False), (True, False), (False, True))  # align_corners, half_pixel_centers


def _axes(node: ir.Node) -> tuple[Axis, Axis]:
    """How height and width are resized."""
    source, target = shape_of(data_of(node)), shape_of(node.outputs[0])
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    given = (
        None if scales is None or scales.const_value is None else scales.const_value.numpy()
    )
    axes = node.attributes.get("axes")
    order = list(range(4)) if axes is None else [a % 4 for a in axes.as_ints()]

    def axis(i: int) -> Axis:
        scale = target[i] / source[i]
        if given is not None and given.size and i in order:
            scale = float(given[order.index(i)])
        return Axis(
            source[i],
            target[i],
            scale,
            text(node, "coordinate_transformation_mode", "half_pixel"),
        )

    return axis(2), axis(3)


def _resize(ctx: Context, group: Group) -> None:
    mode = text(group.head, "mode", "nearest")
    tensor = ctx.read(data_of(group.head), _NHWC)
    if mode == "nearest":
        _nearest(ctx, group, tensor)
    else:
        _weighted(ctx, group, tensor, mode)


def _native(
    ctx: Context, group: Group, op: str, tensor: int, flags: tuple[bool, bool]
) -> None:
    size = ctx.constant("size", shape_of(group.output)[2:], "int32")
    made: Any = schema.ResizeNearestNeighborOptionsT
    if op == "RESIZE_BILINEAR":
        made = schema.ResizeBilinearOptionsT
    ctx.result(
        op, [tensor, size], options=made(*flags), version=3 if flags[1] else 1, perm=_NHWC
    )


def _nearest(ctx: Context, group: Group, tensor: int) -> None:
    rounding = text(group.head, "nearest_mode", "round_prefer_floor")
    axes = _axes(group.head)
    wanted = [nearest_indices(a, rounding) for a in axes]
    for flags in _FLAGS:
        native = [native_nearest(a, *flags) for a in axes]
        if all(np.array_equal(w, n) for w, n in zip(wanted, native, strict=True)):
            _native(ctx, group, "RESIZE_NEAREST_NEIGHBOR", tensor, flags)
            return
    for axis, where in zip((1, 2), wanted, strict=True):
        shape = list(ctx.writer.shape(tensor))
        shape[axis] = len(where)
        options = schema.GatherOptionsT(axis=axis)
        indices = ctx.constant("nearest", where, "int32")
        tensor = ctx.emit("GATHER", [tensor, indices], shape, options=options)
    ctx.adopt(group.output, tensor, _NHWC)


def _weighted(ctx: Context, group: Group, tensor: int, mode: str) -> None:
    node = group.head
    cubic = attribute(node, "cubic_coeff_a", -0.75)
    outside = bool(attribute(node, "exclude_outside", 0))
    axes = _axes(node)
    matrices = [interpolation_matrix(a, mode, cubic, outside) for a in axes]
    for flags in _FLAGS if mode == "linear" else ():
        native = [native_linear(a, *flags) for a in axes]
        pairs = zip(matrices, native, strict=True)
        if all(np.abs(m - n).max() <= _SAME_WEIGHTS for m, n in pairs):
            _native(ctx, group, "RESIZE_BILINEAR", tensor, flags)
            return
    n, h, w, c = ctx.writer.shape(tensor)
    oh, ow = axes[0].target, axes[1].target
    rows = ctx.reshape(tensor, (n, h, w * c))
    tall = _product(ctx, matrices[0], rows, (n, oh, w * c))
    columns = ctx.reshape(tall, (n * oh, w, c))
    wide = _product(ctx, matrices[1], columns, (n * oh, ow, c))
    ctx.adopt(group.output, wide, _NHWC)


def _product(ctx: Context, matrix: Any, tensor: int, shape: tuple[int, ...]) -> int:
    """Matrix @ tensor over the middle axis; the kernel repeats the matrix over the first."""
    options = schema.BatchMatMulOptionsT()
    weights = ctx.constant("interpolation", matrix.astype(np.float32)[None])
    return ctx.emit("BATCH_MATMUL", [weights, tensor], shape, dtype="float32", options=options)


_COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
)


def _modes(node: ir.Node) -> str | None:
    mode = text(node, "mode", "nearest")
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear", "cubic"):
        return f"mode {mode!r} is not lowered"
    if coordinates not in _COORDINATES:
        return f"coordinate_transformation_mode {coordinates!r} is not lowered"
    if attribute(node, "antialias", 0):
        return "antialias=1 is not lowered"
    before, after = shape_of(data_of(node)), shape_of(node.outputs[0])
    return None if before[:2] == after[:2] else "only height and width can be resized"


OPS: Mapping[str, Op] = {"Resize": Op(_resize, _RULE, all_of(floats, rank(4), _modes))}
