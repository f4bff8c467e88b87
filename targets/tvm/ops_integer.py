"""Quantizers, and linear layers and convolutions whose operands are codes.

A layer whose data comes out of a DequantizeLinear multiplies the codes themselves: exact sums
in int32, then one float32 scale a column. A DequantizeLinear that only such layers read is
never computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.quantizers import Quantizer, Stored, dequantizer, quantizer_of, stored
from edgevit.targets.attributes import data_of, optional, whole
from edgevit.targets.neighbors import is_linear
from edgevit.targets.tvm.context import Context, Rows, Waiting
from edgevit.targets.tvm.kernels.arithmetic import QUAD, integer, pack_integers
from edgevit.targets.tvm.kernels.conv import Conv, Window, pack_conv_integers
from edgevit.targets.tvm.kernels.depthwise import Depthwise, pack_depthwise_integers
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm
from edgevit.targets.tvm.kernels.kernel import Kernel
from edgevit.targets.tvm.kernels.pointwise import Apply, In
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.ops_movement import padded, region
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import CHANNELS_LAST, Held, dense
from edgevit.targets.tvm.table import Op, integers
from edgevit.targets.tvm.tails import tail
from edgevit.targets.tvm.tiles import product_name
from edgevit.targets.views import View

__all__ = [
    "OPS",
    "coded",
    "coded_image",
    "integer_conv",
    "integer_linear",
    "narrow",
    "packed_refs",
    "quads",
    "window_over",
]

_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


@dataclass(frozen=True)
class Codes:
    """The operands of a layer that can be computed in integers.

    Attributes:
        data: The codes of the input.
        scale: Of the input.
        zero: Zero point of the input.
        weight: The stored weight.
    """

    data: ir.Value
    scale: float
    zero: int
    weight: Stored

    @property
    def scales(self) -> np.ndarray:
        """What an integer sum is worth, a number an output channel (or one)."""
        return np.float32(self.scale) * np.asarray(self.weight.quantizer.scale, np.float32)

    def column_scales(self, columns: int) -> np.ndarray:
        """The same, a number a column."""
        return np.ascontiguousarray(np.broadcast_to(self.scales, (columns,)))


def _scalars(found: Quantizer) -> tuple[float, int]:
    return float(found.scale), int(found.zero_point)


def coded(value: ir.Value | None, machine: Machine) -> tuple[ir.Value, float, int] | None:
    """The codes behind a layer's data, their scale and zero point.

    ``None`` if there are none, or the machine does not multiply such codes.
    """
    if not machine.integers:
        return None
    source = dequantizer(value)
    found = None if source is None else quantizer_of(source)
    if source is None or found is None or source.inputs[0] is None:
        return None
    data = source.inputs[0]
    if data.const_value is not None or found.axis is not None or found.block:
        return None
    fits = dtype_of(data).name == integer(machine).left
    return (data, *_scalars(found)) if fits else None


def _codes(node: ir.Node, machine: Machine, axis: int) -> Codes | None:
    """The codes behind both operands, if the machine multiplies such codes."""
    found, weight = coded(node.inputs[0], machine), narrow(node.inputs[1], axis)
    return None if found is None or weight is None else Codes(*found, weight)


def narrow(value: ir.Value | None, axis: int) -> Stored | None:
    """A stored weight, if symmetric, by ``axis`` at most, of 8 or 4 bits."""
    found = stored(value)
    if found is None:
        return None
    q = found.quantizer
    plain = q.symmetric and not q.block and q.axis in (None, axis)
    return found if plain and q.dtype in (ir.DataType.INT8, ir.DataType.INT4) else None


def packed_refs(
    ctx: Context, label: str, packed: np.ndarray, offsets: np.ndarray
) -> tuple[Ref, Ref]:
    """Packed weights and the offsets of their columns, as parameters."""
    return (
        ctx.parameter(f"{label}/packed", packed),
        ctx.parameter(f"{label}/offset", offsets),
    )


def quads(ctx: Context, value: ir.Value) -> tuple[Rows, int]:
    """Rows of codes whose length, stride and start are multiples of four bytes."""
    rows, columns = ctx.rows(value), shape_of(value)[-1]
    spare = -columns % QUAD
    if not spare and rows.stride % QUAD == 0 and rows.ref.offset % QUAD == 0:
        return rows, columns
    wide = columns + spare
    tensor = ctx.new(f"{value.name}/rows", rows.count * wide, dtype_of(value).name)
    made = Held(tensor, 0, dense((rows.count, wide)))
    lying = Held(rows.ref.tensor, rows.ref.offset, _matrix(rows, columns))
    ctx.copy_into(region(made, (0, 0), (rows.count, columns)), lying, (rows.count, columns))
    if spare:  # what meets the zeros of padded weights may be anything that is defined
        ctx.fill(region(made, (0, columns), (rows.count, spare)), (rows.count, spare), 0)
    return Rows(Ref(tensor), rows.count, wide, rows.lead), wide


def _matrix(rows: Rows, columns: int) -> View:
    lead = ((rows.count, rows.stride),) if rows.count > 1 else ()
    return View((lead, ((columns, 1),) if columns > 1 else ()))


def integer_linear(ctx: Context, node: ir.Node) -> bool:
    """Lower a linear layer in integers; ``False`` if its operands are no codes for that."""
    found = _codes(node, ctx.machine, 1) if is_linear(node) else None
    if found is None:
        return False
    kind, weights = integer(ctx.machine), found.weight.codes.astype(np.int8)
    n = weights.shape[1]
    rows, depth = quads(ctx, found.data)
    view = rows.view(n)
    after = tail(ctx, node, view, scaled=True)
    name = product_name("gemm", rows.count, n, depth, kind.name)
    columns, most = ctx.tiles.columns(name, n)
    kernel = Gemm(rows.count, depth, columns, rows.stride, n, after.epilogue, kind, most)
    packed, offsets = pack_integers(weights, found.zero, columns, kind)
    label = found.weight.name
    scale = ctx.parameter(f"{label}/scale", found.column_scales(n))
    made = ctx.new(after.output.name or "", rows.count * n, after.epilogue.dtype)
    ctx.program.call(
        kernel,
        rows.ref,
        *packed_refs(ctx, label, packed, offsets),
        *after.refs(ctx, n, scale),
        Ref(made),
    )
    ctx.define(after.output, Held(made, 0, view))
    return True


def coded_image(
    ctx: Context, data: ir.Value, zero: int, pads: Sequence[int], channels: int
) -> Held:
    """Codes as a dense channels-last image, its border and spare channels filled."""
    held, (n, c, h, w) = ctx.read(data), shape_of(data)
    top, left, bottom, right = pads
    shape = (n, channels, h + top + bottom, w + left + right)
    if not any(pads) and channels == c:
        return ctx.copied(held, shape, CHANNELS_LAST)
    tensor = ctx.new(f"{data.name}/image", math.prod(shape), held.tensor.dtype)
    made = Held(tensor, 0, dense(shape, CHANNELS_LAST))
    border = (0, 0, top, left, 0, channels - c, bottom, right)
    padded(ctx, held, made, (n, c, h, w), border, zero)
    return made


def integer_conv(ctx: Context, node: ir.Node) -> bool:
    """Lower a convolution in integers; ``False`` if that is not possible."""
    found = _codes(node, ctx.machine, 0)
    groups = whole(node, "group", 1)
    if found is None:
        return False
    c = shape_of(found.data)[1]
    m, per, kh, kw = found.weight.codes.shape
    separate = groups == c and per == 1
    if groups > 1 and not separate:
        return False
    channels = c if separate else c + -c % QUAD
    image = coded_image(ctx, found.data, found.zero, integers(node, "pads"), channels)
    window, out = window_over(node, (kh, kw), channels), shape_of(node.outputs[0])
    view = dense(out, CHANNELS_LAST)
    after = tail(ctx, node, view, biased=optional(node, 2), scaled=True)
    kernel, packed, offsets = _kernel(ctx, found, window, channels, after.epilogue, separate)
    label = found.weight.name
    scale = ctx.parameter(f"{label}/scale", found.column_scales(m))
    made = ctx.new(after.output.name or "", math.prod(out), after.epilogue.dtype)
    ctx.program.call(
        kernel,
        image.ref,
        *packed_refs(ctx, label, packed, offsets),
        *after.refs(ctx, m, scale),
        Ref(made),
    )
    ctx.define(after.output, Held(made, 0, view))
    return True


def window_over(node: ir.Node, kernel: tuple[int, int], channels: int) -> Window:
    """The windows of a convolution over its padded image of so many channels."""
    n, _, h, w = shape_of(data_of(node))
    out, strides = shape_of(node.outputs[0]), integers(node, "strides")
    pads, dilations = integers(node, "pads"), integers(node, "dilations")
    high, wide = h + pads[0] + pads[2], w + pads[1] + pads[3]
    return Window(
        n,
        (out[2], out[3]),
        kernel,
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        high * wide * channels,
        wide * channels,
        channels,
    )


def _kernel(
    ctx: Context,
    found: Codes,
    window: Window,
    channels: int,
    epilogue: Epilogue,
    separate: bool,
) -> tuple[Kernel, np.ndarray, np.ndarray]:
    """The kernel of a convolution with its packed weights and offsets."""
    weights = found.weight.codes.astype(np.int8)
    m, kind = weights.shape[0], integer(ctx.machine)
    if separate:
        packed, offsets = pack_depthwise_integers(weights, found.zero)
        alone = Depthwise(window, m, m // channels, m, epilogue, kind.left)
        return alone, packed, offsets
    plain = window.taps == 1 and window.strides == (1, 1)
    pixels, depth = window.pixels, window.taps * channels
    name = product_name("gemm" if plain else "conv", pixels, m, depth, kind.name)
    columns, most = ctx.tiles.columns(name, m)
    codes, starts = pack_conv_integers(weights, 1, found.zero, columns, kind)
    if plain:
        spec: Kernel = Gemm(pixels, depth, columns, channels, m, epilogue, kind, most)
    else:
        spec = Conv(window, channels, 1, columns, m, epilogue, kind, most)
    return spec, codes, starts


def _quantize(ctx: Context, node: ir.Node) -> None:
    """Codes of a whole tensor, computed with what makes the tensor where that is one nest."""
    x, out = data_of(node), node.outputs[0]
    found = quantizer_of(node)
    if found is None:
        raise ValueError(f"node {node.name!r}: the scale is not constant")
    dtype = dtype_of(out).name
    waiting = ctx.waiting(out, "quantize", [x], *_scalars(found), *_RANGES[dtype])
    codes = Apply(f"cast-{dtype}", (waiting.expression,))
    made = Waiting(codes, waiting.sources, waiting.shape, dtype)
    ctx.define(out, ctx.force(made, out.name or ""))


def _dequantize(ctx: Context, node: ir.Node) -> None:
    """Nothing yet: whoever multiplies codes does not read the numbers."""
    codes, out = data_of(node), node.outputs[0]
    if codes.const_value is not None:
        return
    found = quantizer_of(node)
    if found is None:
        raise ValueError(f"node {node.name!r}: the scale is not constant")
    expression = Apply("dequantize", (In(0),), _scalars(found))
    ctx.postpone(out, Waiting(expression, (ctx.read(codes),), shape_of(out), "float32"))


def _whole_tensor(node: ir.Node) -> str | None:
    found = quantizer_of(node)
    if found is None:
        return "scale and zero point must be constant"
    if data_of(node).const_value is not None:
        return None  # a stored weight, in any of the ways that weights are stored
    if found.axis is not None or found.block:
        return "activations are quantized as a whole, not by axis or block"
    coded = node.outputs[0] if node.op_type == "QuantizeLinear" else data_of(node)
    name = dtype_of(coded).name
    return None if name in _RANGES else f"codes of dtype {name}"


OPS: Mapping[str, Op] = {
    "DequantizeLinear": Op(_dequantize, _whole_tensor),
    "QuantizeLinear": Op(_quantize, _whole_tensor),
}
