"""GroupNormalization from the reshaped InstanceNormalization that exporters write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant, dtype_of, shape_of
from edgevit.passes.algebra import sole_consumer
from edgevit.passes.normalization_sites import Array, affine_operand
from edgevit.passes.sites import closed_match, has_static_shape, is_op, require_opset
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["RecoverGroupNorm"]


@dataclass(frozen=True)
class _Site:
    """Input, shape of the result, groups, epsilon, scale and bias per channel."""

    x: ir.Value
    shape: tuple[int, ...]
    groups: int
    epsilon: float
    scale: Array
    bias: Array


class GroupNormFromInstanceNorm(Rule):
    """``Reshape(InstanceNormalization(Reshape(x, [N, G, -1]))) * w + b``."""

    name = "group-norm"
    root_ops = frozenset({"InstanceNormalization"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match both reshapes around the instance norm."""
        inner = node.inputs[0]
        before = inner.producer() if inner is not None else None
        after = sole_consumer(node.outputs[0])
        if inner is None or before is None or not is_op(before, "Reshape"):
            return None
        x = before.inputs[0]
        if after is None or not is_op(after, "Reshape") or x is None:
            return Refused("the groups are not reshaped back")
        if not has_static_shape(x, inner, after.outputs[0]):
            return Refused("the groups have no static shape")
        reason = _mismatch(shape_of(inner), shape_of(after.outputs[0]))
        scale, bias = constant(node.inputs[1]), constant(node.inputs[2])
        if reason or scale is None or bias is None:
            return Refused(reason or "scale and bias are not both constant")
        return _site(node, before, after, (x, scale, bias))

    def check(self, m: Match) -> None:
        """Nothing beyond the structure."""

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``GroupNormalization``."""
        s: _Site = m.bound["site"]
        kind, x = dtype_of(s.x), s.x
        if shape_of(x) != s.shape:
            to = op.constant(np.asarray(s.shape, np.int64))
            x = op.op("Reshape", [x, to], shape=s.shape, dtype=x.dtype)
        scale, bias = op.constant(s.scale.astype(kind)), op.constant(s.bias.astype(kind))
        attributes = {"num_groups": s.groups, "epsilon": s.epsilon}
        operands = [x, scale, bias]
        return op.op("GroupNormalization", operands, attributes, shape=s.shape, dtype=x.dtype)


def _mismatch(grouped: tuple[int, ...], after: tuple[int, ...]) -> str:
    if len(after) < 3 or grouped[0] != after[0] or after[1] % grouped[1] != 0:
        return f"{grouped} does not group the channels of {after}"
    return ""


def _site(
    node: ir.Node, before: ir.Node, after: ir.Node, parts: tuple[ir.Value, Array, Array]
) -> Match | Refused:
    x, group_scale, group_bias = parts
    shape = shape_of(after.outputs[0])
    channels, groups = shape[1], group_scale.size
    scale, product = affine_operand(after.outputs[0], "Mul", shape, (1,))
    bias, total = affine_operand(product, "Add", shape, (1,))
    weight = _per_channel(scale, 1.0, channels)
    offsets = _per_channel(bias, 0.0, channels)
    repeat = channels // groups
    site = _Site(
        x,
        shape,
        groups,
        node.attributes.get_float("epsilon", 1e-5),
        np.repeat(group_scale, repeat) * weight,
        np.repeat(group_bias, repeat) * weight + offsets,
    )
    ends = [v.producer() for v in (product, total)]
    nodes = [before, node, after, *(n for n in ends if n is not None)]
    return closed_match(total, nodes, {"site": site})


def _per_channel(array: Array | None, default: float, channels: int) -> Array:
    if array is None:
        return np.full(channels, default, np.float32)
    return np.broadcast_to(array.reshape(-1), (channels,))


@dataclass(frozen=True)
class RecoverGroupNorm(RewritePass):
    """Recover ``GroupNormalization`` (Wu and He, arXiv 1803.08494, eq. 7).

    ``Reshape(InstanceNormalization(Reshape(x, [N, G, -1]), s, t), shape(x)) * w + b``
    ->  ``GroupNormalization(x, repeat(s) * w, repeat(t) * w + b, num_groups=G)``

    Conditions:

    1. The second ``Reshape`` gives ``[N, C, ...]`` with G dividing C. If x has another
       shape (of the same elements in the same order), it is reshaped to this one.
    2. Scale and bias of the instance norm are constants.
    3. w and b are taken along if they are constants per channel; else they stay.
    4. Nothing between x and the result is used elsewhere.
    """

    name: ClassVar[str] = "recover-group-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """Scale and bias are per channel from opset 21 on."""
        require_opset(model, 21, self.name)

    def rules(self) -> Sequence[Rule]:
        """The one rule."""
        return _RULES


_RULES = (GroupNormFromInstanceNorm(),)
