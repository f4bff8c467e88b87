"""Resize: MIL's own operations where their sampling grid is the model's, else exact maps.

Case 1, nearest, both spatial axes repeat each element: ``upsample_nearest_neighbor``.
Case 2, nearest, otherwise: one strided slice or constant gather an axis.
Case 3, linear, a mode of ``resize_bilinear`` has the same weights: that operation.
Case 4, linear or cubic, otherwise: one product with a constant matrix an axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml import resample
from edgevit.targets.coreml.context import Array, Context
from edgevit.targets.coreml.resample import Axis
from edgevit.targets.coreml.rule import Rule, floats, i32, text

__all__ = ["TABLE"]

_MODES = ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "DEFAULT")

# Weights are compared where the result is float32 at best: 2**-20 of a weight.
_SAME = 2.0**-20


def _coordinates(node: ir.Node) -> str:
    return text(node, "coordinate_transformation_mode", "half_pixel")


def _rounding(node: ir.Node) -> str:
    return text(node, "nearest_mode", "round_prefer_floor")


def _axes(node: ir.Node) -> dict[int, Axis]:
    """The axes whose size changes."""
    x = node.inputs[0]
    assert x is not None
    old, new = shape_of(x), shape_of(node.outputs[0])
    found = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scales = np.zeros(0) if found is None else found
    given = node.attributes.get_ints("axes", list(range(len(old))))
    by_axis = {axis % len(old): i for i, axis in enumerate(given)}
    changed = {}
    for axis in (i for i in range(len(old)) if old[i] != new[i]):
        scale = float(scales[by_axis[axis]]) if scales.size else new[axis] / old[axis]
        changed[axis] = Axis(old[axis], new[axis], scale)
    return changed


def _repeats(index: Array, size: int) -> int:
    """How often each element is repeated in a row; 0 if the map is not that."""
    times = len(index) // size
    same = len(index) == times * size and np.array_equal(
        index, np.repeat(np.arange(size), times)
    )
    return times if same else 0


def _nearest(ctx: Context, node: ir.Node) -> None:
    x, out = node.inputs[0], node.outputs[0]
    axes, shape = _axes(node), ctx.shape(x)
    maps = {
        i: resample.indices(a, _coordinates(node), _rounding(node)) for i, a in axes.items()
    }
    last = (len(shape) - 2, len(shape) - 1)
    times = [_repeats(maps[i], shape[i]) if i in maps else 1 for i in last]
    if set(maps) <= set(last) and all(times) and ctx.is_float(out) and len(shape) >= 3:
        ctx.emit(
            out,
            "upsample_nearest_neighbor",
            x=ctx.get(x),
            scale_factor_height=i32(times[0]),
            scale_factor_width=i32(times[1]),
        )
        return
    var = ctx.get(x)
    for axis in list(maps)[:-1]:
        var = _pick(ctx, node, var, axis, maps[axis])
    axis = list(maps)[-1]
    ctx.emit(out, "gather", x=var, **_gathered(ctx, node, axis, maps[axis]))


def _gathered(ctx: Context, node: ir.Node, axis: int, index: Array) -> dict[str, Any]:
    where = ctx.const(index, f"{node.outputs[0].name}__index{axis}")
    return {
        "indices": where,
        "axis": i32(axis),
        "batch_dims": i32(0),
        **ctx.checked(),
    }


def _pick(ctx: Context, node: ir.Node, var: Any, axis: int, index: Array) -> Any:
    options = _gathered(ctx, node, axis, index)
    return ctx.temp(node.outputs[0], f"axis{axis}", "gather", x=var, **options)


def _matrices(node: ir.Node) -> dict[int, Array]:
    coefficient = floats(node, "cubic_coeff_a", -0.75)
    exclude = bool(node.attributes.get_int("exclude_outside", 0))
    mode = text(node, "mode", "nearest")
    return {
        i: resample.weights(axis, _coordinates(node), mode, coefficient, exclude)
        for i, axis in _axes(node).items()
    }


def _native_mode(node: ir.Node, matrices: dict[int, Array]) -> str | None:
    """The ``sampling_mode`` whose weights are the model's on every axis."""
    for mode in _MODES:
        grids = {i: resample.bilinear_grid(a, mode) for i, a in _axes(node).items()}
        if all(np.abs(grids[i] - matrices[i]).max() <= _SAME for i in grids):
            return mode
    return None


def _weighted(ctx: Context, node: ir.Node) -> None:
    out, x = node.outputs[0], ctx.get(node.inputs[0])
    shape, matrices = ctx.shape(out), _matrices(node)
    mode = _native_mode(node, matrices)
    if mode is not None:
        ctx.emit(
            out,
            "resize_bilinear",
            x=x,
            target_size_height=i32(shape[-2]),
            target_size_width=i32(shape[-1]),
            sampling_mode=mode,
        )
        return
    rank = len(shape)
    steps = [axis for axis in (rank - 2, rank - 1) if axis in matrices]
    for axis in steps[:-1]:
        x = ctx.temp(out, f"axis{axis}", "matmul", **_product(ctx, node, x, axis, matrices))
    ctx.emit(out, "matmul", **_product(ctx, node, x, steps[-1], matrices))


def _product(
    ctx: Context, node: ir.Node, var: Any, axis: int, matrices: dict[int, Array]
) -> dict[str, Any]:
    """Rows: ``M x``; columns: ``x M^T``."""
    name = f"{node.outputs[0].name}__weights{axis}"
    rows = axis == len(ctx.shape(node.outputs[0])) - 2
    matrix = ctx.const(matrices[axis] if rows else matrices[axis].T, name)
    x, y = (matrix, var) if rows else (var, matrix)
    return {"x": x, "y": y, "transpose_x": False, "transpose_y": False}


def _resize(ctx: Context, node: ir.Node) -> None:
    if not _axes(node):
        ctx.bind(node.outputs[0], ctx.get(node.inputs[0]))
    elif text(node, "mode", "nearest") == "nearest":
        _nearest(ctx, node)
    else:
        _weighted(ctx, node)


def _refuse(node: ir.Node) -> str | None:
    mode = text(node, "mode", "nearest")
    if not resample.known(_coordinates(node), _rounding(node)):
        return f"coordinate mode {_coordinates(node)!r} is not lowered"
    if any(
        len(node.inputs) > i and node.inputs[i] and constant(node.inputs[i]) is None
        for i in (2, 3)
    ):
        return "scales or sizes are not constant"
    if mode == "nearest":
        return None
    if mode not in ("linear", "cubic"):
        return f"mode {mode!r} is unknown"
    if not np.issubdtype(dtype_of(node.outputs[0]), np.floating):
        return f"{mode} resize of {dtype_of(node.outputs[0])}"
    rank, axes = len(shape_of(node.outputs[0])), _axes(node)
    if any(axis < rank - 2 for axis in axes):
        return f"{mode} resize of an axis other than the last two"
    if node.attributes.get_int("antialias", 0) and any(a.scale < 1 for a in axes.values()):
        return "antialias=1 when shrinking is not lowered"
    return None


TABLE: dict[str, Rule] = {"Resize": Rule(_resize, _refuse, numbers=1)}
