"""Operators that move elements: views where strides can say it, copies where they cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import data_of, optional, text, whole
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.windows import GatherRows
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense
from edgevit.targets.tvm.table import Op, integers
from edgevit.targets.views import Factor, View, squeezed

__all__ = ["OPS", "axis_part", "natural_order"]


def _fixed(value: ir.Value) -> np.ndarray:
    array = constant(value)
    if array is None:
        raise ValueError(f"value {value.name!r} is not constant")
    return array


def reshaped(ctx: Context, held: Held, old: tuple[int, ...], new: tuple[int, ...]) -> Held:
    """``held`` with another shape, copied only if strides cannot say it."""
    view = held.view.reshape(new)
    if view is None:
        held = ctx.copied(held, old, None)
        return Held(held.tensor, held.offset, dense(new))
    return Held(held.tensor, held.offset, view)


def _reshape(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    ctx.define(out, reshaped(ctx, ctx.read(x), shape_of(x), shape_of(out)))


def _transpose(ctx: Context, node: ir.Node) -> None:
    held = ctx.read(data_of(node))
    view = held.view.transpose(integers(node, "perm"))
    ctx.define(node.outputs[0], Held(held.tensor, held.offset, view))


def _depth_to_space(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    n, c, h, w = shape_of(x)
    b = whole(node, "blocksize", 1)
    crd = text(node, "mode", "DCR") == "CRD"
    cut = (n, c // (b * b), b, b, h, w) if crd else (n, b, b, c // (b * b), h, w)
    perm = (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2)
    held = reshaped(ctx, ctx.read(x), shape_of(x), cut)
    moved = Held(held.tensor, held.offset, held.view.transpose(perm))
    ctx.define(out, reshaped(ctx, moved, tuple(cut[p] for p in perm), shape_of(out)))


def _space_to_depth(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    n, c, h, w = shape_of(x)
    b = whole(node, "blocksize", 1)
    cut, perm = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4)
    held = reshaped(ctx, ctx.read(x), shape_of(x), cut)
    moved = Held(held.tensor, held.offset, held.view.transpose(perm))
    ctx.define(out, reshaped(ctx, moved, tuple(cut[p] for p in perm), shape_of(out)))


def axis_part(
    ctx: Context,
    held: Held,
    shape: Sequence[int],
    axis: int,
    start: int,
    count: int,
    step: int,
) -> Held:
    """Elements ``start, start + step, ...`` of an axis."""
    merged = squeezed(list(held.view.axes[axis]))
    if len(merged) > 1:
        held = ctx.copied(held, tuple(shape), None)
        merged = squeezed(list(held.view.axes[axis]))
    stride = merged[0][1] if merged else 0
    axes = list(held.view.axes)
    axes[axis] = ((count, stride * step),) if count > 1 else ()
    return Held(held.tensor, held.offset + start * stride, View(tuple(axes)))


def _split(ctx: Context, node: ir.Node) -> None:
    x = data_of(node)
    axis, start = whole(node, "axis", 0), 0
    held = ctx.read(x)
    for out, size in zip(node.outputs, _fixed(data_of(node, 1)).tolist(), strict=True):
        ctx.define(out, axis_part(ctx, held, shape_of(x), axis, start, size, 1))
        start += size


def _slice(ctx: Context, node: ir.Node) -> None:
    x = data_of(node)
    held, shape = ctx.read(x), list(shape_of(x))
    starts, axes, steps = (_fixed(data_of(node, i)).tolist() for i in (1, 3, 4))
    for start, axis, step in zip(starts, axes, steps, strict=True):
        count = shape_of(node.outputs[0])[axis]
        if step < 0:
            held = _backwards(ctx, held, shape, axis, min(start, shape[axis] - 1), count, step)
        else:
            held = axis_part(ctx, held, shape, axis, start, count, step)
        shape[axis] = count
    ctx.define(node.outputs[0], held)


def _backwards(
    ctx: Context,
    held: Held,
    shape: Sequence[int],
    axis: int,
    start: int,
    count: int,
    step: int,
) -> Held:
    """An axis walked from a later to an earlier element: gathered, as strides are positive."""
    data = ctx.copied(held, tuple(shape), None)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    dtype = held.tensor.dtype
    where = (start + step * np.arange(count)).astype(np.int32)
    made = ctx.new(f"{held.tensor.label}/backwards", outer * count * inner, dtype)
    kernel = GatherRows(outer, shape[axis], count, inner, dtype, "int32")
    indices = ctx.parameter("backwards", where)
    ctx.program.call(kernel, Ref(made), data.ref, indices)
    new = [*shape[:axis], count, *shape[axis + 1 :]]
    return Held(made, 0, dense(new))


def _known_bounds(node: ir.Node) -> str | None:
    known = all(constant(optional(node, i)) is not None for i in (1, 3, 4))
    return None if known else "starts, axes and steps must be constant"


def natural_order(view: View) -> list[int]:
    """Axes from the one with the largest stride to the one with the smallest."""
    return sorted(
        range(len(view.axes)), key=lambda i: (-(view.axes[i][0][1] if view.axes[i] else 0), i)
    )


def _order(ctx: Context, held: Held) -> list[int]:
    """The order of a result like ``held``; where nothing says, the logical one."""
    plain = [i for i, axis in enumerate(held.view.axes) if not axis]
    moving = [i for i in natural_order(held.view) if held.view.axes[i]]
    return [*plain, *moving]


def region(out: Held, starts: Sequence[int], sizes: Sequence[int]) -> Held:
    """A box of a dense tensor."""
    axes: list[tuple[Factor, ...]] = []
    offset = out.offset
    for axis, start, size in zip(out.view.axes, starts, sizes, strict=True):
        stride = axis[0][1] if axis else 0
        offset += start * stride
        axes.append(((size, stride),) if size > 1 else ())
    return Held(out.tensor, offset, View(tuple(axes)))


def _new(ctx: Context, value: ir.Value, like: Held) -> Held:
    """A dense tensor for ``value`` whose axes lie as those of ``like``."""
    shape = shape_of(value)
    tensor = ctx.new(value.name or "", math.prod(shape), dtype_of(value).name)
    return Held(tensor, 0, dense(shape, _order(ctx, like)))


def _concat(ctx: Context, node: ir.Node) -> None:
    out, axis = node.outputs[0], whole(node, "axis", 0)
    parts = [v for v in node.inputs if v is not None]
    largest = max(parts, key=lambda v: (v.const_value is None, math.prod(shape_of(v))))
    made = _new(ctx, out, ctx.read(largest))
    starts = [0] * len(shape_of(out))
    for part in parts:
        shape = shape_of(part)
        ctx.copy_into(region(made, starts, shape), ctx.read(part), shape)
        starts[axis] += shape[axis]
    ctx.define(out, made)


def padded(
    ctx: Context, x: Held, made: Held, shape: Sequence[int], pads: Sequence[int], number: float
) -> None:
    """Fill the border of a box in ``made`` with a number and copy ``x`` inside."""
    rank = len(shape)
    whole_shape = [shape[i] + pads[i] + pads[rank + i] for i in range(rank)]
    starts, sizes = [0] * rank, list(whole_shape)
    for axis in range(rank):
        before, after = pads[axis], pads[rank + axis]
        for start, size in ((0, before), (whole_shape[axis] - after, after)):
            if size:
                at, box = list(starts), list(sizes)
                at[axis], box[axis] = start, size
                ctx.fill(region(made, at, box), tuple(box), number)
        starts[axis], sizes[axis] = before, shape[axis]
    ctx.copy_into(region(made, starts, shape), x, tuple(shape))


def _mirrored(mode: str, size: int, distance: int) -> int:
    """Index inside an axis for a place ``distance`` in front of it."""
    if mode == "edge":
        return 0
    return distance % size if mode == "wrap" else distance


def _pad(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    shape, pads = shape_of(x), _fixed(data_of(node, 1)).tolist()
    held = ctx.read(x)
    made = _new(ctx, out, held)
    mode = text(node, "mode", "constant")
    if mode == "constant":
        value = constant(optional(node, 2))
        number = 0.0 if value is None else float(value.reshape(-1)[0])
        padded(ctx, held, made, shape, pads, number)
    else:
        _bordered(ctx, held, made, shape, pads, mode)
    ctx.define(out, made)


def _bordered(
    ctx: Context, held: Held, made: Held, shape: Sequence[int], pads: Sequence[int], mode: str
) -> None:
    """Copy inside, then axis by axis lines of the result itself to its border."""
    rank = len(shape)
    starts, sizes = list(pads[:rank]), list(shape)
    ctx.copy_into(region(made, starts, sizes), held, tuple(sizes))
    for axis in range(rank):
        line = list(sizes)
        line[axis] = 1
        for distance in range(1, pads[axis] + 1):
            inside = _mirrored(mode, shape[axis], distance)
            _line(ctx, made, starts, line, axis, pads[axis] - distance, pads[axis] + inside)
        end = pads[axis] + shape[axis] - 1
        for distance in range(1, pads[rank + axis] + 1):
            inside = _mirrored(mode, shape[axis], distance)
            _line(ctx, made, starts, line, axis, end + distance, end - inside)
        starts[axis] = 0
        sizes[axis] = shape[axis] + pads[axis] + pads[rank + axis]


def _line(
    ctx: Context, made: Held, starts: list[int], line: list[int], axis: int, to: int, of: int
) -> None:
    target, source = list(starts), list(starts)
    target[axis], source[axis] = to, of
    ctx.copy_into(region(made, target, line), region(made, source, line), tuple(line))


def _paddable(node: ir.Node) -> str | None:
    mode = text(node, "mode", "constant")
    pads = constant(optional(node, 1))
    if mode not in ("constant", "edge", "reflect"):
        return f"mode {mode!r}"
    return "pads must be constant and positive" if pads is None or (pads < 0).any() else None


def _expand(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    held, shape = ctx.read(x), shape_of(out)
    missing = len(shape) - len(held.view.axes)
    axes: list[tuple[Factor, ...]] = []
    for i, size in enumerate(shape):
        own = held.view.axes[i - missing] if i >= missing else ()
        axes.append(own if own or size == 1 else ((size, 0),))
    ctx.define(out, Held(held.tensor, held.offset, View(tuple(axes))))


def _tile(ctx: Context, node: ir.Node) -> None:
    """Each axis becomes a repeated outer and its own inner one; one copy makes it dense."""
    x, out = data_of(node), node.outputs[0]
    held = ctx.read(x)
    repeats = _fixed(data_of(node, 1)).tolist()
    axes: list[tuple[Factor, ...]] = []
    for times, own in zip(repeats, held.view.axes, strict=True):
        axes.append((((times, 0),) if times > 1 else ()) + own)
    made = Held(held.tensor, held.offset, View(tuple(axes)))
    ctx.define(out, ctx.copied(made, shape_of(out), None))


def _identity(ctx: Context, node: ir.Node) -> None:
    ctx.define(node.outputs[0], ctx.read(data_of(node)))


OPS: Mapping[str, Op] = {
    "Concat": Op(_concat),
    "DepthToSpace": Op(_depth_to_space),
    "Expand": Op(_expand),
    "Identity": Op(_identity),
    "Pad": Op(_pad, _paddable),
    "Reshape": Op(_reshape),
    "Slice": Op(_slice, _known_bounds),
    "SpaceToDepth": Op(_space_to_depth),
    "Split": Op(_split),
    "Tile": Op(_tile),
    "Transpose": Op(_transpose),
}
