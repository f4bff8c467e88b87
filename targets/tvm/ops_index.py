"""Gathering by indices, resampling."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import attribute, data_of, optional, text, whole
from edgevit.targets.interpolation import Axis, interpolation_matrix, nearest_indices
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.search import ArgMax, CumSum, Pick, Put, TopK
from edgevit.targets.tvm.kernels.windows import GatherRows, Resample
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense
from edgevit.targets.tvm.table import Op, floats

__all__ = ["OPS"]

Matrix = np.ndarray


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


def _plain(ctx: Context, value: ir.Value) -> Held:
    return ctx.copied(ctx.read(value), shape_of(value), None)


def _gather_nd(ctx: Context, node: ir.Node) -> None:
    x, indices, out = data_of(node), data_of(node, 1), node.outputs[0]
    shape, rows, shared = shape_of(x), shape_of(indices), whole(node, "batch_dims", 0)
    depth = rows[-1]
    kernel = Pick(
        math.prod(shape[:shared]),
        math.prod(rows[shared:-1]),
        shape[shared : shared + depth],
        math.prod(shape[shared + depth :]),
        dtype_of(x).name,
        dtype_of(indices).name,
    )
    made = ctx.new(out.name or "", math.prod(shape_of(out)), dtype_of(x).name)
    ctx.program.call(kernel, Ref(made), _plain(ctx, x).ref, _plain(ctx, indices).ref)
    ctx.define(out, Held(made, 0, dense(shape_of(out))))


def _gather_elements(ctx: Context, node: ir.Node) -> None:
    """Constant indices along one axis, as full coordinates."""
    x, indices, out = data_of(node), constant(data_of(node, 1)), node.outputs[0]
    if indices is None:
        raise ValueError(f"node {node.name!r}: the indices are not constant")
    grid = list(np.indices(indices.shape))
    grid[whole(node, "axis", 0)] = indices
    rows = np.stack(grid, axis=-1).astype(np.int32)
    kernel = Pick(1, indices.size, shape_of(x), 1, dtype_of(x).name, "int32")
    made = ctx.new(out.name or "", indices.size, dtype_of(x).name)
    where = ctx.parameter(f"{out.name}/coordinates", rows)
    ctx.program.call(kernel, Ref(made), _plain(ctx, x).ref, where)
    ctx.define(out, Held(made, 0, dense(shape_of(out))))


def _scatter_nd(ctx: Context, node: ir.Node) -> None:
    x, indices, updates = (data_of(node, i) for i in range(3))
    out, shape, depth = node.outputs[0], shape_of(x), shape_of(indices)[-1]
    made = ctx.new(out.name or "", math.prod(shape), dtype_of(x).name)
    held = Held(made, 0, dense(shape))
    ctx.copy_into(held, ctx.read(x), shape)
    kernel = Put(
        math.prod(shape_of(indices)[:-1]),
        shape[:depth],
        math.prod(shape[depth:]),
        dtype_of(x).name,
        dtype_of(indices).name,
    )
    ctx.program.call(kernel, Ref(made), _plain(ctx, updates).ref, _plain(ctx, indices).ref)
    ctx.define(out, held)


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _cumsum(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    axis = constant(data_of(node, 1))
    if axis is None:
        raise ValueError(f"node {node.name!r}: the axis is not constant")
    place = int(axis.reshape(-1)[0]) % len(shape_of(x))
    exclusive, reverse = (bool(whole(node, n, 0)) for n in ("exclusive", "reverse"))
    made = ctx.new(out.name or "", math.prod(shape_of(x)))
    kernel = CumSum(*_around(shape_of(x), place), exclusive, reverse)
    ctx.program.call(kernel, Ref(made), _plain(ctx, x).ref)
    ctx.define(out, Held(made, 0, dense(shape_of(x))))


def _arg_max(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    axis = whole(node, "axis", 0) % len(shape_of(x))
    kernel = ArgMax(*_around(shape_of(x), axis), bool(whole(node, "select_last_index", 0)))
    made = ctx.new(out.name or "", math.prod(shape_of(out)), "int64")
    ctx.program.call(kernel, Ref(made), _plain(ctx, x).ref)
    ctx.define(out, Held(made, 0, dense(shape_of(out))))


def _top_k(ctx: Context, node: ir.Node) -> None:
    x, (values, indices) = data_of(node), node.outputs
    outer, length, _ = _around(shape_of(x), len(shape_of(x)) - 1)
    count = shape_of(values)[-1]
    held = [
        Held(ctx.new(v.name or "", outer * count, dtype), 0, dense(shape_of(v)))
        for v, dtype in ((values, "float32"), (indices, "int64"))
    ]
    taken = ctx.new(f"{values.name}/taken", length, "int32")
    kernel = TopK(outer, length, count, bool(whole(node, "largest", 1)))
    ctx.program.call(kernel, held[0].ref, held[1].ref, _plain(ctx, x).ref, Ref(taken))
    for value, made in zip((values, indices), held, strict=True):
        ctx.define(value, made)


def _fixed_axis(node: ir.Node) -> str | None:
    return floats(node) or (
        None if data_of(node, 1).const_value is not None else "the axis must be constant"
    )


def _last(node: ir.Node) -> str | None:
    rank = len(shape_of(data_of(node)))
    axis = whole(node, "axis", -1)
    return floats(node) if axis in (-1, rank - 1) else f"axis {axis}: only the last is lowered"


def _constant_indices(node: ir.Node) -> str | None:
    known = data_of(node, 1).const_value is not None
    return None if known else "the indices must be constant"


def _replacing(node: ir.Node) -> str | None:
    if text(node, "reduction", "none") != "none":
        return "only reduction='none' is lowered"
    return _indexed(node)


OPS: Mapping[str, Op] = {
    "ArgMax": Op(_arg_max, floats),
    "CumSum": Op(_cumsum, _fixed_axis),
    "Gather": Op(_gather, _indexed),
    "GatherElements": Op(_gather_elements, _constant_indices),
    "GatherND": Op(_gather_nd, _indexed),
    "Resize": Op(_resize, _modes),
    "ScatterND": Op(_scatter_nd, _replacing),
    "TopK": Op(_top_k, _last),
}
