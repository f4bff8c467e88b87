"""LayerNormalization from reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.passes.algebra import scalar, sole_consumer
from edgevit.passes.normalization_sites import (
    Array,
    Statistics,
    affine_operand,
    deviation,
    mean_of,
    over_axes,
    statistics,
)
from edgevit.passes.sites import closed_match, has_static_shape, is_op, require_opset
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["RecoverLayerNorm"]


@dataclass(frozen=True)
class _Affine:
    """What follows the normalized value: constants over the normalized axes, and nodes."""

    output: ir.Value
    scale: Array | None
    bias: Array | None
    nodes: tuple[ir.Node, ...]


def _reciprocal(s: Statistics) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """``1 / standard deviation`` if that is what the next node computes."""
    if s.reciprocal:
        return s.value, ()
    node = sole_consumer(s.value)
    one_over = is_op(node, "Div") and node is not None and scalar(node.inputs[0]) == 1.0
    if node is None or not (one_over or is_op(node, "Reciprocal")):
        return None
    return node.outputs[0], (node,)


def _normalized(s: Statistics) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """``(x - mean) / deviation`` or ``(x - mean) * (1 / deviation)``."""
    inverse = _reciprocal(s)
    start, nodes = inverse if inverse is not None else (s.value, ())
    node = sole_consumer(start)
    if node is None or not is_op(node, "Div" if inverse is None else "Mul"):
        return None
    others = [v for v in node.inputs if v is not None and v is not start]
    if is_op(node, "Div") and node.inputs[1] is not start:
        return None
    top = deviation(others[0]) if len(others) == 1 else None
    if top is None or top.x is not s.x or top.axes != s.axes:
        return None
    return node.outputs[0], (*top.nodes, *nodes, node)


def _affine(value: ir.Value, s: Statistics) -> _Affine:
    """Take the scale and the bias along, as far as they are constants of the right shape."""
    shape = shape_of(s.x)
    nodes: tuple[ir.Node, ...] = ()
    scale, output = affine_operand(value, "Mul", shape, s.axes)
    if scale is not None:
        nodes = _producers(output)
    bias, end = affine_operand(output, "Add", shape, s.axes)
    nodes = nodes if bias is None else (*nodes, *_producers(end))
    return _Affine(end, scale, bias, nodes)


def _producers(value: ir.Value) -> tuple[ir.Node, ...]:
    node = value.producer()
    return () if node is None else (node,)


def _folded(s: Statistics) -> _Affine | None:
    """The form ``x * g + (bias - mean * g)`` with ``g = scale / deviation``."""
    inverse = _reciprocal(s)
    if inverse is None:
        return None
    shape = shape_of(s.x)
    scale, gain = affine_operand(inverse[0], "Mul", shape, s.axes)
    nodes = (*inverse[1], *(() if scale is None else _producers(gain)))
    products = {id(n): n for n, _ in gain.uses()}.values()
    if len(products) != 2 or not all(is_op(n, "Mul") for n in products):
        return None
    scaled = [n for n in products if s.x in n.inputs]
    means = [n for n in products if n not in scaled and _multiplies_mean(n, gain, s)]
    if len(scaled) != 1 or len(means) != 1:
        return None
    return _sum_of(scaled[0], means[0], s, scale, nodes)


def _multiplies_mean(node: ir.Node, gain: ir.Value, s: Statistics) -> bool:
    others = [v for v in node.inputs if v is not None and v is not gain]
    found = mean_of(others[0]) if len(others) == 1 else None
    return found is not None and found[0] is s.x and found[1] == s.axes


def _sum_of(
    scaled: ir.Node, mean: ir.Node, s: Statistics, scale: Array | None, nodes: Any
) -> _Affine | None:
    """The last sum: ``scaled + (bias - mean)``, or ``scaled - mean`` without a bias."""
    inner = sole_consumer(mean.outputs[0])
    if inner is None or not is_op(inner, "Sub") or inner.inputs[1] is not mean.outputs[0]:
        return None
    if inner.inputs[0] is scaled.outputs[0]:
        return _Affine(inner.outputs[0], scale, None, (*nodes, scaled, mean, inner))
    bias = constant(inner.inputs[0])
    end = sole_consumer(inner.outputs[0])
    if end is None or not is_op(end, "Add") or scaled.outputs[0] not in end.inputs:
        return None
    if not over_axes(bias, shape_of(s.x), s.axes):
        return None
    return _Affine(end.outputs[0], scale, bias, (*nodes, scaled, mean, inner, end))


def _layout(rank: int, axes: tuple[int, ...]) -> tuple[int, ...] | Refused:
    """The permutation that brings the normalized axes last; the identity if they are."""
    trailing = tuple(range(rank - len(axes), rank))
    if axes == trailing:
        return tuple(range(rank))
    if axes == (1,):
        return (0, *range(2, rank), 1)
    return Refused(f"normalized axes {axes} of rank {rank} are neither the last nor axis 1")


class LayerNormFromReductions(Rule):
    """``(x - mean) / sqrt(var + epsilon) [* scale] [+ bias]`` -> ``LayerNormalization``."""

    name = "layer-norm"
    root_ops = frozenset({"Sqrt", "Pow"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match upward from the square root."""
        s = statistics(node)
        if s is None or isinstance(s, Refused):
            return s
        if not has_static_shape(s.x):
            return Refused(f"{s.x.name!r} has no static shape")
        normalized = _normalized(s)
        folded = _folded(s) if normalized is None else None
        if normalized is not None:
            affine, extra = _affine(normalized[0], s), normalized[1]
        elif folded is not None:
            affine, extra = folded, ()
        else:
            return Refused(f"{s.value.name!r} does not divide {s.x.name!r} minus its mean")
        nodes = (*s.nodes, *extra, *affine.nodes)
        return closed_match(affine.output, nodes, {"x": s.x, "affine": affine, "s": s})

    def check(self, m: Match) -> tuple[int, ...] | Refused:
        """The permutation that brings the normalized axes last."""
        s: Statistics = m.bound["s"]
        if s.epsilon < 0:
            return Refused(f"epsilon is negative: {s.epsilon:g}")
        return _layout(len(shape_of(s.x)), s.axes)

    def rewrite(self, op: Builder, m: Match, facts: tuple[int, ...]) -> ir.Value:
        """``LayerNormalization`` over the last axis, between what its layout needs."""
        s: Statistics = m.bound["s"]
        affine: _Affine = m.bound["affine"]
        shape, kind = shape_of(s.x), dtype_of(s.x)
        moved = tuple(shape[i] for i in facts)
        identity = tuple(range(len(shape)))
        size = int(np.prod([shape[a] for a in s.axes]))
        flat = (*moved[: len(shape) - len(s.axes)], size)
        x = s.x
        if facts != identity:
            x = op.op("Transpose", [x], {"perm": facts}, shape=moved, dtype=x.dtype)
        if flat != moved:
            target = op.constant(np.asarray(flat, np.int64))
            x = op.op("Reshape", [x, target], shape=flat, dtype=x.dtype)
        scale = op.constant(_flat(affine.scale, 1.0, shape, s.axes, kind))
        bias = op.constant(_flat(affine.bias, 0.0, shape, s.axes, kind))
        attributes = {"axis": len(flat) - 1, "epsilon": s.epsilon}
        y = op.op(
            "LayerNormalization", [x, scale, bias], attributes, shape=flat, dtype=x.dtype
        )
        if flat != moved:
            y = op.op("Reshape", [y, op.constant(np.asarray(moved, np.int64))], shape=moved)
        if facts != identity:
            inverse = tuple(int(i) for i in np.argsort(facts))
            y = op.op("Transpose", [y], {"perm": inverse}, shape=shape)
        return y


