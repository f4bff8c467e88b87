"""Convolutions and pooling, channels last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.targets.attributes import data_of, optional, whole
from edgevit.targets.neighbors import fixed
from edgevit.targets.tvm.context import Context, numbers_of
from edgevit.targets.tvm.kernels.arithmetic import FLOAT32
from edgevit.targets.tvm.kernels.conv import Conv, Window, pack_conv
from edgevit.targets.tvm.kernels.depthwise import Depthwise, pack_depthwise
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.kernels.windows import Pool
from edgevit.targets.tvm.ops_dynamic import dynamic_conv
from edgevit.targets.tvm.ops_integer import integer_conv
from edgevit.targets.tvm.ops_movement import padded, region
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import CHANNELS_LAST, Held, dense
from edgevit.targets.tvm.table import Op, floats, integers
from edgevit.targets.tvm.tails import tail
from edgevit.targets.tvm.tiles import product_name
from edgevit.targets.views import View

__all__ = ["OPS", "float_conv"]


def image(ctx: Context, value: ir.Value, pads: Sequence[int], number: float = 0.0) -> Held:
    """A rank-4 value as a dense channels-last image with its border filled.

    Args:
        ctx: Of the emission.
        value: [N, C, H, W].
        pads: Top, left, bottom, right.
        number: What the border holds.
    """
    held, (n, c, h, w) = ctx.read(value), shape_of(value)
    if not any(pads):
        return ctx.copied(held, (n, c, h, w), CHANNELS_LAST)
    top, left, bottom, right = pads
    shape = (n, c, h + top + bottom, w + left + right)
    tensor = ctx.new(f"{value.name}/padded", math.prod(shape))
    made = Held(tensor, 0, dense(shape, CHANNELS_LAST))
    padded(ctx, held, made, (n, c, h, w), (0, 0, top, left, 0, 0, bottom, right), number)
    return made


def _counts(node: ir.Node) -> np.ndarray | None:
    """1 / number of source elements in each window, where padding is not counted."""
    pads = integers(node, "pads")
    if whole(node, "count_include_pad", 0) or not any(pads):
        return None
    h, w = shape_of(data_of(node))[2:]
    inside = np.pad(np.ones((h, w)), ((pads[0], pads[2]), (pads[1], pads[3])))
    kernel, strides = integers(node, "kernel_shape"), integers(node, "strides")
    dy, dx = integers(node, "dilations") if "dilations" in node.attributes else (1, 1)
    reach = ((kernel[0] - 1) * dy + 1, (kernel[1] - 1) * dx + 1)
    windows = np.lib.stride_tricks.sliding_window_view(inside, reach)[..., ::dy, ::dx]
    counts = windows[:: strides[0], :: strides[1]].sum(axis=(2, 3))
    out = shape_of(node.outputs[0])[2:]
    return np.asarray(1.0 / counts[: out[0], : out[1]], np.float32)


def _pool(ctx: Context, node: ir.Node) -> None:
    x, out = data_of(node), node.outputs[0]
    largest = node.op_type == "MaxPool"
    pads = integers(node, "pads")
    kernel, strides = integers(node, "kernel_shape"), integers(node, "strides")
    dilations = integers(node, "dilations") if "dilations" in node.attributes else (1, 1)
    data = image(ctx, x, pads, -math.inf if largest else 0.0)
    n, c, h, w = shape_of(x)
    counts = None if largest else _counts(node)
    spec = Pool(
        "max" if largest else "sum",
        n,
        h + pads[0] + pads[2],
        w + pads[1] + pads[3],
        c,
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        counts is not None,
        1.0 if largest or counts is not None else 1.0 / math.prod(kernel),
    )
    made = ctx.new(out.name or "", math.prod(shape_of(out)))
    more = [] if counts is None else [ctx.parameter(f"{out.name}/counts", counts)]
    ctx.program.call(spec, Ref(made), data.ref, *more)
    ctx.define(out, Held(made, 0, dense(shape_of(out), CHANNELS_LAST)))


def _poolable(node: ir.Node) -> str | None:
    if whole(node, "ceil_mode", 0):
        return "ceil_mode with windows cut at the edge"
    unread = len(node.outputs) < 2 or not node.outputs[1].uses()
    return floats(node) if unread else "the indices of the largest elements are used"


def _weight(node: ir.Node) -> np.ndarray:
    array = numbers_of(data_of(node, 1))
    if array is None:
        raise ValueError(f"node {node.name!r}: the weight is not constant")
    return np.asarray(array, np.float32)


def _conv(ctx: Context, node: ir.Node) -> None:
    if not (integer_conv(ctx, node) or dynamic_conv(ctx, node)):
        float_conv(ctx, node, _weight(node), optional(node, 2))


def float_conv(ctx: Context, node: ir.Node, weight: np.ndarray, bias: ir.Value | None) -> None:
    """A convolution with constant numbers [M, C / group, kh, kw] in float32."""
    x = data_of(node)
    pads, strides = integers(node, "pads"), integers(node, "strides")
    data = image(ctx, x, pads)
    n, c, h, w = shape_of(x)
    padded_shape = (n, c, h + pads[0] + pads[2], w + pads[1] + pads[3])
    dilations = integers(node, "dilations")
    _convolved(
        ctx, node, data, padded_shape, weight, (strides[0], strides[1]), dilations, bias
    )


def _convolved(
    ctx: Context,
    node: ir.Node,
    data: Held,
    shape: tuple[int, ...],
    weight: np.ndarray,
    strides: tuple[int, int],
    dilations: Sequence[int],
    bias: ir.Value | None,
) -> None:
    """Convolve a padded dense image [N, C, H, W] (channels last) with [M, C/g, kh, kw]."""
    n, c, h, w = shape
    out_shape = shape_of(node.outputs[0])
    m, per, kh, kw = weight.shape
    groups = c // per
    view = dense(out_shape, CHANNELS_LAST)
    after = tail(ctx, node, view, biased=bias)
    out = (out_shape[2], out_shape[3])
    steps = (dilations[0], dilations[1])
    window = Window(n, out, (kh, kw), strides, steps, h * w * c, w * c, c)
    if (kh, kw) == (1, 1) and groups == 1 and strides == (1, 1):
        name = product_name("gemm", n * h * w, m, c, FLOAT32.name)
        columns, most = ctx.tiles.columns(name, m)
        spec: Kernel = Gemm(n * h * w, c, columns, c, m, after.epilogue, tile=most)
        packed = columns.pack(np.asarray(weight.reshape(m, c).T, np.float32))
    elif groups == c and per == 1:
        spec = Depthwise(window, m, m // c, m, after.epilogue)
        packed = pack_depthwise(weight)
    else:
        name = product_name("conv", window.pixels, m // groups, kh * kw * per, FLOAT32.name)
        columns, most = ctx.tiles.columns(name, m // groups)
        spec = Conv(window, per, groups, columns, m, after.epilogue, tile=most)
        packed = pack_conv(weight, groups, columns)
    made = ctx.new(after.output.name or "", math.prod(out_shape), after.epilogue.dtype)
    weights = ctx.parameter(data_of(node, 1).name or "", packed)
    ctx.program.call(spec, data.ref, weights, *after.refs(ctx, m), Ref(made))
    ctx.define(after.output, Held(made, 0, view))


def _conv_transpose(ctx: Context, node: ir.Node) -> None:
    """A convolution with the flipped weight of the image with zeros between its pixels."""
    x, weight = data_of(node), _weight(node)  # [C, M/g, kh, kw]
    n, c, h, w = shape_of(x)
    strides, pads = integers(node, "strides"), integers(node, "pads")
    dilations, groups = integers(node, "dilations"), whole(node, "group", 1)
    kh, kw = weight.shape[2:]
    reach = ((kh - 1) * dilations[0], (kw - 1) * dilations[1])
    out = shape_of(node.outputs[0])
    shape = (n, c, out[2] + reach[0], out[3] + reach[1])
    tensor = ctx.new(f"{x.name}/spread", math.prod(shape))
    spread = Held(tensor, 0, dense(shape, CHANNELS_LAST))
    ctx.fill(spread, shape, 0.0)
    first = (reach[0] - pads[0], reach[1] - pads[1])
    _scatter(ctx, ctx.read(x), spread, (n, c, h, w), first, (strides[0], strides[1]))
    split = weight.reshape(groups, c // groups, -1, kh, kw)[..., ::-1, ::-1]
    flipped = split.transpose(0, 2, 1, 3, 4).reshape(-1, c // groups, kh, kw)
    bias = optional(node, 2)
    weight = np.ascontiguousarray(flipped)
    _convolved(ctx, node, spread, shape, weight, (1, 1), dilations, bias)


def _scatter(
    ctx: Context,
    x: Held,
    out: Held,
    shape: tuple[int, ...],
    first: tuple[int, int],
    strides: tuple[int, int],
) -> None:
    """Copy pixels into ``out`` ``strides`` apart from ``first`` on; what falls off is left."""
    sizes, offset, begins = list(shape), out.offset, [0, 0]
    axes = list(out.view.axes)
    limits = out.view.shape
    for i, axis in enumerate((2, 3)):
        step = axes[axis][0][1] if axes[axis] else 0
        begins[i] = max(0, -(first[i] // strides[i])) if first[i] < 0 else 0
        start = first[i] + begins[i] * strides[i]
        room = (limits[axis] - 1 - start) // strides[i] + 1
        sizes[axis] = min(shape[axis] - begins[i], room)
        offset += start * step
        axes[axis] = ((sizes[axis], step * strides[i]),) if sizes[axis] > 1 else ()
    target = Held(out.tensor, offset, View(tuple(axes)))
    source = (
        region(x, (0, 0, *begins), sizes) if begins != [0, 0] or sizes != list(shape) else x
    )
    ctx.copy_into(target, source, tuple(sizes))


def _rank4(node: ir.Node) -> str | None:
    rank = len(shape_of(data_of(node)))
    if rank != 4:
        return f"rank {rank}: only rank 4 is canonical"
    if not fixed(data_of(node, 1)):
        return "the weight must be constant"
    bias = optional(node, 2)
    if bias is not None and bias.const_value is None:
        return "the bias must be constant"
    return floats(node)


OPS: Mapping[str, Op] = {
    "AveragePool": Op(_pool, _poolable),
    "Conv": Op(_conv, _rank4),
    "ConvTranspose": Op(_conv_transpose, _rank4),
    "MaxPool": Op(_pool, _poolable),
}
