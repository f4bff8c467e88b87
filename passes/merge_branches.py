"""Parallel convolutions whose results are summed, as one convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.branches import Branch, branch_of, joined
from edgevit.passes.facts import attrs, operand, single_use, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["MergeBranches"]

_SUMS = frozenset({"Add", "Sub"})


@dataclass(frozen=True)
class _Term:
    """A summand and its sign."""

    value: ir.Value
    sign: float


@dataclass(frozen=True)
class MergeBranches(NodePass):
    """Sum the kernels instead of the results (RepVGG, arXiv 2101.03697, section 3.3).

    ``Add(Add(Conv(x, W3), Conv(x, W1)), Add(Mul(x, a), b))``
    ->  ``Conv(x, W3 + pad(W1) + diag(a), b)``

    1. All summands read the same value: convolutions of it, it times one number per channel
       (a batch normalization) with an offset, or itself.
    2. There are two convolutions, or one and a batch normalization. A plain residual around
       one convolution stays: merged, it would be quantized with the kernel.
    3. Weights are constants; strides, groups are equal; nothing is dilated. A summand that
       is no convolution needs stride one and the same shape in and out.
    4. Kernels are centered on the same element: the smaller one, padded with zeros, has the
       pads of the largest.
    5. The summands are read by nothing but the sum.

    Kernels are summed in float64 and rounded once: up to a reassociated sum the function is
    the same.
    """

    name: ClassVar[str] = "merge-branches"
    ops: ClassVar[frozenset[str]] = _SUMS

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Match all summands at the last sum."""
        out = node.outputs[0]
        unread = not out.uses() and not out.is_graph_output()
        found = None if unread else _branches(node)
        if found is None or _part_of_larger(node):
            return None
        convs = [b for b in found if b.conv is not None]
        if len(convs) < 2 and not any(b.conv is None and not b.plain for b in found):
            return None  # case 2
        merged = joined(found, static(node.outputs[0]))
        if isinstance(merged, str):
            return Refused(merged)
        conv = merged.conv
        inputs = [operand(conv, 0), op.constant(merged.weight)]
        if merged.bias is not None:
            inputs.append(op.constant(merged.bias))
        return op.op("Conv", inputs, attrs(conv), shape=out.shape, dtype=out.dtype)


def _part_of_larger(node: ir.Node) -> bool:
    """Whether the sum is a summand of one that can be matched whole."""
    out = node.outputs[0]
    if not single_use(out):
        return False
    above = next(iter(out.uses())).node
    return above.op_type in _SUMS and not above.domain and _branches(above) is not None


def _branches(node: ir.Node) -> Sequence[Branch] | None:
    """All summands as branches of one value (case 1), or ``None``."""
    terms = _terms(node, 1.0, depth=4)
    convs = [t.value.producer() for t in terms]
    sources = {n.inputs[0] for n in convs if n is not None and n.op_type == "Conv"}
    for source in sources:
        found = [branch_of(t.value, t.sign, source) for t in terms] if source else []
        if found and all(b is not None for b in found):
            return [b for b in found if b is not None]
    return None


def _terms(node: ir.Node, sign: float, depth: int) -> list[_Term]:
    """The summands of nested sums; an offset by a constant is no sum."""
    found = []
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        mine = -sign if node.op_type == "Sub" and index == 1 else sign
        below = value.producer()
        if depth and below is not None and _is_sum(below) and single_use(value):
            found += _terms(below, mine, depth - 1)
        else:
            found.append(_Term(value, mine))
    return found


def _is_sum(node: ir.Node) -> bool:
    if node.op_type not in _SUMS or node.domain:
        return False
    return all(constant(v) is None for v in node.inputs)
