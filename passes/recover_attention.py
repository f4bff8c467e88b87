"""Attention from products and a softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, shape_of
from edgevit.passes.attention_sites import (
    Keys,
    Readout,
    Scores,
    is_near,
    keys_of,
    readout,
    scores_of,
    unscaled,
)
from edgevit.passes.sites import closed_match, has_static_shape, is_op, require_opset, swapped
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["RecoverAttention"]

Mask = ir.Value | np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Site:
    """A matched attention.

    Attributes:
        q: Queries ``[..., S, D]``, unscaled.
        keys: Where the keys come from.
        out: Where the values come from and the result goes.
        scale: All factors of the scores together.
        masks: What is added to the scores.
        lead: Leading two axes (batch, heads) of the rank-4 form.
    """

    q: ir.Value
    keys: Keys
    out: Readout
    scale: float
    masks: tuple[Mask, ...]
    lead: tuple[int, int]


class AttentionFromSoftmax(Rule):
    """``Softmax(scale * (q @ k^T) + mask) @ v`` -> ``Attention``."""

    name = "attention"
    root_ops = frozenset({"Softmax"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match down to the scores and up to the product with the values."""
        near = is_near(node)
        found = self._site(node)
        if isinstance(found, str):
            return Refused(found) if near else None
        scores, out = found
        q, factor, nodes = unscaled(scores.q)
        keys = keys_of(scores.kt)
        scale = scores.scale * factor * keys.scale
        lead = _lead(q)
        site = _Site(q, keys, out, scale, scores.masks, lead)
        every = (*scores.nodes, *nodes, *keys.nodes, node, *out.nodes)
        return closed_match(out.output, every, {"site": site, "scores": scores})

    def _site(self, node: ir.Node) -> tuple[Scores, Readout] | str:
        x, p = node.inputs[0], node.outputs[0]
        if x is None or not has_static_shape(x):
            return "the scores have no static shape"
        rank = len(shape_of(x))
        axis = node.attributes.get_int("axis", -1)
        if axis % rank != rank - 1:
            return f"the softmax is over axis {axis} of rank {rank}, not over the last"
        scores = scores_of(x)
        if isinstance(scores, Refused):
            return scores.reason
        if scores is None:
            source = x.producer()
            name = source.op_type if source is not None else "an input"
            return f"the scores come from {name}, not from a product of queries and keys"
        out = readout(p)
        if p.is_graph_output():
            return "the probabilities are an output of the graph"
        if out is None:
            ops = ", ".join(sorted({n.op_type for n, _ in p.uses()})) or "nothing"
            return f"the probabilities are read by {ops}, not by one product with the values"
        return scores, out

    def check(self, m: Match) -> Refused | None:
        """Equal batch and head axes; masks that broadcast to the scores."""
        site: _Site = m.bound["site"]
        scores: Scores = m.bound["scores"]
        q, kt, v = shape_of(scores.q), shape_of(scores.kt), shape_of(site.out.v)
        if not q[:-2] == kt[:-2] == v[:-2]:
            return Refused(
                f"batch and head axes differ: queries {q[:-2]}, keys {kt[:-2]}, "
                f"values {v[:-2]}"
            )
        full = (*q[:-1], kt[-1])
        for mask in site.masks:
            if _placed(_mask_shape(mask), full, site.lead) is None:
                return Refused(f"a mask {_mask_shape(mask)} does not fit the scores {full}")
        if site.out.guarded and not _leaves_a_key(site.masks, full):
            return Refused("a row may be masked whole: NaN is replaced by zero there")
        return None

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """``Attention`` of rank 4, between what the rank needs."""
        site: _Site = m.bound["site"]
        scores: Scores = m.bound["scores"]
        q_shape, kt = shape_of(scores.q), shape_of(scores.kt)
        full = (*q_shape[:-1], kt[-1])
        q = _grouped(op, site.q, site.lead)
        k = _grouped(op, _keys(op, site.keys, kt), site.lead)
        v = site.out.v
        if site.out.transposed:
            v = _transposed(op, v)
        v = _grouped(op, v, site.lead)
        operands = [q, k, v]
        mask = _mask(op, site, full)
        if mask is not None:
            operands.append(mask)
        width = shape_of(v)[-1]
        shape = (*site.lead, q_shape[-2], width)
        y = op.op("Attention", operands, {"scale": site.scale}, shape=shape, dtype=q.dtype)
        flat = (*q_shape[:-1], width)
        if flat != shape:
            y = op.op("Reshape", [y, _ints(op, flat)], shape=flat, dtype=q.dtype)
        return _transposed(op, y) if site.out.transposed else y


def _leaves_a_key(masks: tuple[Mask, ...], full: tuple[int, ...]) -> bool:
    """Whether constant masks leave each query one key: then no probability is NaN."""
    arrays = [constant(m) if isinstance(m, ir.Value) else m for m in masks]
    known = [a for a in arrays if a is not None]
    if len(known) < len(arrays):
        return False
    total = np.zeros((1, full[-1]), np.float64)
    for array in known:
        total = total + array.reshape((1,) * (len(full) - array.ndim) + array.shape)
    return bool((total > -np.inf).any(axis=-1).all())


def _ints(op: Builder, numbers: Sequence[int]) -> ir.Value:
    return op.constant(np.asarray(numbers, np.int64))


def _lead(q: ir.Value) -> tuple[int, int]:
    """Batch and heads of the rank-4 form; rank 3 looks at what was merged into it."""
    shape = shape_of(q)
    if len(shape) == 4:
        return shape[0], shape[1]
    node = q.producer()
    source = node.inputs[0] if node is not None and is_op(node, "Reshape") else None
    if source is not None and has_static_shape(source):
        inner = shape_of(source)
        if len(inner) == 4 and inner[-2:] == shape[-2:]:
            return inner[0], inner[1]
    if len(shape) == 3:
        return shape[0], 1
    return math.prod(shape[:-3]), math.prod(shape[-3:-2])


