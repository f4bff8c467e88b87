"""Operators that place elements: Concat, Split, Slice, Pad, Expand, Tile, and movement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.model import constant, dtype_of, shape_of
from edgevit.targets.attributes import attribute, data_of, optional, text, whole
from edgevit.targets.litert.context import Context, permuted
from edgevit.targets.litert.grouping import Group
from edgevit.targets.litert.movement import MAX_RANK
from edgevit.targets.litert.rules import Rule, aligned, channels_last, identity_perm
from edgevit.targets.litert.sinking import Refined
from edgevit.targets.litert.table import Check, Op, all_of, rank

__all__ = ["OPS"]

_SAME = Rule("same", data=1)
_JOINED = Rule("same")
_ANY = Rule("elementwise", data=1)
_NHWC = channels_last(4)
_SLICED = 5  # highest rank of SLICE, STRIDED_SLICE, PAD


def _at_most(ranks: int, op: str) -> Check:
    def check(node: ir.Node) -> str | None:
        found = len(shape_of(data_of(node)))
        return None if found <= ranks else f"rank {found}: {op} takes at most {ranks}"

    return check


def ints(value: ir.Value | None, what: str) -> list[int]:
    """A constant list of integers."""
    array = constant(value)
    if array is None:
        raise ValueError(f"{what} must be constant")
    return [int(i) for i in array.reshape(-1)]


def _known(*indices: int) -> Check:
    def check(node: ir.Node) -> str | None:
        values = [optional(node, i) for i in indices]
        late = [v for v in values if v is not None and v.const_value is None]
        return f"operand {late[0].name!r} must be constant" if late else None

    return check


def _concat(ctx: Context, group: Group) -> None:
    axis = ctx.perm.index(whole(group.head, "axis", 0))
    tensors = [ctx.read(v, ctx.perm) for v in group.head.inputs if v is not None]
    ctx.result("CONCATENATION", tensors, options=schema.ConcatenationOptionsT(axis=axis))


def _first_runs(node: ir.Node) -> str | None:
    """The layout rule takes the space from the first operand."""
    return "no operand" if not node.inputs else None


def _split_sunk(ctx: Context, group: Group, refined: Refined) -> None:
    """Transpose the whole with the parts outermost, then split; see ``sinking``."""
    node, count = group.head, len(group.head.outputs)
    whole_shape = (
        *refined.shape[: refined.axis], count, *refined.shape[refined.axis :]
    )  # fmt: skip
    shifted = [p + (p >= refined.axis) for p in refined.perm]
    tensor = ctx.read_refined(data_of(node), whole_shape, (refined.axis, *shifted))
    sizes = permuted(refined.shape, refined.perm)
    outs = [ctx.part(v, refined.shape, refined.perm, (1, *sizes)) for v in node.outputs]
    which = ctx.constant("axis", 0, "int32")
    ctx.writer.operator("SPLIT", [which, tensor], outs, options=schema.SplitOptionsT(count))


def _split(ctx: Context, group: Group) -> None:
    node = group.head
    refined = ctx.sunk(group)
    if refined is not None:
        _split_sunk(ctx, group, refined)
        return
    tensor = ctx.read(data_of(node), ctx.perm)
    which = ctx.constant("axis", ctx.perm.index(whole(node, "axis", 0)), "int32")
    sizes = ints(node.inputs[1], "split")
    outs = [ctx.target(v, ctx.perm) for v in node.outputs]
    if len(set(sizes)) == 1:
        options = schema.SplitOptionsT(len(outs))
        ctx.writer.operator("SPLIT", [which, tensor], outs, options=options)
        return
    # XNNPACK takes no SPLIT_V; slices keep the graph in one delegate.
    axis = ctx.perm.index(whole(node, "axis", 0))
    begin = [0] * len(ctx.perm)
    for out, size in zip(outs, sizes, strict=True):
        shape = ctx.writer.shape(out)
        operands = [
            tensor,
            ctx.constant("begin", begin, "int32"),
            ctx.constant("size", shape, "int32"),
        ]
        ctx.writer.operator("SLICE", operands, [out], options=schema.SliceOptionsT())
        begin[axis] += size


def _ranges(node: ir.Node) -> list[range]:
    """The positions that a Slice keeps on each axis."""
    shape = shape_of(data_of(node))
    given = [ints(node.inputs[i], "slice operand") for i in (1, 2, 3, 4)]
    ranges = [range(dim) for dim in shape]
    for start, end, axis, step in zip(*given, strict=True):
        ranges[axis] = range(shape[axis])[slice(start, _stop(end, step, shape[axis]), step)]
    return ranges


def _slice(ctx: Context, group: Group) -> None:
    value = data_of(group.head)
    placed = [_ranges(group.head)[p] for p in ctx.perm]
    dims, kept = _stepless(permuted(shape_of(value), ctx.perm), placed)
    if all(r.step == 1 for r in kept) and len(dims) <= _SLICED:
        tensor = ctx.read(value, ctx.perm, dims)
        begin = ctx.constant("begin", [r.start for r in kept], "int32")
        size = [len(r) for r in kept]
        operands = [tensor, begin, ctx.constant("size", size, "int32")]
        ctx.result("SLICE", operands, options=schema.SliceOptionsT(), shape=tuple(size))
        return
    ends = [r.start + len(r) * r.step for r in placed]
    # A negative end would count from the back: the mask says "to the very end" instead.
    mask = sum(1 << i for i, e in enumerate(ends) if e < 0)
    operands = [
        ctx.read(value, ctx.perm),
        ctx.constant("begin", [r.start for r in placed], "int32"),
        ctx.constant("end", [max(e, 0) for e in ends], "int32"),
        ctx.constant("step", [r.step for r in placed], "int32"),
    ]
    options = schema.StridedSliceOptionsT(endMask=mask)
    ctx.result("STRIDED_SLICE", operands, options=options)


def _stepless(
    shape: tuple[int, ...], ranges: list[range]
) -> tuple[tuple[int, ...], list[range]]:
    """The same slice without steps, of the tensor with stepped axes split in two.

    XNNPACK takes SLICE, and STRIDED_SLICE only without steps. An axis of ``n * step``
    elements of which every ``step``-th is kept is an axis ``[n, step]`` of which one column
    is kept; whatever does not divide that way keeps its step.
    """
    dims: list[int] = []
    kept: list[range] = []
    for dim, r in zip(shape, ranges, strict=True):
        if r.step > 1 and dim % r.step == 0 and len(r) == dim // r.step:
            dims += [len(r), r.step]
            kept += [range(len(r)), range(r.start, r.start + 1)]
        else:
            dims.append(dim)
            kept.append(r)
    return tuple(dims), kept


def _stop(end: int, step: int, dim: int) -> int | None:
    """ONNX's end as Python's: before the first element there is only ``None``."""
    return None if step < 0 and end < -dim else end


def _pad(ctx: Context, group: Group) -> None:
    node = group.head
    value = data_of(node)
    amounts = np.array(ints(node.inputs[1], "pads")).reshape(2, -1).T[list(ctx.perm)]
    tensor = ctx.read(value, ctx.perm)
    mode = text(node, "mode", "constant")
    if mode == "edge":
        _pad_edge(ctx, group, tensor, amounts)
        return
    table = ctx.constant("paddings", amounts, "int32")
    if mode == "reflect":
        ctx.result("MIRROR_PAD", [tensor, table], options=schema.MirrorPadOptionsT(0))
        return
    given, meaning = constant(optional(node, 2)), ctx.writer.quantization(tensor)
    fill = np.zeros(1, dtype_of(value)) if given is None else given.reshape(1)
    # PAD writes the number zero: of codes, that is the zero point.
    if fill[0] == (0 if meaning is None else meaning.zeroPoint[0]):
        ctx.result("PAD", [tensor, table], options=schema.PadOptionsT())
        return
    filled = ctx.writer.codes("fill", fill, dtype_of(value).name, meaning)
    ctx.result("PADV2", [tensor, table, filled], options=schema.PadV2OptionsT())


def _pad_edge(ctx: Context, group: Group, tensor: int, amounts: Any) -> None:
    """Repeat the border: along each padded axis gather clipped positions."""
    for axis, (before, after) in enumerate(amounts):
        if before == 0 and after == 0:
            continue
        shape = list(ctx.writer.shape(tensor))
        where = np.arange(-before, shape[axis] + after).clip(0, shape[axis] - 1)
        shape[axis] = len(where)
        indices = ctx.constant("border", where, "int32")
        options = schema.GatherOptionsT(axis=axis)
        tensor = ctx.emit("GATHER", [tensor, indices], shape, options=options)
    ctx.adopt(group.output, tensor, ctx.perm)


def _pads(node: ir.Node) -> str | None:
    """Only padding that grows the tensor, in the modes that have kernels."""
    mode = text(node, "mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        return f"mode {mode!r}: only constant, reflect and edge are lowered"
    pads = constant(node.inputs[1])
    if pads is None or (pads < 0).any():
        return "pads must be constant and not negative"
    return None if pads.any() else "a padding of nothing (canonicalization removes it)"


def _expand(ctx: Context, group: Group) -> None:
    value = data_of(group.head)
    rank_ = len(shape_of(group.output))
    wide = (1,) * (rank_ - len(shape_of(value))) + shape_of(value)
    perm = aligned(ctx.perm, len(shape_of(value)))
    tensor = ctx.read(value, perm, permuted(wide, ctx.perm))
    target = ctx.constant("shape", permuted(shape_of(group.output), ctx.perm), "int32")
    options = schema.BroadcastToOptionsT()
    ctx.result("BROADCAST_TO", [tensor, target], options=options, version=2)


def _tile(ctx: Context, group: Group) -> None:
    repeats = permuted(ints(group.head.inputs[1], "repeats"), ctx.perm)
    table = ctx.constant("repeats", repeats, "int32")
    tensor = ctx.read(data_of(group.head), ctx.perm)
    ctx.result("TILE", [tensor, table], options=schema.TileOptionsT())


def _movement(ctx: Context, group: Group) -> None:
    """A Reshape or Transpose that no view can express: compute it in plain order."""
    node = group.head
    value = data_of(node)
    if node.op_type == "Transpose":
        perm = tuple(node.attributes["perm"].as_ints())
        tensor = ctx.read(value, perm)
    else:
        tensor = ctx.read(value, identity_perm(len(shape_of(value))))
    made = ctx.target(group.output)
    ctx.copy(tensor, made)


def _identity(ctx: Context, group: Group) -> None:
    """A graph output that repeats an input, a constant or another output: its own tensor."""
    tensor = ctx.read(data_of(group.head), ctx.perm)
    ctx.copy(tensor, ctx.target(group.output, ctx.perm))


def _transposable(node: ir.Node) -> str | None:
    moving = math.prod(shape_of(data_of(node))) > 1
    axes = sum(dim > 1 for dim in shape_of(data_of(node)))
    if moving and axes > MAX_RANK:
        return f"rank {axes} without axes of size one: TRANSPOSE takes at most {MAX_RANK}"
    return None


def _depth_to_space(ctx: Context, group: Group) -> None:
    """DEPTH_TO_SPACE orders depth as DCR; CRD is brought there by sorting the channels."""
    node = group.head
    block = whole(node, "blocksize", 2)
    tensor = ctx.read(data_of(node), _NHWC)
    if text(node, "mode", "DCR") == "CRD":
        c = shape_of(data_of(node))[1]
        order = np.arange(c).reshape(c // block**2, block * block).T.reshape(-1)
        indices = ctx.constant("channels", order, "int32")
        shape = ctx.writer.shape(tensor)
        options = schema.GatherOptionsT(axis=3)
        tensor = ctx.emit("GATHER", [tensor, indices], shape, options=options)
    ctx.result(
        "DEPTH_TO_SPACE", [tensor], options=schema.DepthToSpaceOptionsT(block), perm=_NHWC
    )


def _space_to_depth(ctx: Context, group: Group) -> None:
    block = int(attribute(group.head, "blocksize", 2))
    tensor = ctx.read(data_of(group.head), _NHWC)
    ctx.result(
        "SPACE_TO_DEPTH", [tensor], options=schema.SpaceToDepthOptionsT(block), perm=_NHWC
    )


_PLAIN = Rule("plain", data=1)
_IMAGE = Rule("channels-last", data=1)

OPS: Mapping[str, Op] = {
    "Concat": Op(_concat, _JOINED, _first_runs),
    "Split": Op(_split, _SAME, _known(1)),
    "Slice": Op(_slice, _SAME, all_of(_known(1, 2, 3, 4), _at_most(_SLICED, "SLICE"))),
    "Pad": Op(_pad, _SAME, all_of(_known(1, 2), _pads, _at_most(_SLICED, "PAD"))),
    "Expand": Op(_expand, _ANY),
    "Tile": Op(_tile, _SAME, _known(1)),
    "Identity": Op(_identity, _SAME),
    "Reshape": Op(_movement, _PLAIN, _known(1)),
    "Transpose": Op(_movement, _PLAIN, _transposable),
    "DepthToSpace": Op(_depth_to_space, _IMAGE, rank(4)),
    "SpaceToDepth": Op(_space_to_depth, _IMAGE, rank(4)),
}
