"""Existing LayerNormalization and RMSNormalization nodes in the canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.passes.facts import static
from edgevit.passes.sites import closed_match, has_static_shape, require_opset
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["NormalizeLayerNorm"]


@dataclass(frozen=True)
class _Facts:
    """The normalized axes, and the whole shape with them flattened."""

    tail: tuple[int, ...]
    flat: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.flat[-1]


# Operator -> how many parameters its canonical form has: a scale, and a bias.
_PARAMETERS = {"LayerNormalization": 2, "RMSNormalization": 1}


class CanonicalLayerNorm(Rule):
    """``LayerNormalization(x, g[, b], axis=a)`` -> one axis, a bias, explicit attributes."""

    name = "canonical-layer-norm"
    root_ops = frozenset(_PARAMETERS)

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Any that is not canonical yet."""
        x = node.inputs[0]
        if node.domain or x is None:
            return None
        if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return Refused("the mean or the inverse deviation is used: two outputs")
        if not has_static_shape(x):
            return Refused(f"{x.name!r} has no static shape")
        rank = len(shape_of(x))
        axis = node.attributes.get_int("axis", -1)
        explicit = "epsilon" in node.attributes
        last = shape_of(x)[-1:]
        affine = [static(v) for v in node.inputs[1:]]
        vectors = affine == [last] * _PARAMETERS[node.op_type]
        if axis == rank - 1 and explicit and vectors and len(node.outputs) == 1:
            return None
        return closed_match(node.outputs[0], [node], {"x": x, "node": node})

    def check(self, m: Match) -> _Facts | Refused:
        """Scale and bias are constant; statistics are in float32 or in a wider dtype."""
        node: ir.Node = m.bound["node"]
        shape = shape_of(m.value("x"))
        if node.attributes.get_int("stash_type", 1) != 1:
            return Refused("statistics in another dtype than float32 (stash_type)")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        given = [constant(v) for v in (node.inputs[1], bias) if v is not None]
        axis = (node.attributes.get_int("axis", -1) or 0) % len(shape)
        tail = shape[axis:]
        for array in given:
            if array is None:
                return Refused("scale and bias are not both constant")
            if not _fits(array.shape, tail):  # case 2
                return Refused(f"a scale or bias of shape {array.shape} is not one of {tail}")
        return _Facts(tail, (*shape[:axis], int(np.prod(tail))))

    def rewrite(self, op: Builder, m: Match, facts: _Facts) -> ir.Value:
        """The same over one axis."""
        node: ir.Node = m.bound["node"]
        x = m.value("x")
        shape, source = shape_of(x), x
        if facts.flat != shape:
            target = op.constant(np.asarray(facts.flat, np.int64))
            source = op.op("Reshape", [x, target], shape=facts.flat, dtype=x.dtype)
        scale = _vector(op, node.inputs[1], 1.0, facts, dtype_of(x))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        attributes = {
            "axis": len(facts.flat) - 1,
            "epsilon": node.attributes.get_float("epsilon", 1e-5),
        }
        operands = [source, scale]
        if _PARAMETERS[node.op_type] == 2:
            operands.append(_vector(op, bias, 0.0, facts, dtype_of(x)))
        y = op.op(node.op_type, operands, attributes, shape=facts.flat, dtype=x.dtype)
        if facts.flat == shape:
            return y
        return op.op("Reshape", [y, op.constant(np.asarray(shape, np.int64))], shape=shape)


def _vector(
    op: Builder, value: ir.Value | None, default: float, facts: _Facts, kind: np.dtype[Any]
) -> ir.Value:
    """A scale or bias as a vector; the value itself if it is one already."""
    array = constant(value)
    if value is not None and array is not None and array.shape == (facts.size,):
        return value
    if array is None:
        return op.constant(np.full(facts.size, default, kind))
    tail = np.broadcast_to(array, facts.tail)
    return op.constant(np.ascontiguousarray(tail.reshape(-1)))


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether ``small`` broadcasts to ``large`` without changing it."""
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in pairs)


@dataclass(frozen=True)
class NormalizeLayerNorm(RewritePass):
    """Bring existing ``LayerNormalization`` and ``RMSNormalization`` to the canonical form.

    ``LayerNormalization(x, g, axis=2)`` of rank 4  ->  ``Reshape``, over the last axis with a
    bias of zeros, ``Reshape``; ``RMSNormalization`` alike, without a bias

    Conditions:

    1. Only the first output is used.
    2. Scale and bias are constant and broadcast to the shape of the normalized axes.
    3. ``stash_type`` is float32, which the canonical form implies.
    """

    name: ClassVar[str] = "normalize-layer-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``LayerNormalization`` is of opset 17."""
        require_opset(model, 17, self.name)

    def rules(self) -> Sequence[Rule]:
        """The one rule."""
        return _RULES


_RULES = (CanonicalLayerNorm(),)
