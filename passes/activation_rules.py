"""The rules of ``recover-activations``; each docstring is the expression it matches."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgevit.passes.algebra import (
    Product,
    climb,
    close,
    offset,
    product,
    scalar,
)
from edgevit.passes.functions import DOMAIN
from edgevit.passes.sites import closed_match, is_op
from edgevit.rewrite import Builder, Match, Refused, Rule

__all__ = [
    "HardSigmoidFromClip",
    "HardSwishFromHardSigmoid",
    "MishFromTanh",
    "SiluFromSigmoid",
    "SoftplusFromLog",
]

_SIXTH = 1.0 / 6.0
# Keras' hard sigmoid has slope 1/5, the MobileNetV3 one 1/6; both cross at 1/2.
_SLOPES = (_SIXTH, 0.2)


class _Structural(Rule):
    """A rule whose ``find`` decides everything."""

    def check(self, m: Match) -> None:
        """Nothing beyond the structure."""


def _input(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.op_type} {node.name!r} lacks input {index}")
    return value


@dataclass(frozen=True)
class _Clipped:
    """``Clip(slope * x + shift, 0, top)``."""

    x: ir.Value
    slope: float
    shift: float
    top: float
    nodes: tuple[ir.Node, ...]


def _clipped(node: ir.Node) -> _Clipped | None:
    low, high = (scalar(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
    shifted = offset(_input(node))
    if low != 0.0 or high not in (1.0, 6.0) or shifted is None:
        return None
    value, shift, add = shifted
    if high == 6.0:
        return _Clipped(value, 1.0, shift, 6.0, (add, node))
    scaled = product(value)
    if len(scaled.factors) != 1 or scaled.coefficient == 1.0:
        return None
    x = scaled.factors[0]
    return _Clipped(x, scaled.coefficient, shift, 1.0, (*scaled.nodes, add, node))


class HardSigmoidFromClip(_Structural):
    """``Clip(x + 3, 0, 6) [* x] / 6`` or ``Clip(a x + 1/2, 0, 1)`` -> ``HardSigmoid``."""

    name = "hard-sigmoid"
    root_ops = frozenset({"Clip"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match from the ``Clip``."""
        c = _clipped(node)
        if c is None:
            return None
        return self._top_one(node, c) if c.top == 1.0 else self._top_six(node, c)

    def _top_one(self, node: ir.Node, c: _Clipped) -> Match | Refused | None:
        slopes = [s for s in _SLOPES if close(c.slope, s, c.x.dtype)]
        if c.shift != 0.5 or not slopes:
            return Refused(
                f"Clip({c.slope:.9g} x + {c.shift:.9g}, 0, 1) is not a known hard sigmoid"
            )
        bound = {"x": c.x, "alpha": slopes[0], "swish": False}
        return _same_shape(c.x, node.outputs[0], closed_match(node.outputs[0], c.nodes, bound))

    def _top_six(self, node: ir.Node, c: _Clipped) -> Match | Refused | None:
        if c.shift != 3.0:
            return Refused(f"Clip(x + {c.shift:.9g}, 0, 6): a hard sigmoid has x + 3")
        clip = node.outputs[0]
        swish = climb(clip, lambda p: _is(p, c.x, clip))
        found = swish or climb(clip, lambda p: _is(p, clip))
        if found is None:
            return Refused(f"{clip.name!r} is not divided by 6")
        output, p = found
        bound = {"x": c.x, "alpha": _SIXTH, "swish": swish is not None}
        return _same_shape(c.x, output, closed_match(output, (*c.nodes, *p.nodes), bound))

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """``HardSwish`` if the product with x was matched too, else ``HardSigmoid``."""
        x = m.value("x")
        if m.bound["swish"]:
            return op.op("HardSwish", [x])
        return op.op("HardSigmoid", [x], {"alpha": m.bound["alpha"], "beta": 0.5})


