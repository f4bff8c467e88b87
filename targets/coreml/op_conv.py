"""Convolutions and pools."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import dtype_of, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Rule, fixed, i32, ints

__all__ = ["TABLE"]


def _pairs(pads: list[int]) -> list[int]:
    """ONNX ``[h0, w0, h1, w1]`` to MIL ``[h0, h1, w0, w1]``."""
    half = len(pads) // 2
    return [pads[axis + side * half] for axis in range(half) for side in (0, 1)]


def _conv(ctx: Context, node: ir.Node) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    pads = ints(node, "pads")
    ctx.emit(
        node.outputs[0],
        "conv",
        x=ctx.get(node.inputs[0]),
        weight=ctx.get(node.inputs[1]),
        bias=None if bias is None else ctx.get(bias),
        strides=i32(ints(node, "strides")),
        pad_type="custom" if any(pads) else "valid",
        pad=i32(_pairs(pads)),
        dilations=i32(ints(node, "dilations")),
        groups=i32(node.attributes.get_int("group", 1)),
    )


def _transposed_pads(node: ir.Node) -> tuple[list[int], list[int]]:
    """Crops for ``conv_transpose``, and zeros to append to its input, per axis.

    ONNX's ``output_padding`` keeps that much more of the end. Where the crop at the end is
    too small to give it, one more (zero) input row adds ``stride`` rows, of which
    ``stride - output_padding`` are cropped.
    """
    pads, extra = _pairs(ints(node, "pads")), ints(node, "output_padding")
    appended = [0] * len(extra)
    for axis, more in enumerate(extra):
        end = pads[2 * axis + 1] - more
        if end < 0:
            end += ints(node, "strides")[axis]
            appended[axis] = 1
        pads[2 * axis + 1] = end
    return pads, appended


def _conv_transpose(ctx: Context, node: ir.Node) -> None:
    out = node.outputs[0]
    x = ctx.get(node.inputs[0])
    pads, appended = _transposed_pads(node)
    if any(appended):
        amount = i32([v for extra in appended for v in (0, extra)])
        x = ctx.temp(
            out,
            "extended",
            "pad",
            x=x,
            pad=amount,
            mode="constant",
            constant_val=ctx.scalar(0),
        )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    ctx.emit(
        out,
        "conv_transpose",
        x=x,
        weight=ctx.get(node.inputs[1]),
        bias=None if bias is None else ctx.get(bias),
        strides=i32(ints(node, "strides")),
        pad_type="custom" if any(pads) else "valid",
        pad=i32(pads),
        dilations=i32(ints(node, "dilations")),
        groups=i32(node.attributes.get_int("group", 1)),
    )


def _refuse_conv(node: ir.Node) -> str | None:
    if not fixed(node.inputs[1]):
        return "the weight is not constant"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not fixed(bias):
        return "the bias is not constant"
    rank = len(shape_of(node.outputs[0]))
    if not 3 <= rank <= 5:
        return f"convolution of rank {rank}; ML programs have ranks 3 to 5"
    if any(p < 0 for p in ints(node, "pads")):
        return "negative padding"
    return None


def _refuse_transposed(node: ir.Node) -> str | None:
    reason = _refuse_conv(node)
    if reason is not None:
        return reason
    if any(more >= s for more, s in zip(*_extra_and_stride(node), strict=True)):
        return "output_padding is not smaller than the stride"
    return None


def _extra_and_stride(node: ir.Node) -> tuple[list[int], list[int]]:
    return ints(node, "output_padding"), ints(node, "strides")


def _pool(ctx: Context, node: ir.Node) -> None:
    pads = ints(node, "pads")
    average = node.op_type == "AveragePool"
    more = {}
    if average:
        counted = bool(node.attributes.get_int("count_include_pad", 0))
        more["exclude_padding_from_average"] = not counted
    ctx.emit(
        node.outputs[0],
        "avg_pool" if average else "max_pool",
        x=ctx.get(node.inputs[0]),
        kernel_sizes=i32(ints(node, "kernel_shape")),
        strides=i32(ints(node, "strides")),
        pad_type="custom" if any(pads) else "valid",
        pad=i32(_pairs(pads)),
        ceil_mode=False,
        **more,
    )


def _refuse_pool(node: ir.Node) -> str | None:
    x = node.inputs[0]
    if x is not None and dtype_of(x).kind != "f":
        return f"a pool of {dtype_of(x).name} does not exist in ML programs"
    if len(node.outputs) > 1:
        return "the indices output of a pool does not exist in ML programs"
    if node.attributes.get_int("ceil_mode", 0):
        return "ceil_mode=1 is not canonical"
    if any(d != 1 for d in node.attributes.get_ints("dilations", [1])):
        return "a dilated pool does not exist in ML programs"
    return None


_WINDOW = ("kernel_shape", "strides", "pads")
_CONV = (*_WINDOW, "dilations", "group")

TABLE: dict[str, Rule] = {
    "Conv": Rule(_conv, _refuse_conv, needs=_CONV),
    "ConvTranspose": Rule(
        _conv_transpose, _refuse_transposed, needs=(*_CONV, "output_padding")
    ),
    "MaxPool": Rule(_pool, _refuse_pool, needs=_WINDOW),
    "AveragePool": Rule(_pool, _refuse_pool, needs=(*_WINDOW, "count_include_pad")),
}
