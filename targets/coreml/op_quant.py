"""QuantizeLinear and DequantizeLinear: 8-bit integers between them, and stored weights.

Case 1, dequantized constant of 8 bits: ``constexpr_affine_dequantize``, the integers ship.
Case 2, dequantized constant of 32 bits (a bias): the float constant, exact in float32.
Case 1b, one of 4 bits, or with scales of blocks: iOS 18 has
``constexpr_blockwise_shift_scale``.
Case 3, a tensor: ``quantize`` then ``dequantize``. From iOS 17 on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml.context import Array, Context
from edgevit.targets.coreml.rule import Rule, i32

__all__ = ["TABLE", "stored_kernel"]

_SUB_BYTE = "int4"
_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))

# Below this float16 has fewer than 11 significant bits.
_FLOAT16_NORMAL = 2.0**-14


def _axis(node: ir.Node) -> int:
    value = node.inputs[0]
    assert value is not None
    return int(node.attributes.get_int("axis", 1)) % max(len(shape_of(value)), 1)


def _scale(node: ir.Node) -> Array:
    scale = constant(node.inputs[1])
    assert scale is not None
    return scale.reshape(()) if scale.size == 1 else scale


def _zero_point(node: ir.Node, dtype: np.dtype[Any]) -> Array:
    """The zero point in the shape of the scale; 0 if absent."""
    scale = _scale(node)
    given = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    zero = np.zeros(scale.shape, dtype) if given is None else given.astype(dtype)
    return zero.reshape(scale.shape)


def _parameters(ctx: Context, node: ir.Node, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Scale, zero point, and the axis where there is one number a channel."""
    base, scale, zero = node.outputs[0].name, _scale(node), _zero_point(node, dtype)
    given = {
        "scale": ctx.const(scale, f"{base}__scale"),
        "zero_point": ctx.exact(zero, f"{base}__zero"),
    }
    return given if scale.ndim == 0 else {**given, "axis": i32(ctx.axis(_axis(node)))}


def _quantize(ctx: Context, node: ir.Node) -> None:
    out = node.outputs[0]
    dtype = dtype_of(out)
    options = _parameters(ctx, node, dtype)
    ctx.emit(
        out, "quantize", input=ctx.get(node.inputs[0]), output_dtype=dtype.name, **options
    )


def _dequantize(ctx: Context, node: ir.Node) -> None:
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    array, dtype = constant(source), dtype_of(source)
    if array is None:
        options = _parameters(ctx, node, dtype)
        ctx.emit(out, "dequantize", input=ctx.get(source), **options)
    elif _blockwise(node):
        made = _shift_scale(ctx, node, array, lambda a: a)
        ctx.emit(out, "constexpr_blockwise_shift_scale", **made)
    elif dtype in _BYTES:
        options = {"axis": i32(0), **_parameters(ctx, node, dtype)}
        data = ctx.exact(array, str(source.name))
        ctx.emit(out, "constexpr_affine_dequantize", quantized_data=data, **options)
    else:
        ctx.bind(out, ctx.const(_unpacked(node, array), str(out.name)))


def stored_kernel(ctx: Context, node: ir.Node) -> Any:
    """The dequantized weight ``W [K, N]`` of a linear layer as ``[N, K, 1, 1]``."""
    source, out = node.inputs[0], node.outputs[0]
    array = constant(source)
    assert array is not None
    if _blockwise(node):
        made = _shift_scale(ctx, node, array, lambda a: a.T[:, :, None, None])
        return ctx.temp(out, "kernel", "constexpr_blockwise_shift_scale", **made)
    if array.dtype not in _BYTES:
        return ctx.const(_unpacked(node, array).T[:, :, None, None], str(out.name))
    options = _parameters(ctx, node, array.dtype)
    if "axis" in options:
        options["axis"] = i32(1 - _axis(node))
    options = {"axis": i32(0), **options}
    data = ctx.exact(array.T[:, :, None, None], f"{out.name}__stored")
    return ctx.temp(
        out, "kernel", "constexpr_affine_dequantize", quantized_data=data, **options
    )


def _blockwise(node: ir.Node) -> bool:
    """Whether a stored constant needs the operation of iOS 18."""
    source = node.inputs[0]
    assert source is not None
    four = dtype_of(source).name == _SUB_BYTE
    return four or bool(node.attributes.get_int("block_size", 0))