def _is(p: Product, *factors: ir.Value) -> bool:
    """Whether a product is the given factors over 6."""
    same = sorted(map(id, p.factors)) == sorted(map(id, factors))
    return same and close(p.coefficient, _SIXTH, factors[0].dtype)


def _same_shape(x: ir.Value, output: ir.Value, found: Match | Refused) -> Match | Refused:
    if x.shape != output.shape:
        return Refused(f"{x.name!r} is broadcast to {output.shape} on the way")
    return found


def _times_gate(
    x: ir.Value, gate: ir.Value, nodes: tuple[ir.Node, ...]
) -> Match | Refused | None:
    """``x * gate``, the product with nothing else."""
    expected = sorted((id(x), id(gate)))

    def accept(p: Product) -> bool:
        return sorted(map(id, p.factors)) == expected and p.coefficient == 1.0

    found = climb(gate, accept)
    if found is None:
        return None
    output, p = found
    matched = closed_match(output, (*nodes, *p.nodes), {"x": x})
    return _same_shape(x, output, matched)


class HardSwishFromHardSigmoid(_Structural):
    """``x * HardSigmoid(1/6, 1/2)(x)`` -> ``HardSwish``."""

    name = "hard-swish"
    root_ops = frozenset({"HardSigmoid"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match upward from the gate."""
        x = _input(node)
        found = _times_gate(x, node.outputs[0], (node,))
        alpha = node.attributes.get_float("alpha", 0.2)
        beta = node.attributes.get_float("beta", 0.5)
        if found is None or isinstance(found, Refused):
            return found
        if close(alpha, _SIXTH, ir.DataType.FLOAT) and beta == 0.5:
            return found
        return Refused(f"HardSwish has slope 1/6 and offset 1/2, found {alpha:g} and {beta:g}")

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``HardSwish``."""
        return op.op("HardSwish", [m.value("x")])


class SiluFromSigmoid(_Structural):
    """``x * Sigmoid(x)`` -> ``ai.edgevit.Silu``."""

    name = "silu"
    root_ops = frozenset({"Sigmoid"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match upward from the gate; a scaled argument is another function."""
        argument = product(_input(node))
        direct = _times_gate(_input(node), node.outputs[0], (node,))
        if direct is not None or len(argument.factors) != 1:
            return direct
        x = argument.factors[0]
        found = _times_gate(x, node.outputs[0], (*argument.nodes, node))
        if found is None or argument.coefficient == 1.0:
            return found
        return Refused(
            f"x * sigmoid({argument.coefficient:.6g} x) is not SiLU"
            + (": quick-GELU" if close(argument.coefficient, 1.702, x.dtype) else "")
        )

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``Silu``; the pass defines the function."""
        return op.op("Silu", [m.value("x")], domain=DOMAIN)


class MishFromTanh(_Structural):
    """``x * Tanh(Softplus(x))`` -> ``Mish`` (Misra, arXiv 1908.08681)."""

    name = "mish"
    root_ops = frozenset({"Tanh"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match upward from the gate."""
        inner = _input(node).producer()
        if inner is None or not is_op(inner, "Softplus"):
            return None
        return _times_gate(_input(inner), node.outputs[0], (inner, node))

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``Mish``."""
        return op.op("Mish", [m.value("x")])


class SoftplusFromLog(_Structural):
    """``Log(1 + Exp(x))`` -> ``Softplus``, which does not overflow."""

    name = "softplus"
    root_ops = frozenset({"Log"})

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """The sum must be exactly one plus the exponential."""
        total = offset(_input(node))
        inner = total[0].producer() if total is not None else None
        if total is None or inner is None or total[1] != 1.0 or not is_op(inner, "Exp"):
            return None
        found = closed_match(node.outputs[0], (inner, total[2], node), {"x": _input(inner)})
        return _same_shape(_input(inner), node.outputs[0], found)

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``Softplus``."""
        return op.op("Softplus", [m.value("x")])
