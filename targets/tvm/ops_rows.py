"""Reductions, softmax and the normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.attributes import attribute, data_of, optional, whole
from edgevit.targets.neighbors import only_consumer
from edgevit.targets.tvm.context import Context, Waiting
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.kernels.pointwise import Apply, In
from edgevit.targets.tvm.kernels.reduce import Reduce
from edgevit.targets.tvm.kernels.rows import LayerNorm, RowSoftmax
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense, joined
from edgevit.targets.tvm.table import Op, floats
from edgevit.targets.tvm.tails import quantized
from edgevit.targets.views import Factor, View

__all__ = ["OPS", "reduced"]

_KINDS = {
    "ReduceMean": "sum",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL2": "squares",
}


def reduced(
    ctx: Context,
    held: Held,
    shape: Sequence[int],
    axes: Sequence[int],
    kind: str,
    *,
    factor: float = 1.0,
    root: bool = False,
    label: str = "",
) -> Held:
    """A reduction over axes, which stay with length one."""
    kept = [f for i, axis in enumerate(held.view.axes) if i not in axes for f in axis]
    summed = [f for i, axis in enumerate(held.view.axes) if i in axes for f in axis]
    order = sorted(range(len(kept)), key=lambda i: -kept[i][1])
    strides, stride = [0] * len(kept), 1
    for i in reversed(order):
        strides[i] = stride
        stride *= kept[i][0]
    nest = joined([kept[i][0] for i in order], [(strides[i], kept[i][1]) for i in order])
    ordered = sorted(summed, key=lambda f: -f[1])
    inner = joined([size for size, _ in ordered], [(step,) for _, step in ordered])
    tensor = ctx.new(label, stride)
    kernel = Reduce(kind, nest, inner, factor, root)
    ctx.program.call(kernel, Ref(tensor), held.ref)
    found: list[tuple[Factor, ...]] = []
    at = 0
    for i, axis in enumerate(held.view.axes):
        if i in axes:
            found.append(())
            continue
        found.append(tuple((axis[j][0], strides[at + j]) for j in range(len(axis))))
        at += len(axis)
    return Held(tensor, 0, View(tuple(found)))


def _reduction(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    shape = shape_of(x)
    given = constant(optional(node, 1))
    axes = range(len(shape)) if given is None else [int(a) for a in given]
    count = math.prod(shape[a] for a in axes)
    made = reduced(
        ctx,
        ctx.read(x),
        shape,
        list(axes),
        _KINDS[node.op_type],
        factor=1.0 / count if node.op_type == "ReduceMean" else 1.0,
        root=node.op_type == "ReduceL2",
        label=out.name or "",
    )
    if len(shape_of(out)) != len(shape):
        left = tuple(axis for i, axis in enumerate(made.view.axes) if i not in axes)
        made = Held(made.tensor, made.offset, View(left))
    ctx.define(out, made)


def _by_rows(
    ctx: Context, node: ir.Node, kernel: Callable[[int, int, int], Kernel], *more: Ref
) -> None:
    x, out = data_of(node), node.outputs[0]
    rows, columns = ctx.rows(x), shape_of(x)[-1]
    made_by = kernel(rows.count, columns, rows.stride)
    dtype = made_by.operands[0].dtype
    follower = only_consumer(out)
    if dtype != "float32" and follower is not None:  # the kernel is its quantizer too
        ctx.finish(follower)
        out = follower.outputs[0]
    made = ctx.new(out.name or "", rows.count * columns, dtype)
    ctx.program.call(made_by, Ref(made), rows.ref, *more)
    ctx.define(out, Held(made, 0, rows.view(columns)))


def _layer_norm(ctx: Context, node: ir.Node) -> None:
    epsilon = attribute(node, "epsilon", 1e-5)
    centered = node.op_type == "LayerNormalization"
    scale = constant(data_of(node, 1))
    if scale is None:
        raise ValueError(f"node {node.name!r}: the scale is not constant")
    bias = constant(optional(node, 2)) if centered else None
    bias = np.zeros_like(scale) if bias is None else bias
    name = node.outputs[0].name or ""
    codes = quantized(only_consumer(node.outputs[0]))
    _by_rows(
        ctx,
        node,
        lambda rows, columns, stride: LayerNorm(
            rows, columns, stride, epsilon, centered, codes
        ),
        ctx.parameter(f"{name}/scale", scale),
        ctx.parameter(f"{name}/bias", bias),
    )


def _softmax(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    shape = shape_of(x)
    axis = whole(node, "axis", len(shape) - 1)
    if axis == len(shape) - 1:
        _by_rows(ctx, node, RowSoftmax)
        return
    _softmax_across(ctx, ctx.read(x), out, axis)


def _softmax_across(ctx: Context, held: Held, out: ir.Value, axis: int) -> None:
    """Softmax along an axis that is not the last: as reductions and pointwise nests."""
    shape, name = shape_of(out), out.name or ""
    peak = reduced(ctx, held, shape, [axis], "max", label=f"{name}/max")
    powers = ctx.force(
        Waiting(Apply("exp", (Apply("sub", (In(0), In(1))),)), (held, peak), shape, "float32"),
        f"{name}/exp",
    )
    total = reduced(ctx, powers, shape, [axis], "sum", label=f"{name}/sum")
    waiting = Waiting(Apply("div", (In(0), In(1))), (powers, total), shape, "float32")
    ctx.define(out, ctx.force(waiting, name))


def _log_softmax(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    shape, held, name = shape_of(x), ctx.read(x), out.name or ""
    axis = whole(node, "axis", len(shape) - 1)
    peak = reduced(ctx, held, shape, [axis], "max", label=f"{name}/max")
    off = ctx.force(
        Waiting(Apply("sub", (In(0), In(1))), (held, peak), shape, "float32"), f"{name}/off"
    )
    powers = ctx.force(
        Waiting(Apply("exp", (In(0),)), (off,), shape, "float32"), f"{name}/exp"
    )
    total = reduced(ctx, powers, shape, [axis], "sum", label=f"{name}/sum")
    last = Apply("sub", (In(0), Apply("log", (In(1),))))
    ctx.define(out, ctx.force(Waiting(last, (off, total), shape, "float32"), name))


def _group_norm(ctx: Context, node: ir.Node) -> None:
    """Statistics of each sample and group of channels, two passes, then scale and bias."""
    x, out = data_of(node), node.outputs[0]
    n, c, *spatial = shape_of(x)
    groups = whole(node, "num_groups", c)
    cut = (n, groups, c // groups, *spatial)
    held = ctx.read(x)
    view = held.view.reshape(cut)
    if view is None:
        held = ctx.copied(held, shape_of(x), None)
        view = dense(cut)
    split, axes = Held(held.tensor, held.offset, view), list(range(2, len(cut)))
    name, share = out.name or "", 1.0 / math.prod(cut[2:])
    mean = reduced(ctx, split, cut, axes, "sum", factor=share, label=f"{name}/mean")
    centered = Waiting(Apply("sub", (In(0), In(1))), (split, mean), cut, "float32")
    off = ctx.force(centered, f"{name}/centered")
    square = reduced(ctx, off, cut, axes, "squares", factor=share, label=f"{name}/variance")
    ctx.define(out, _scaled(ctx, node, off, square, cut))


def _scaled(
    ctx: Context, node: ir.Node, off: Held, square: Held, cut: tuple[int, ...]
) -> Held:
    """``off / sqrt(square + epsilon) * scale + bias``, seen in the node's own shape."""
    out, groups = node.outputs[0], cut[1]
    shape = (groups, cut[2], *(1 for _ in cut[3:]))
    arrays = [constant(data_of(node, i)) for i in (1, 2)]
    name = out.name or ""
    factors = []
    for label, array in zip(("scale", "bias"), arrays, strict=True):
        if array is None:
            raise ValueError(f"node {node.name!r}: the {label} is not constant")
        ref = ctx.parameter(f"{name}/{label}", array)
        factors.append(Held(ref.tensor, ref.offset, dense(shape)))
    spread = Apply("shift", (In(1),), (attribute(node, "epsilon", 1e-5),))
    normal = Apply("div", (In(0), Apply("sqrt", (spread,))))
    whole_expression = Apply("add", (Apply("mul", (normal, In(2))), In(3)))
    waiting = Waiting(whole_expression, (off, square, *factors), cut, "float32")
    made = ctx.force(waiting, name)
    view = made.view.reshape(shape_of(out))
    if view is None:
        made = ctx.copied(made, cut, None)
        view = dense(shape_of(out))
    return Held(made.tensor, made.offset, view)


def _over_last(node: ir.Node) -> str | None:
    last = len(shape_of(data_of(node))) - 1
    axis = whole(node, "axis", last)
    return None if axis in (last, -1) else f"axis {axis}: only the last one is canonical"


def _normal(node: ir.Node) -> str | None:
    return floats(node) or _over_last(node)


OPS: Mapping[str, Op] = {
    **{name: Op(_reduction, floats) for name in _KINDS},
    "GroupNormalization": Op(_group_norm, floats),
    "InstanceNormalization": Op(_group_norm, floats),
    "LayerNormalization": Op(_layer_norm, _normal),
    "LogSoftmax": Op(_log_softmax, floats),
    "RMSNormalization": Op(_layer_norm, _normal),
    "Softmax": Op(_softmax, floats),
}