def _flat(
    array: Array | None,
    default: float,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    kind: Any,
) -> Array:
    """A constant over the normalized axes as a vector."""
    target = [shape[a] for a in axes]
    if array is None:
        return np.full(int(np.prod(target)), default, kind)
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    over = full.reshape([full.shape[a] for a in axes])
    return np.ascontiguousarray(np.broadcast_to(over, target).reshape(-1).astype(kind))


@dataclass(frozen=True)
class RecoverLayerNorm(RewritePass):
    """Recover ``LayerNormalization`` (Ba et al., arXiv 1607.06450, eq. 4) from its parts.

    ``d = Sub(x, ReduceMean(x)); Div(d, Sqrt(Add(ReduceMean(Pow(d, 2)), e))) * g + b``
    ->  ``LayerNormalization(x, g, b, epsilon=e)``

    Conditions:

    1. The square is ``Pow(d, 2)`` or ``Mul(d, d)``, with d computed once or twice; the
       division is ``Div`` or a multiplication by ``Reciprocal``, ``1 / s`` or ``Pow(-1/2)``;
       the means keep their axes or put them back.
    2. Also the folded form ``x * r + (b - mean * r)`` with ``r = g / s``.
    3. The epsilon is a constant scalar; the scale and the bias are constants over the
       normalized axes. Ones and zeros stand in for those that are absent or are not.
    4. The normalized axes are the last ones (several are flattened into one by ``Reshape``)
       or axis 1 (brought last by ``Transpose``).
    5. Nothing between x and the result is used elsewhere. Casts are boundaries: statistics
       taken in another dtype stay in that dtype.
    """

    name: ClassVar[str] = "recover-layer-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``ReduceMean`` has its axes as an input from opset 18 on."""
        require_opset(model, 18, self.name)

    def rules(self) -> Sequence[Rule]:
        """The one rule."""
        return _RULES


_RULES = (LayerNormFromReductions(),)
