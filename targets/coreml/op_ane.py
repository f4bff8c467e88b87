"""Operators as the neural engine likes them: 1x1 convolutions, and attention head by head."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.targets.coreml import op_quant
from edgevit.targets.coreml.arranged import Arranged
from edgevit.targets.coreml.choose import matrix_layout, rows_layout, wishes
from edgevit.targets.coreml.layouts import HEADS, KEYS, SCORES, Layout, plain, swapped
from edgevit.targets.coreml.rule import floats, i32

__all__ = ["attention", "linear", "product"]


def linear(ctx: Arranged, node: ir.Node, out: ir.Value, bias: ir.Value | None) -> None:
    """``x W + b`` over the last axis, as a 1x1 convolution over the channels."""
    x, w = node.inputs
    assert x is not None
    assert w is not None
    layout = rows_layout(ctx, x)
    more = {} if bias is None else {"bias": ctx.whole(bias)}
    ctx.emit_in(
        out,
        layout,
        "conv",
        x=ctx.read(x, layout),
        weight=_kernel(ctx, w),
        strides=i32([1, 1]),
        pad_type="valid",
        dilations=i32([1, 1]),
        groups=i32(1),
        **more,
    )


def _kernel(ctx: Arranged, value: ir.Value) -> Any:
    """``W [K, N]`` as ``[N, K, 1, 1]``; stored integers stay integers."""
    array = constant(value)
    if array is not None:
        return ctx.const(array.T[:, :, None, None], str(value.name))
    maker = value.producer()
    assert maker is not None
    return op_quant.stored_kernel(ctx, maker)


def _orders(ctx: Arranged, node: ir.Node) -> tuple[Layout, bool]:
    """How the product is best written: as it is, or transposed (``y' x'``)."""
    out = node.outputs[0]
    rank = len(shape_of(out))
    forms = (plain(rank), swapped(rank))
    best = min(forms, key=lambda c: wishes(out, c))
    return best, not best.is_plain


def product(ctx: Arranged, node: ir.Node) -> None:
    """A product of two tensors; operands that lie transposed are read as they lie."""
    x, y = node.inputs
    assert x is not None
    assert y is not None
    sides = [matrix_layout(ctx, v) for v in (x, y)]
    layout, turned = _orders(ctx, node)
    tensors = [
        ctx.whole(v) if constant(v) is not None else ctx.read(v, side)
        for v, side in zip((x, y), sides, strict=True)
    ]
    flags = [not side.is_plain for side in sides]
    if turned:
        tensors.reverse()
        flags = [not flag for flag in reversed(flags)]
    ctx.emit_in(
        node.outputs[0],
        layout,
        "matmul",
        x=tensors[0],
        y=tensors[1],
        transpose_x=flags[0],
        transpose_y=flags[1],
    )


def _parts(ctx: Arranged, out: ir.Value, role: str, var: Any, axis: int, count: int) -> Any:
    if count == 1:
        return [var]
    parts = ctx.mb.split(
        x=var,
        num_splits=i32(count),
        axis=i32(axis),
        name=ctx.names.claim(f"{out.name}__{role}"),
    )
    for part in parts:
        part.name = ctx.names.claim(f"{out.name}__{role}_head")
    return parts


def attention(ctx: Arranged, node: ir.Node) -> None:
    """softmax(scale q k^T + mask) v, one head after the other, keys on the channel axis.

    The scores of a head are ``[B, T, 1, S]``: what is summed over is never the last axis, so
    nothing is transposed but the key, once for all heads. The query is scaled, not the
    scores: in float16 the scores then stay in range.
    """
    out = node.outputs[0]
    query, key, value = (v for v in node.inputs[:3] if v is not None)
    heads = shape_of(query)[1]
    scale = ctx.scalar(floats(node, "scale", float("nan")))
    q = ctx.temp(out, "query", "mul", x=_operand(ctx, query, HEADS), y=scale)
    masks = _masks(ctx, node, heads)
    results = []
    sides = (
        _parts(ctx, out, "queries", q, 1, heads),
        _parts(ctx, out, "keys", _operand(ctx, key, KEYS), 3, heads),
        _parts(ctx, out, "values", _operand(ctx, value, HEADS), 1, heads),
    )
    for head, (qi, ki, vi) in enumerate(zip(*sides, strict=True)):
        scores = _einsum(ctx, out, "scores", ki, qi)
        if masks:
            scores = ctx.temp(out, "masked", "add", x=scores, y=masks[head])
        weights = ctx.temp(out, "weights", "softmax", x=scores, axis=i32(1))
        results.append(_einsum(ctx, out, "head", vi, weights))
    joined = _join(ctx, out, results)
    ctx.bind_in(out, joined, HEADS)


def _operand(ctx: Arranged, value: ir.Value, layout: Layout) -> Any:
    """Queries, keys or values; constant ones (learned prompts) are stored as they are read."""
    array = constant(value)
    if array is None:
        return ctx.read(value, layout)
    return ctx.const(layout.arrange(array, array.shape), str(value.name))


def _join(ctx: Arranged, out: ir.Value, results: list[Any]) -> Any:
    name = ctx.name_in(out, HEADS)
    if len(results) > 1:
        return ctx.mb.concat(values=tuple(results), axis=i32(1), interleave=False, name=name)
    results[0].name = name
    results[0].op.name = name
    return results[0]


def _einsum(ctx: Arranged, out: ir.Value, role: str, x: Any, y: Any) -> Any:
    return ctx.temp(out, role, "einsum", values=(x, y), equation="nchw,nwhu->nchu")


def _masks(ctx: Arranged, node: ir.Node, heads: int) -> list[Any]:
    """The mask of each head as ``[B, T, 1, S]``; none if there is no mask."""
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is None:
        return []
    base = f"{node.outputs[0].name}__mask"
    array = constant(mask)
    if array is not None:
        wide = ctx.masked(mask, array).reshape((1,) * (4 - array.ndim) + array.shape)
        turned = np.broadcast_to(wide, _headed(wide.shape, heads)).transpose(SCORES.perm)
        return [ctx.const(turned[:, :, h : h + 1], base) for h in range(heads)]
    var = ctx.read(mask, SCORES)
    if tuple(var.shape)[2] == 1:
        return [var] * heads
    return list(_parts(ctx, node.outputs[0], "masks", var, 2, heads))


def _headed(shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
    return (shape[0], heads, *shape[2:])