def _grouped(op: Builder, value: ir.Value, lead: tuple[int, int]) -> ir.Value:
    shape = shape_of(value)
    target = (*lead, *shape[-2:])
    if shape == target:
        return value
    return op.op("Reshape", [value, _ints(op, target)], shape=target, dtype=value.dtype)


def _transposed(op: Builder, value: ir.Value) -> ir.Value:
    shape = shape_of(value)
    perm = swapped(len(shape))
    target = tuple(shape[i] for i in perm)
    return op.op("Transpose", [value], {"perm": perm}, shape=target, dtype=value.dtype)


def _keys(op: Builder, keys: Keys, kt: tuple[int, ...]) -> ir.Value:
    target = (*kt[:-2], kt[-1], kt[-2])
    source = keys.source
    if keys.perm is not None:
        attributes = {"perm": keys.perm}
        return op.op("Transpose", [source], attributes, shape=target, dtype=source.dtype)
    if keys.shape is not None:
        inputs = [source, _ints(op, keys.shape)]
        return op.op("Reshape", inputs, shape=target, dtype=source.dtype)
    return source


def _mask_shape(mask: Mask) -> tuple[int, ...]:
    return shape_of(mask) if isinstance(mask, ir.Value) else tuple(mask.shape)


def _placed(
    mask: tuple[int, ...], full: tuple[int, ...], lead: tuple[int, int]
) -> tuple[int, ...] | None:
    """The rank-4 shape of a mask added to scores of shape ``full``, before broadcasting."""
    if len(mask) > len(full):
        return None
    aligned = (1,) * (len(full) - len(mask)) + mask
    if any(m not in (1, d) for m, d in zip(aligned, full, strict=True)):
        return None
    if len(full) == 4:
        return aligned
    if all(m == 1 for m in aligned[:-2]):
        return (1, 1, *aligned[-2:])
    return (*lead, *aligned[-2:]) if aligned[:-2] == full[:-2] else None


def _mask(op: Builder, site: _Site, full: tuple[int, ...]) -> ir.Value | None:
    """All masks as one, its last two axes written out."""
    constants: list[np.ndarray[Any, Any]] = []
    computed: list[ir.Value] = []
    for mask in site.masks:
        shape = _placed(_mask_shape(mask), full, site.lead) or ()
        array = constant(mask) if isinstance(mask, ir.Value) else mask
        if array is not None:
            constants.append(np.broadcast_to(array.reshape(shape), (*shape[:2], *full[-2:])))
        elif isinstance(mask, ir.Value):
            computed.append(_spread(op, mask, shape, (*shape[:2], *full[-2:])))
    if constants:
        total = sum(constants[1:], start=constants[0])
        same = [m for m in site.masks if isinstance(m, ir.Value) and _is_same(m, total)]
        computed.append(same[0] if same else op.constant(np.ascontiguousarray(total)))
    return _sum(op, computed)


def _is_same(value: ir.Value, array: np.ndarray[Any, Any]) -> bool:
    found = constant(value)
    return found is not None and found.shape == array.shape and bool((found == array).all())


def _spread(
    op: Builder, mask: ir.Value, shape: tuple[int, ...], target: tuple[int, ...]
) -> ir.Value:
    if shape_of(mask) != shape:
        mask = op.op("Reshape", [mask, _ints(op, shape)], shape=shape, dtype=mask.dtype)
    if shape != target:
        mask = op.op("Expand", [mask, _ints(op, target)], shape=target, dtype=mask.dtype)
    return mask


def _sum(op: Builder, values: list[ir.Value]) -> ir.Value | None:
    if not values:
        return None
    total = values[0]
    for value in values[1:]:
        shape = np.broadcast_shapes(shape_of(total), shape_of(value))
        total = op.op("Add", [total, value], shape=shape, dtype=total.dtype)
    return total


@dataclass(frozen=True)
class RecoverAttention(RewritePass):
    """Recover ``Attention`` (Vaswani et al., arXiv 1706.03762, eq. 1) from its parts.

    ``MatMul(Softmax(Add(Mul(MatMul(q, Transpose(k)), s), mask)), v)``
    ->  ``Attention(q, k, v, mask, scale=s)``, q ``[B, H, S, D]``

    Conditions:

    1. The scale is any product of scalars on q, on k (before or after its transposition) and
       on the scores, ahead of the mask. Without one, it is 1.
    2. The keys come by one ``Transpose`` (of which the permutations are composed), by
       ``Reshape`` - ``Transpose`` - ``Reshape``, or as they are (then transposed anew).
    3. Masks are added after scaling, broadcast to the scores, constant or computed; several
       are summed. A mask per window inside a pair of ``Reshape`` (Swin, arXiv 2103.14030)
       is constant. A mask by ``Where`` is refused.
    4. The softmax is over the last axis; scores and probabilities are read by nothing else
       (talking heads, arXiv 2003.02436, are refused).
    5. Queries, keys and values have equal batch and head axes. Of other ranks than 4, the
       leading axes are regrouped by ``Reshape``; rank 3 takes the axes that were merged.
    6. ``v^T @ p^T`` is the transposed result.
    7. ``Where(IsNaN(p), 0, p)`` is seen through if constant masks leave each query a key:
       no probability is NaN then.
    """

    name: ClassVar[str] = "recover-attention"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``Attention`` is of opset 23."""
        require_opset(model, 23, self.name)

    def rules(self) -> Sequence[Rule]:
        """The one rule."""
        return _RULES


_RULES = (AttentionFromSoftmax(),)
