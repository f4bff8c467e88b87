"""Reshapes, transposes, concatenation, splitting, slicing, padding, repetition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import Rule, i32, ints, ints_in, number_in, text

__all__ = ["TABLE"]


def _reshape(ctx: Context, node: ir.Node) -> None:
    out = node.outputs[0]
    ctx.emit(out, "reshape", x=ctx.get(node.inputs[0]), shape=i32(ctx.shape(out)))


def _identity(ctx: Context, node: ir.Node) -> None:
    """A graph output that repeats an input, a constant or another output."""
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    if tuple(x.shape) == ctx.shape(out):
        ctx.emit(out, "identity", x=x)
        return
    ctx.emit(out, "reshape", x=x, shape=i32(ctx.shape(out)))  # a constant without axes


def _transpose(ctx: Context, node: ir.Node) -> None:
    perm = i32(ints(node, "perm"))
    ctx.emit(node.outputs[0], "transpose", x=ctx.get(node.inputs[0]), perm=perm)


def _concat(ctx: Context, node: ir.Node) -> None:
    axis = i32(ctx.axis(node.attributes["axis"].as_int()))
    values = tuple(ctx.get(v) for v in node.inputs)
    ctx.emit(node.outputs[0], "concat", values=values, axis=axis, interleave=False)


def _split(ctx: Context, node: ir.Node) -> None:
    axis = node.attributes.get_int("axis", 0)
    sizes = [shape_of(out)[axis] for out in node.outputs]
    parts = ctx.mb.split(
        x=ctx.get(node.inputs[0]),
        split_sizes=i32(sizes),
        axis=i32(ctx.axis(axis)),
        name=ctx.names.claim(f"{node.outputs[0].name}__split"),
    )
    for out, part in zip(node.outputs, parts if len(sizes) > 1 else [parts], strict=True):
        part.name = ctx.name(out)
        ctx.bind(out, part)


def _slices(node: ir.Node) -> dict[int, range]:
    """Axis -> positions that a Slice takes, by ONNX's rules (clamped, either direction)."""
    x = node.inputs[0]
    assert x is not None
    shape = shape_of(x)
    starts, ends = ints_in(node, 1), ints_in(node, 2)
    assert starts is not None
    assert ends is not None
    axes = ints_in(node, 3) or list(range(len(starts)))
    steps = ints_in(node, 4) or [1] * len(starts)
    taken = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken[axis % len(shape)] = range(
            *slice(start, _end(end, step), step).indices(shape[axis])
        )
    return taken


def _end(end: int, step: int) -> int | None:
    """ONNX writes "down to the first element" as a very negative end."""
    return None if step < 0 and end < -(2**31) + 1 else end


def _slice(ctx: Context, node: ir.Node) -> None:
    x, out = node.inputs[0], node.outputs[0]
    shape = ctx.shape(x)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    backwards = []
    for source, positions in _slices(node).items():
        axis = ctx.axis(source)
        low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
        begin[axis], end[axis], stride[axis] = low, high + 1, abs(positions.step)
        if positions.step < 0 and len(positions) > 1:
            backwards.append(axis)
    where = {"begin": i32(begin), "end": i32(end), "stride": i32(stride)}
    if not backwards:
        ctx.emit(out, "slice_by_index", x=ctx.get(x), **where)
        return
    forward = ctx.temp(out, "forward", "slice_by_index", x=ctx.get(x), **where)
    ctx.emit(out, "reverse", x=forward, axes=i32(backwards))


def _refuse_slice(node: ir.Node) -> str | None:
    if any(ints_in(node, i) is None for i in range(1, len(node.inputs)) if node.inputs[i]):
        return "starts, ends, axes and steps are not all constant"
    return None


def _pad(ctx: Context, node: ir.Node) -> None:
    pads = ints_in(node, 1)
    value = number_in(node, 2, 0.0)
    assert pads is not None
    assert value is not None
    half = len(pads) // 2
    rank = len(ctx.shape(node.outputs[0]))
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[
        text(node, "mode", "constant")
    ]
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    amounts = [(0, 0)] * rank
    for axis in (i for i in range(half) if pads[i] or pads[i + half]):
        amounts[ctx.axis(axis)] = (pads[axis], pads[axis + half])
    first = next((i for i, pair in enumerate(amounts) if any(pair)), rank - 1)
    flat = i32([v for pair in amounts[first:] for v in pair])
    ctx.emit(out, "pad", x=x, pad=flat, mode=mode, constant_val=ctx.scalar(value))


