"""``Col2Im`` as padded sums, one image per phase of the stride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, ints, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_slice import Cut, make_slice
from edgevit.rewrite import Builder, Refused

__all__ = ["DecomposeCol2Im"]


@dataclass(frozen=True)
class _Fold:
    """Sizes of a fold: of batch and channels, blocks, kernel, stride, first pads, image."""

    lead: tuple[int, int]
    blocks: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    pads: tuple[int, ...]
    image: tuple[int, int]

    def rows(self, axis: int) -> int:
        """Elements of one phase along an axis, pads included."""
        padded = self.image[axis] + self.pads[axis] + self.pads[axis + 2]
        return -(-padded // self.stride)


@dataclass(frozen=True)
class DecomposeCol2Im(NodePass):
    """Sum overlapping blocks (torch's ``fold``; outlook attention, arXiv 2106.13112).

    ``Col2Im(x, image, block)``  ->  ``Slice(DepthToSpace(Concat(phases)))``

    With stride s, element ``i`` of block ``l`` lands on ``s l + i = s (l + q) + a`` with
    ``a = i mod s``: in phase ``a``, shifted by ``q``. Each phase is a sum of shifted images;
    ``DepthToSpace`` interleaves the phases; a slice takes the pads away.

    1. Two spatial axes, no dilation, one stride for both, not larger than the block (some
       elements would be covered by nothing).
    2. Shapes are known, image and block are constant.

    The sums are the operator's own, in another order.
    """

    name: ClassVar[str] = "decompose-col2im"
    ops: ClassVar[frozenset[str]] = frozenset({"Col2Im"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Cut the blocks into their elements, add them up by phase, interleave."""
        x = operand(node, 0)
        fold = _fold(node)
        if isinstance(fold, str):
            return Refused(fold)
        parts = _elements(op, x, fold)
        steps = range(fold.stride)
        phases = [_phase(op, parts, fold, (a, b)) for a in steps for b in steps]
        y = phases[0]
        n, c = fold.lead
        height, width = fold.rows(0), fold.rows(1)
        if fold.stride > 1:
            deep = (n, c * fold.stride**2, height, width)
            y = op.op("Concat", phases, {"axis": 1}, shape=deep, dtype=x.dtype)
            wide = (n, c, height * fold.stride, width * fold.stride)
            how = {"blocksize": fold.stride, "mode": "DCR"}
            y = op.op("DepthToSpace", [y], how, shape=wide, dtype=x.dtype)
        sizes = (height * fold.stride, width * fold.stride)
        cuts = {
            axis + 2: Cut(fold.pads[axis], 1, fold.image[axis])
            for axis in (0, 1)
            if fold.image[axis] != sizes[axis]
        }
        return make_slice(op, y, cuts) if cuts else y


def _fold(node: ir.Node) -> _Fold | str:
    shape = static(operand(node, 0))
    image, kernel = ints(operand(node, 1)), ints(operand(node, 2))
    if shape is None or image is None or kernel is None:  # case 2
        return "the shape, the image's size or the block's is not known"
    if len(image) != 2 or set(attr(node, "dilations", (1, 1))) != {1}:  # case 1
        return "not two spatial axes, or dilated"
    strides = tuple(attr(node, "strides", (1, 1)))
    pads = tuple(attr(node, "pads", (0, 0, 0, 0)))
    if strides[0] != strides[1] or strides[0] > min(kernel):
        return f"strides {strides} differ, or leave gaps between blocks {kernel}"
    ends = [image[i] + pads[i] + pads[i + 2] - kernel[i] for i in (0, 1)]
    blocks = (ends[0] // strides[0] + 1, ends[1] // strides[1] + 1)
    lead = (shape[0], shape[1] // (kernel[0] * kernel[1]))
    sides = ((kernel[0], kernel[1]), (image[0], image[1]))
    return _Fold(lead, blocks, sides[0], strides[0], pads, sides[1])


def _elements(op: Builder, x: ir.Value, fold: _Fold) -> Sequence[ir.Value]:
    """One image ``[N, C, blocks]`` for each element of the kernel, row by row."""
    count, (n, c) = fold.kernel[0] * fold.kernel[1], fold.lead
    flat = fold.blocks[0] * fold.blocks[1]
    x = _reshape(op, x, (n, c, count, flat))
    sizes = op.constant(np.ones(count, np.int64))
    shapes = [(n, c, 1, flat)] * count
    cut = op.op_n("Split", [x, sizes], shapes, {"axis": 2}, dtype=x.dtype)
    return [_reshape(op, part, (n, c, *fold.blocks)) for part in cut]


def _phase(
    op: Builder, parts: Sequence[ir.Value], fold: _Fold, phase: tuple[int, int]
) -> ir.Value:
    """The sum of the elements of one phase, each shifted by its number of strides."""
    total = None
    for i in range(phase[0], fold.kernel[0], fold.stride):
        for j in range(phase[1], fold.kernel[1], fold.stride):
            shift = (i // fold.stride, j // fold.stride)
            moved = _shifted(op, parts[i * fold.kernel[1] + j], fold, shift)
            total = moved if total is None else _sum(op, total, moved)
    if total is None:
        raise ValueError("a phase without elements passed the check")
    return total


def _shifted(op: Builder, x: ir.Value, fold: _Fold, shift: tuple[int, int]) -> ir.Value:
    after = [fold.rows(axis) - fold.blocks[axis] - shift[axis] for axis in (0, 1)]
    if not any(shift) and not any(after):
        return x
    pads = op.constant(np.array([0, 0, *shift, 0, 0, *after], np.int64))
    zero = op.constant(np.zeros((), np.float32))
    shape = (*fold.lead, fold.rows(0), fold.rows(1))
    return op.op("Pad", [x, pads, zero], {"mode": "constant"}, shape=shape, dtype=x.dtype)


def _sum(op: Builder, a: ir.Value, b: ir.Value) -> ir.Value:
    return op.op("Add", [a, b], shape=a.shape, dtype=a.dtype)


def _reshape(op: Builder, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    to = op.constant(np.array(shape, np.int64))
    return op.op("Reshape", [x, to], {"allowzero": 0}, shape=shape, dtype=x.dtype)