def _shift_scale(
    ctx: Context, node: ir.Node, codes: Array, arrange: Callable[[Array], Array]
) -> dict[str, Any]:
    """Codes and scales of one rank; the number of scales along an axis divides its length."""
    from coremltools.converters.mil.mil.types.type_int import np_int4_dtype

    scale, base = _scale(node), node.outputs[0].name
    if scale.ndim < codes.ndim:
        wide = [1] * codes.ndim
        if scale.ndim:
            wide[_axis(node)] = -1
        scale = scale.reshape(wide)
    stored = np_int4_dtype if codes.dtype.name == _SUB_BYTE else codes.dtype
    made = {
        "data": ctx.exact(arrange(codes.astype(np.int8)).astype(stored), f"{base}__stored"),
        "scale": ctx.const(arrange(scale), f"{base}__scale"),
    }
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is None or not zero.any():
        return made
    offset = arrange(zero.astype(np.int8).reshape(scale.shape)).astype(stored)
    return {**made, "offset": ctx.exact(offset, f"{base}__offset")}


def _unpacked(node: ir.Node, array: Array) -> Array:
    scale, zero = _scale(node).astype(np.float64), _zero_point(node, array.dtype)
    if scale.ndim:
        wide = [1] * array.ndim
        wide[_axis(node)] = -1
        scale, zero = scale.reshape(wide), zero.reshape(wide)
    return (array.astype(np.float64) - zero) * scale


def _parameters_reason(node: ir.Node) -> str | None:
    """What is wrong with scale and zero point."""
    scale = constant(node.inputs[1])
    if scale is None or any(constant(v) is None for v in node.inputs[2:] if v is not None):
        return "scale and zero point must be constant"
    if scale.ndim > 1 and constant(node.inputs[0]) is None:
        return "activations have scales of blocks: ML programs know them of constants only"
    if _uneven(node, scale):
        return "a block is cut off: ML programs need scales that divide the axis"
    if scale.size and not (scale > 0).all():
        return "a scale is not positive"
    return None


def _uneven(node: ir.Node, scale: Array) -> bool:
    """Whether the last block of an axis is shorter than the others."""
    source, block = node.inputs[0], node.attributes.get_int("block_size", 0)
    if not block or source is None:
        return False
    return bool(shape_of(source)[_axis(node)] != scale.shape[_axis(node)] * block)


def _since(node: ir.Node) -> int:
    """Stored weights since iOS 16, ``quantize`` and ``dequantize`` since iOS 17.

    4 bits and scales of blocks since iOS 18.
    """
    if node.op_type == "DequantizeLinear" and _blockwise(node):
        return 18
    return 16 if constant(node.inputs[0]) is not None else 17


def _narrow_reason(node: ir.Node) -> str | None:
    smallest = float(_scale(node).min())
    if smallest < _FLOAT16_NORMAL:
        return f"a scale of {smallest:.3g} has too few bits in float16; use fp32"
    return None


def _refuse_quantize(node: ir.Node) -> str | None:
    out = node.outputs[0]
    if dtype_of(out) not in _BYTES:
        return f"quantize writes int8 or uint8, not {dtype_of(out)}"
    readers = {use.node.op_type for use in out.uses()}
    if out.is_graph_output() or readers - {"DequantizeLinear"}:
        return "a quantized tensor is read by something else than DequantizeLinear"
    return _parameters_reason(node)


def _refuse_dequantize(node: ir.Node) -> str | None:
    source = node.inputs[0]
    assert source is not None
    narrow = dtype_of(source).name == _SUB_BYTE and constant(source) is not None
    wide = dtype_of(source) not in _BYTES and not narrow
    if wide and (constant(source) is None or dtype_of(source) != np.int32):
        return f"dequantize reads int8 or uint8, not {dtype_of(source)}"
    maker = source.producer()
    if constant(source) is None and (maker is None or maker.op_type != "QuantizeLinear"):
        return "a quantized tensor comes from something else than QuantizeLinear"
    return _parameters_reason(node)


TABLE: dict[str, Rule] = {
    "QuantizeLinear": Rule(
        _quantize, _refuse_quantize, numbers=1, narrow=_narrow_reason, since=_since
    ),
    "DequantizeLinear": Rule(
        _dequantize, _refuse_dequantize, numbers=1, narrow=_narrow_reason, since=_since
    ),
}
