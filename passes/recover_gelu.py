"""GELU from the pieces that exporters leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.algebra import Product, climb, close, offset, power, product, sole_consumer
from edgevit.passes.sites import closed_match, is_op, require_opset
from edgevit.pipeline import Effect
from edgevit.rewrite import Builder, Match, Refused, RewritePass, Rule

__all__ = ["RecoverGelu"]

_Cubic = tuple[ir.Value, float, tuple[ir.Node, ...]]
_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


def _gate(value: ir.Value) -> tuple[ir.Value, float, ir.Node] | None:
    """The sum ``1 + t`` above ``t = value``, as (sum, scale to make it 1 + t, node).

    Some exporters distribute the half: ``0.5 t + 0.5``.
    """
    node = sole_consumer(value)
    if node is None:
        return None
    found = offset(node.outputs[0])
    if found is not None:
        inner, number, _ = found
        return (node.outputs[0], 1.0, node) if inner is value and number == 1.0 else None
    if not is_op(node, "Mul", "Div"):
        return None
    scaled = node.outputs[0]
    above = sole_consumer(scaled)
    found = offset(above.outputs[0]) if above is not None else None
    if above is None or found is None or product(scaled).coefficient != 0.5:
        return None
    return (above.outputs[0], 0.5, above) if found[1] == 0.5 and found[0] is scaled else None


class _Gelu(Rule):
    """Shared shape of both forms: ``x * 1/2 * (1 + t(x))`` above the anchor ``t``."""

    approximate: ClassVar[str]

    def argument(self, node: ir.Node) -> tuple[ir.Value, tuple[ir.Node, ...]] | Refused | None:
        """The x inside the anchor's argument and the nodes between."""
        raise NotImplementedError(f"{type(self).__name__} does not read its argument")

    def find(self, model: ir.Model, node: ir.Node) -> Match | Refused | None:
        """Match upward from the anchor."""
        gate = _gate(node.outputs[0])
        if gate is None:
            return None
        inner = self.argument(node)
        if inner is None or isinstance(inner, Refused):
            return inner
        x, below = inner
        total, scale, add = gate
        found = climb(total, lambda p: self._is_gelu(p, x, total, scale))
        if found is None:
            return Refused(f"{total.name!r} is not multiplied by {x.name!r} and one half")
        output, p = found
        if output.shape != x.shape:
            return Refused(f"{x.name!r} is broadcast to {output.shape} on the way")
        between = [add, *_between(add, node)]
        return closed_match(output, [*below, node, *between, *p.nodes], {"x": x})

    def _is_gelu(self, p: Product, x: ir.Value, total: ir.Value, scale: float) -> bool:
        return sorted(map(id, p.factors)) == sorted((id(x), id(total))) and (
            p.coefficient * scale == 0.5
        )

    def check(self, m: Match) -> None:
        """Nothing beyond the structure."""

    def rewrite(self, op: Builder, m: Match, facts: None) -> ir.Value:
        """One ``Gelu``."""
        return op.op("Gelu", [m.value("x")], {"approximate": self.approximate})


def _between(add: ir.Node, anchor: ir.Node) -> Sequence[ir.Node]:
    """The node that halves the anchor before the sum, if there is one."""
    nodes = [v.producer() for v in add.inputs if v is not None]
    return [n for n in nodes if n is not None and n is not anchor]


class ErfGelu(_Gelu):
    """``x * 1/2 * (1 + erf(x / sqrt(2)))``."""

    name = "erf-gelu"
    root_ops = frozenset({"Erf"})
    approximate = "none"

    def argument(self, node: ir.Node) -> tuple[ir.Value, tuple[ir.Node, ...]] | Refused | None:
        """The x of ``x / sqrt(2)``."""
        inner = node.inputs[0]
        if inner is None:
            return None
        p = product(inner)
        if len(p.factors) != 1:
            return Refused("erf's argument is not a multiple of one value")
        if not close(p.coefficient, _SQRT_HALF, inner.dtype):
            return Refused(
                f"erf's argument is scaled by {p.coefficient:.9g}, GELU needs {_SQRT_HALF:.9g}"
            )
        return p.factors[0], p.nodes


