"""Transposes of high rank, said with few axes.

Window partitions and pixel shuffles are ``Reshape -> Transpose -> Reshape`` through six or
more axes, and ML programs have five. Axes of size one move freely, and axes that stay
neighbors in the same order move as one, so nearly all of them need five or fewer:

    [1, nh, w, nw, w, C] --(0,1,3,2,4,5)-->   is   [nh, w, nw, w*C] --(0,2,1,3)-->
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.targets.coreml.context import Context
from edgevit.targets.coreml.rule import i32, ints

__all__ = ["MAX_RANK", "Permutation", "WideTranspose", "simplify", "wide_transpose"]

MAX_RANK = 5


@dataclass(frozen=True)
class Permutation:
    """A transpose: ``shape`` before, and the source axis of each axis after."""

    shape: tuple[int, ...]
    perm: tuple[int, ...]


def simplify(permutation: Permutation) -> Permutation:
    """The same movement of elements in as few axes as possible."""
    shape = permutation.shape
    real = [axis for axis in range(len(shape)) if shape[axis] != 1]
    following = dict(itertools.pairwise(real))
    groups: list[list[int]] = []
    for axis in (a for a in permutation.perm if shape[a] != 1):
        if groups and following.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    source = sorted(groups)
    return Permutation(
        tuple(math.prod(shape[a] for a in group) for group in source),
        tuple(source.index(group) for group in groups),
    )


@dataclass(frozen=True)
class WideTranspose:
    """``before -> transpose -> after`` through more axes than ML programs have."""

    before: ir.Node
    transpose: ir.Node
    after: ir.Node

    def lower(self, ctx: Context) -> None:
        """Write the result of ``after``; the two values between do not exist."""
        out = self.after.outputs[0]
        small = simplify(_permutation(self.transpose))
        x = ctx.get(self.before.inputs[0])
        if len(small.shape) > 1:
            split = ctx.temp(out, "split", "reshape", x=x, shape=i32(small.shape))
            x = ctx.temp(out, "moved", "transpose", x=split, perm=i32(small.perm))
        ctx.emit(out, "reshape", x=x, shape=i32(ctx.shape(out)))


def _permutation(transpose: ir.Node) -> Permutation:
    return Permutation(_input_shape(transpose), tuple(ints(transpose, "perm")))


def _input_shape(node: ir.Node) -> tuple[int, ...]:
    value = node.inputs[0]
    assert value is not None
    return shape_of(value)


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(value.uses())
    return users[0].node if len(users) == 1 and not value.is_graph_output() else None


def _wide(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) > MAX_RANK


def _transpose_of(node: ir.Node) -> ir.Node | None:
    """The wide transpose that ``node`` belongs to, if any: itself, after, or before it."""
    if node.op_type == "Transpose":
        return node if _wide(node.outputs[0]) else None
    if node.op_type != "Reshape":
        return None
    nearby = _only_user(node.outputs[0]) if _wide(node.outputs[0]) else None
    if nearby is None and _wide(node.inputs[0]):
        source = node.inputs[0]
        nearby = source.producer() if source is not None else None
    return nearby if nearby is not None and nearby.op_type == "Transpose" else None


def wide_transpose(node: ir.Node) -> WideTranspose | None:
    """The group around a node of too high rank, if it can be said with five axes."""
    transpose = _transpose_of(node)
    if transpose is None or transpose.inputs[0] is None:
        return None
    before = transpose.inputs[0].producer()
    after = _only_user(transpose.outputs[0])
    if before is None or after is None or _only_user(transpose.inputs[0]) is None:
        return None
    if before.op_type != "Reshape" or after.op_type != "Reshape":
        return None
    if _wide(before.inputs[0]) or _wide(after.outputs[0]):
        return None
    small = simplify(_permutation(transpose))
    return WideTranspose(before, transpose, after) if len(small.shape) <= MAX_RANK else None
