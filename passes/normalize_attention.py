"""Existing Attention nodes in the canonical form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.passes.sites import closed_match, has_static_shape, require_opset
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["NormalizeAttention"]

_HEADS = ("q_num_heads", "kv_num_heads")
# Attributes of which only one value says the plain function.
_PLAIN = {"softcap": 0.0, "qk_matmul_output_mode": 0}


@dataclass(frozen=True)
class _Facts:
    """Heads of the three-dimensional form (0 for four), scale, and the mask in full."""

    heads: int
    scale: float
    mask: np.ndarray[Any, Any] | None


def _given(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _number(node: ir.Node, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else float(found.value)


def _size(value: ir.Value, heads: int) -> tuple[int, int]:
    """Sequence length and width of a head."""
    shape = shape_of(value)
    return (shape[1], shape[2] // heads) if heads else (shape[2], shape[3])


def _is_canonical(node: ir.Node) -> bool:
    mask = _given(node, 3)
    boolean = mask is not None and mask.dtype == ir.DataType.BOOL
    causal = _number(node, "is_causal", 0.0) != 0.0
    three = any(name in node.attributes for name in _HEADS)
    alone = len(node.outputs) == 1
    return "scale" in node.attributes and alone and not (boolean or causal or three)


class CanonicalAttention(Rule):
    """``Attention`` of rank 3, causal, with a boolean mask or without a scale."""

    name = "canonical-attention"
    root_ops = frozenset({"Attention"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Any that is not canonical yet."""
        if node.domain or _is_canonical(node):
            return None
        if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return Refused("the present keys, present values or scores are used")
        return closed_match(node.outputs[0], [node], {"node": node})

    def check(self, m: Match) -> _Facts | Refused:
        """No cache, no cap, equal heads, a mask that is additive or constant."""
        node: ir.Node = m.bound["node"]
        if any(_given(node, i) is not None for i in range(4, len(node.inputs))):
            return Refused("past keys and values, or lengths, are inputs")
        for name, plain in _PLAIN.items():
            if _number(node, name, plain) != plain:
                return Refused(f"{name} is {_number(node, name, plain):g}")
        q, k, v = node.inputs[:3]
        if q is None or k is None or v is None or not has_static_shape(q, k, v):
            return Refused("queries, keys or values have no static shape")
        heads, kv = (int(_number(node, name, 0.0)) for name in _HEADS)
        if len(shape_of(q)) == 4:
            heads, kv = shape_of(q)[1], shape_of(k)[1]
        if heads != kv:
            return Refused(f"{heads} heads of queries, {kv} of keys and values (grouped)")
        if "softmax_precision" in node.attributes:
            return Refused("the softmax is asked for in another dtype (softmax_precision)")
        three = heads if len(shape_of(q)) == 3 else 0
        scale = _number(node, "scale", 1.0 / math.sqrt(_size(q, three)[1]))
        lengths = _size(q, three)[0], _size(k, three)[0]
        mask = _full_mask(node, dtype_of(q), lengths)
        return mask if isinstance(mask, Refused) else _Facts(three, scale, mask)

    def rewrite(self, op: Builder, m: Match, facts: _Facts) -> ir.Value:
        """Rank 4 with an explicit scale and an additive mask."""
        node: ir.Node = m.bound["node"]
        q, k, v = (_split(op, x, facts.heads) for x in node.inputs[:3] if x is not None)
        operands = [q, k, v]
        mask = _given(node, 3)
        if facts.mask is not None:
            operands.append(op.constant(facts.mask))
        elif mask is not None:
            operands.append(mask)
        shape = (*shape_of(q)[:3], shape_of(v)[3])
        y = op.op("Attention", operands, {"scale": facts.scale}, shape=shape, dtype=q.dtype)
        return _join(op, y) if facts.heads else y


def _full_mask(
    node: ir.Node, kind: np.dtype[Any], lengths: tuple[int, int]
) -> np.ndarray[Any, Any] | Refused | None:
    """The additive constant that the mask and the causal flag stand for.

    ``None`` leaves the mask as it is.
    """
    mask = _given(node, 3)
    array = constant(mask)
    causal = _number(node, "is_causal", 0.0) != 0.0
    boolean = mask is not None and mask.dtype == ir.DataType.BOOL
    if mask is not None and array is None and (causal or boolean):
        return Refused("a boolean or causal mask is not a constant")
    if not causal and not boolean:
        return None
    total = np.zeros((1, 1, *lengths), kind)
    if array is not None:
        added = np.where(array, 0.0, -np.inf) if boolean else array
        total = total + added.astype(kind)
    if causal:
        total = np.where(np.tril(np.ones(lengths, bool)), total, -np.inf).astype(kind)
    if np.isneginf(total).all(axis=-1).any():
        return Refused("a query may look at no key: the softmax of nothing")
    return np.ascontiguousarray(total)


def _split(op: Builder, value: ir.Value, heads: int) -> ir.Value:
    """``[B, S, H D]`` to ``[B, H, S, D]``; rank 4 stays."""
    if not heads:
        return value
    batch, length, width = shape_of(value)
    shape = (batch, length, heads, width // heads)
    target = op.constant(np.asarray(shape, np.int64))
    y = op.op("Reshape", [value, target], shape=shape, dtype=value.dtype)
    moved = (batch, heads, length, width // heads)
    return op.op("Transpose", [y], {"perm": (0, 2, 1, 3)}, shape=moved, dtype=value.dtype)


def _join(op: Builder, value: ir.Value) -> ir.Value:
    """``[B, H, S, D]`` to ``[B, S, H D]``."""
    batch, heads, length, width = shape_of(value)
    moved = (batch, length, heads, width)
    y = op.op("Transpose", [value], {"perm": (0, 2, 1, 3)}, shape=moved, dtype=value.dtype)
    shape = (batch, length, heads * width)
    target = op.constant(np.asarray(shape, np.int64))
    return op.op("Reshape", [y, target], shape=shape, dtype=value.dtype)


@dataclass(frozen=True)
class NormalizeAttention(RewritePass):
    """Bring existing ``Attention`` nodes to the canonical form.

    ``Attention(q [B,S,HD], k, v, q_num_heads=H, is_causal=1)``
    ->  ``Reshape``, ``Transpose``, ``Attention(q [B,H,S,D], k, v, mask, scale)``, back

    Conditions:

    1. Rank 3 is separated into heads; a missing scale is 1/sqrt(D).
    2. A causal flag and a constant boolean mask become an additive constant of 0 and -inf.
       No query may be left without a key.
    3. No past or present, no soft cap, no scores as output, no grouped heads.
    """

    name: ClassVar[str] = "normalize-attention"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``Attention`` is of opset 23."""
        require_opset(model, 23, self.name)

    def rules(self) -> Sequence[Rule]:
        """The one rule."""
        return _RULES


_RULES = (CanonicalAttention(),)