class TanhGelu(_Gelu):
    """``x * 1/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``."""

    name = "tanh-gelu"
    root_ops = frozenset({"Tanh"})
    approximate = "tanh"

    def argument(self, node: ir.Node) -> tuple[ir.Value, tuple[ir.Node, ...]] | Refused | None:
        """The x of ``sqrt(2/pi) (x + c x^3)``, also written ``sqrt(2/pi) x (1 + c x^2)``."""
        inner = node.inputs[0]
        if inner is None:
            return None
        p = product(inner)
        found = _cubic(p)
        if found is None:
            return None
        x, cubic, nodes = found
        if not close(p.coefficient, _SQRT_2_OVER_PI, inner.dtype):
            return Refused(
                f"tanh's argument is scaled by {p.coefficient:.9g}, "
                f"GELU needs {_SQRT_2_OVER_PI:.9g}"
            )
        if not close(cubic, _CUBIC, inner.dtype):
            return Refused(f"the cubic term has factor {cubic:.9g}, GELU needs {_CUBIC}")
        return x, (*p.nodes, *nodes)


def _cubic(p: Product) -> _Cubic | None:
    """Read the factors of tanh's argument as ``x + c x^3``."""
    if len(p.factors) == 1:
        return _sum_cubic(p.factors[0])
    if len(p.factors) == 2:
        return _even(p.factors[0], p.factors[1]) or _even(p.factors[1], p.factors[0])
    return None


def _sum_cubic(value: ir.Value) -> _Cubic | None:
    node = value.producer()
    if not is_op(node, "Add") or node is None or None in node.inputs:
        return None
    a, b = (v for v in node.inputs if v is not None)
    for x, other in ((a, b), (b, a)):
        found = _scaled_power(other, x, 3)
        if found is not None:
            return x, found[0], (node, *found[1])
    return None


def _even(x: ir.Value, value: ir.Value) -> _Cubic | None:
    found = offset(value)
    if found is None or found[1] != 1.0:
        return None
    square = _scaled_power(found[0], x, 2)
    return None if square is None else (x, square[0], (found[2], *square[1]))


def _scaled_power(
    value: ir.Value, x: ir.Value, exponent: int
) -> tuple[float, tuple[ir.Node, ...]] | None:
    """Read ``c * x**exponent`` as (c, nodes)."""
    p = product(value)
    if len(p.factors) == exponent and set(p.factors) == {x}:
        return p.coefficient, p.nodes
    if len(p.factors) == 1:
        found = power(p.factors[0], exponent)
        if found is not None and found[0] is x:
            return p.coefficient, (*p.nodes, *found[1])
    square = [power(f, exponent - 1) for f in p.factors if f is not x]
    if len(p.factors) == 2 and len(square) == 1 and square[0] is not None:
        return (p.coefficient, (*p.nodes, *square[0][1])) if square[0][0] is x else None
    return None


@dataclass(frozen=True)
class RecoverGelu(RewritePass):
    """Recover ``Gelu`` (Hendrycks and Gimpel, arXiv 1606.08415) from its parts.

    ``x * 1/2 * (1 + Erf(x / sqrt(2)))``                              -> ``Gelu(none)``
    ``x * 1/2 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))``       -> ``Gelu(tanh)``

    Conditions:

    1. The factors x, 1/2 and 1 + t may come in any order and nesting; 1/sqrt(2) as ``Mul``
       or ``Div``; x^3 as ``Pow`` or as products; ``x (1 + c x^2)`` for ``x + c x^3``; the
       half inside the sum (``0.5 t + 0.5``).
    2. Constants are GELU's up to two roundings of their dtype: a fit with other constants
       is another function. ``x * sigmoid(1.702 x)`` is one, and stays.
    3. Nothing between x and the result is used elsewhere.
    """

    name: ClassVar[str] = "recover-gelu"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``Gelu`` needs opset 20."""
        require_opset(model, 20, self.name)

    def rules(self) -> Sequence[Rule]:
        """Both forms."""
        return _RULES


_RULES = (ErfGelu(), TanhGelu())
