"""Layers whose weights are packed sums of signed powers of two.

Where the data are codes of bytes too, the parameters hold the packed codes and kernels decode
them in registers: exact sums in int32, then one float32 scale a column. Float data, and sums
that might leave int32, are multiplied in float32 with the numbers that the codes mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.model import constant, shape_of
from edgevit.shift_codes import Packed, decode, unpack
from edgevit.targets.attributes import data_of
from edgevit.targets.neighbors import fixed
from edgevit.targets.tvm.context import Context
from edgevit.targets.tvm.kernels.arithmetic import QUAD, integer
from edgevit.targets.tvm.kernels.codes import Codes, dot_codes, pack_codes, panels
from edgevit.targets.tvm.kernels.columns import Columns
from edgevit.targets.tvm.kernels.conv import Conv, Window
from edgevit.targets.tvm.kernels.depthwise import Depthwise, pack_depthwise_integers
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.kernels.shifts import shift_codes
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.ops_conv import float_conv
from edgevit.targets.tvm.ops_integer import coded, coded_image, packed_refs, quads, window_over
from edgevit.targets.tvm.ops_linear import float_linear
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import CHANNELS_LAST, Held, dense
from edgevit.targets.tvm.table import Op, floats, integers
from edgevit.targets.tvm.tails import Tail, tail

__all__ = ["OPS"]

# Largest distance of a byte from a zero point.
_BYTE = 255
# Whole numbers that float32 adds exactly.
_FLOAT = 1 << 24


def _wide(node: ir.Node) -> bool:
    return node.op_type.startswith("Wide")


def _array(value: ir.Value) -> np.ndarray:
    array = constant(value)
    if array is None:
        raise ValueError(f"value {value.name!r} is not constant")
    return np.asarray(array)


def _packed(node: ir.Node) -> Packed:
    signs = _array(data_of(node, 2)) if _wide(node) else None
    return Packed(_array(data_of(node, 1)), signs, node.attributes["inputs"].as_int())


def _scale(node: ir.Node) -> np.ndarray:
    """float32, one an output."""
    return np.asarray(_array(data_of(node, 2 + _wide(node))), np.float32)


def _kind(machine: Machine, packed: Packed) -> Codes:
    """Dot products of bytes where the integers are bytes and the machine has them."""
    if not packed.wide and integer(machine).group == QUAD:
        return dot_codes(machine, packed.terms)
    return shift_codes(machine, packed.terms, packed.wide)


def _most(parts: np.ndarray) -> int:
    """The largest sum that may occur on the way, whatever the bytes and their zero point."""
    sizes = np.abs(parts.astype(np.int64)).sum((0, 1))
    terms, depth, _ = parts.shape
    return int(2 * _BYTE * sizes.max(initial=0)) + int(terms * depth)


def _operands(
    ctx: Context, node: ir.Node, packed: np.ndarray, offsets: np.ndarray
) -> tuple[Ref, Ref]:
    return packed_refs(ctx, data_of(node, 1).name or "", packed, offsets)


def _finish(
    ctx: Context,
    node: ir.Node,
    kernel: Kernel,
    data: Ref,
    weights: tuple[Ref, Ref],
    after: Tail,
    scale: np.ndarray,
    size: int,
) -> Ref:
    """Append the call; where it writes."""
    made = Ref(ctx.new(after.output.name or "", size, after.epilogue.dtype))
    factor = ctx.parameter(f"{data_of(node, 1).name}/scale", scale)
    ctx.program.call(kernel, data, *weights, *after.refs(ctx, len(scale), factor), made)
    return made


def _linear(ctx: Context, node: ir.Node) -> None:
    packed, scale = _packed(node), _scale(node)
    found, parts = coded(node.inputs[0], ctx.machine), unpack(packed)
    if found is None or _most(parts) >= 1 << 31:
        float_linear(ctx, node, decode(packed) * scale)
        return
    (data, step, zero), n = found, len(scale)
    kind, columns = _kind(ctx.machine, packed), panels(n, ctx.machine)
    rows, depth = quads(ctx, data)
    view = rows.view(n)
    after = tail(ctx, node, view, scaled=True)
    kernel = Gemm(rows.count, depth, columns, rows.stride, n, after.epilogue, kind)
    weights = _operands(ctx, node, *pack_codes(parts, zero, columns, kind))
    made = _finish(
        ctx, node, kernel, rows.ref, weights, after, np.float32(step) * scale, rows.count * n
    )
    ctx.define(after.output, Held(made.tensor, 0, view))


def _conv(ctx: Context, node: ir.Node) -> None:
    packed, scale = _packed(node), _scale(node)
    bias = data_of(node, 3 + _wide(node))
    found, parts = coded(node.inputs[0], ctx.machine), unpack(packed)
    m, per, kh, kw = integers(node, "weight_shape")
    channels = shape_of(data_of(node))[1]
    groups, separate = channels // per, per == 1 and channels > 1
    sums = _FLOAT if separate else 1 << 31
    if found is None or _most(parts) >= sums or (groups > 1 and not separate and per % QUAD):
        numbers = (decode(packed) * scale).T.reshape(m, per, kh, kw)
        float_conv(ctx, node, np.ascontiguousarray(numbers), bias)
        return
    data, step, zero = found
    held = channels if separate or groups > 1 else channels + -channels % QUAD
    image = coded_image(ctx, data, zero, integers(node, "pads"), held)
    view = dense(shape_of(node.outputs[0]), CHANNELS_LAST)
    after = tail(ctx, node, view, biased=bias, scaled=True)
    window = window_over(node, (kh, kw), held)
    if separate:
        filters = decode(packed).T.reshape(m, 1, kh, kw)
        kernel: Kernel = Depthwise(
            window, m, m // channels, m, after.epilogue, integer(ctx.machine).left
        )
        weights = _operands(ctx, node, *pack_depthwise_integers(filters, zero))
    else:
        kind, columns = _kind(ctx.machine, packed), panels(m // groups, ctx.machine)
        dealt = _dealt(parts, (m, per, kh, kw), groups)
        packs = [pack_codes(p, zero, columns, kind) for p in dealt]
        codes, offsets = (np.concatenate(p) for p in zip(*packs, strict=True))
        weights = _operands(ctx, node, codes, offsets)
        kernel = _dense(window, held // groups, groups, columns, after, kind)
    size = math.prod(shape_of(node.outputs[0]))
    made = _finish(
        ctx, node, kernel, image.ref, weights, after, np.float32(step) * scale, size
    )
    ctx.define(after.output, Held(made.tensor, 0, view))


def _dealt(parts: np.ndarray, shape: tuple[int, ...], groups: int) -> list[np.ndarray]:
    """Terms [T, C / g * kh * kw, M] for each group as [T, kh * kw * C', M / g]."""
    m, per, kh, kw = shape
    split = parts.reshape(len(parts), per, kh * kw, groups, m // groups)
    padded = np.pad(split, ((0, 0), (0, -per % QUAD), *[(0, 0)] * 3))
    turned = padded.transpose(3, 0, 2, 1, 4)
    return list(turned.reshape(groups, len(parts), -1, m // groups))


def _dense(
    window: Window, channels: int, groups: int, columns: Columns, after: Tail, kind: Codes
) -> Kernel:
    out = columns.count * groups
    if window.taps == 1 and window.strides == (1, 1) and groups == 1:
        return Gemm(window.pixels, channels, columns, channels, out, after.epilogue, kind)
    return Conv(window, channels, groups, columns, out, after.epilogue, kind)


def _constant(node: ir.Node) -> str | None:
    """What codes must be before they can be packed anew."""
    if not all(fixed(v) for v in node.inputs[1:]):
        return "codes, scales and bias must be constant"
    try:
        decode(_packed(node))
    except InputError as e:
        return str(e)
    return floats(node)


OPS: Mapping[str, Op] = {
    "ai.edgevit.ShiftConv": Op(_conv, _constant),
    "ai.edgevit.ShiftLinear": Op(_linear, _constant),
    "ai.edgevit.WideShiftConv": Op(_conv, _constant),
    "ai.edgevit.WideShiftLinear": Op(_linear, _constant),
}