def _refuse_pad(node: ir.Node) -> str | None:
    mode, pads = text(node, "mode", "constant"), ints_in(node, 1)
    if mode not in ("constant", "reflect", "edge"):
        return f"mode {mode!r} does not exist in ML programs"
    if pads is None or number_in(node, 2, 0.0) is None:
        return "pads and value must be constant"
    if min(pads) < 0:
        return "negative pads are not canonical"
    if not np.issubdtype(dtype_of(node.outputs[0]), np.floating):
        return f"pad of {dtype_of(node.outputs[0])} does not exist in ML programs"
    half = len(pads) // 2
    early = any(pads[i] or pads[i + half] for i in range(half - 2))
    return (
        f"mode {mode!r} pads the last two axes only" if mode != "constant" and early else None
    )


def _repeat(ctx: Context, node: ir.Node, reps: list[int]) -> None:
    """Tile to the output shape; the input first gets leading axes if it lacks them."""
    x, out = node.inputs[0], node.outputs[0]
    shape, var = ctx.shape(x), ctx.get(x)
    if all(r == 1 for r in reps):
        ctx.emit(out, "reshape", x=var, shape=i32(ctx.shape(out)))
        return
    if len(shape) < len(reps):
        wide = (1,) * (len(reps) - len(shape)) + shape
        var = ctx.temp(out, "wide", "reshape", x=var, shape=i32(wide))
    ctx.emit(out, "tile", x=var, reps=i32(reps))


def _tile(ctx: Context, node: ir.Node) -> None:
    reps = ints_in(node, 1)
    assert reps is not None
    _repeat(ctx, node, reps)


def _expand(ctx: Context, node: ir.Node) -> None:
    shape, target = ctx.shape(node.inputs[0]), ctx.shape(node.outputs[0])
    wide = (1,) * (len(target) - len(shape)) + shape
    _repeat(ctx, node, [t // w for t, w in zip(target, wide, strict=True)])


def _constant_input(index: int, what: str) -> Any:
    def refuse(node: ir.Node) -> str | None:
        return f"{what} is not constant" if constant(node.inputs[index]) is None else None

    return refuse


def _depth_to_space(ctx: Context, node: ir.Node) -> None:
    """DCR is ``depth_to_space``, CRD is ``pixel_shuffle``."""
    block = i32(node.attributes["blocksize"].as_int())
    x, out = ctx.get(node.inputs[0]), node.outputs[0]
    if text(node, "mode", "DCR") == "CRD":
        ctx.emit(out, "pixel_shuffle", x=x, upscale_factor=block)
        return
    ctx.emit(out, "depth_to_space", x=x, block_size=block)


def _space_to_depth(ctx: Context, node: ir.Node) -> None:
    block = i32(node.attributes["blocksize"].as_int())
    ctx.emit(node.outputs[0], "space_to_depth", x=ctx.get(node.inputs[0]), block_size=block)


def _volume(node: ir.Node) -> str | None:
    x = node.inputs[0]
    assert x is not None
    if math.prod(shape_of(x)) != math.prod(shape_of(node.outputs[0])):
        return "the number of elements changes"
    return None


TABLE: dict[str, Rule] = {
    "Identity": Rule(_identity),
    "Reshape": Rule(_reshape, _volume, numbers=1),
    "Transpose": Rule(_transpose, needs=("perm",)),
    "Concat": Rule(_concat, needs=("axis",)),
    "Split": Rule(_split, numbers=1),
    "Slice": Rule(_slice, _refuse_slice, numbers=1),
    "Pad": Rule(_pad, _refuse_pad, saturates=True, numbers=1),
    "Tile": Rule(_tile, _constant_input(1, "repeats"), numbers=1),
    "Expand": Rule(_expand, numbers=1),
    "DepthToSpace": Rule(_depth_to_space, needs=("blocksize",)),
    "SpaceToDepth": Rule(_space_to_depth, needs=("blocksize",)),
}
