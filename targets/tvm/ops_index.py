"""Gathering by indices, resampling."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.interpolation import Axis, interpolation_matrix, nearest_indices
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.windows import GatherRows, Resample
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense
from edgevit.targets.tvm.table import Op, attribute, data_of, floats, optional, text, whole

__all__ = ["OPS"]

Matrix = np.ndarray  # type: ignore[type-arg]


def _gather(ctx: Context, node: ir.Node) -> None:
    x, indices, out = data_of(node), data_of(node, 1), node.outputs[0]
    shape, axis = shape_of(x), whole(node, "axis", 0)
    data = ctx.copied(ctx.read(x), shape, None)
    where = ctx.copied(ctx.read(indices), shape_of(indices), None)
    made = ctx.new(out.name or "", math.prod(shape_of(out)), dtype_of(x).name)
    kernel = GatherRows(
        math.prod(shape[:axis]),
        shape[axis],
        math.prod(shape_of(indices)),
        math.prod(shape[axis + 1 :]),
        dtype_of(x).name,
        dtype_of(indices).name,
    )
    ctx.program.call(kernel, Ref(made), data.ref, where.ref)
    ctx.define(out, Held(made, 0, dense(shape_of(out))))


def _axis(node: ir.Node, axis: int) -> Axis:
    source, target = shape_of(data_of(node))[axis], shape_of(node.outputs[0])[axis]
    scales = constant(optional(node, 2))
    scale = target / source if scales is None or not scales.size else float(scales[axis])
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    return Axis(source, target, scale, mode)


def _matrix(node: ir.Node, axis: int) -> Matrix:
    """[target, source]: what the node does along an axis."""
    one, mode = _axis(node, axis), text(node, "mode", "nearest")
    if mode == "nearest":
        rounding = text(node, "nearest_mode", "round_prefer_floor")
        return np.eye(one.source)[nearest_indices(one, rounding)]
    cubic = attribute(node, "cubic_coeff_a", -0.75)
    outside = bool(whole(node, "exclude_outside", 0))
    return interpolation_matrix(one, mode, cubic, outside)


def _resampled(
    ctx: Context, held: Held, shape: tuple[int, ...], axis: int, matrix: Matrix, label: str
) -> Held:
    """Resample one axis of a dense tensor whose axes lie channels-last."""
    target, source = matrix.shape
    taps = max(1, int((matrix != 0).sum(axis=1).max()))
    picks = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]
    weights = np.take_along_axis(matrix, picks, axis=1).astype(np.float32)
    order = _channels_last(len(shape))
    lying = [shape[i] for i in order]
    at = order.index(axis)
    kernel = Resample(math.prod(lying[:at]), source, target, math.prod(lying[at + 1 :]), taps)
    new = tuple(target if i == axis else s for i, s in enumerate(shape))
    made = ctx.new(label, math.prod(new))
    ctx.program.call(
        kernel,
        Ref(made),
        held.ref,
        ctx.parameter(f"{label}/weights", weights),
        ctx.parameter(f"{label}/indices", picks.astype(np.int32)),
    )
    return Held(made, 0, dense(new, order))


def _channels_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def _resize(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    shape, target = shape_of(x), shape_of(out)
    held = ctx.copied(ctx.read(x), shape, _channels_last(len(shape)))
    for axis in range(len(shape)):
        if shape[axis] == target[axis]:
            continue
        label = f"{out.name}/axis{axis}"
        held = _resampled(ctx, held, shape, axis, _matrix(node, axis), label)
        shape = tuple(target[axis] if i == axis else s for i, s in enumerate(shape))
    ctx.define(out, held)


def _modes(node: ir.Node) -> str | None:
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    known = (
        "align_corners",
        "asymmetric",
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
    )
    if mode not in known:
        return f"coordinate_transformation_mode {mode!r}"
    return "antialias" if whole(node, "antialias", 0) else floats(node)


def _indexed(node: ir.Node) -> str | None:
    dtype = dtype_of(data_of(node, 1)).name
    return None if dtype in ("int32", "int64") else f"indices of dtype {dtype}"


OPS: Mapping[str, Op] = {
    "Gather": Op(_gather, _indexed),
    "Resize": Op(_resize, _modes),
}
