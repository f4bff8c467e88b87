"""Products and sums as mathematics sees them: no order, no nesting, constants collected.

Exporters write ``x * 0.5 * (1 + e)`` in every order and nesting that the commutative and
associative laws allow. A rule that asks for "the factors of this product" matches them all;
the reassociation this implies is what an EXACT pass is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.model import constant

__all__ = [
    "Product",
    "climb",
    "close",
    "offset",
    "power",
    "product",
    "scalar",
    "sole_consumer",
]

# A decimal constant that an exporter rounded to its dtype is half a unit in the last place
# off; one that it computed in that dtype (1/sqrt(2), 0.5/6) is up to two.
_ROUNDINGS = 2.0


@dataclass(frozen=True)
class Product:
    """``coefficient * factors[0] * factors[1] * ...`` and the nodes that compute it."""

    coefficient: float
    factors: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


def scalar(value: ir.Value | None) -> float | None:
    """The number behind a one-element constant; ``None`` if it is not one."""
    array = constant(value)
    return float(array.item()) if array is not None and array.size == 1 else None


def close(found: float, expected: float, dtype: ir.DataType | None) -> bool:
    """Whether a constant of a model of this dtype stands for ``expected``, up to rounding."""
    epsilon = {
        ir.DataType.FLOAT16: float(np.finfo(np.float16).eps),
        ir.DataType.DOUBLE: float(np.finfo(np.float64).eps),
    }.get(dtype or ir.DataType.FLOAT, float(np.finfo(np.float32).eps))
    return abs(found - expected) <= _ROUNDINGS * epsilon * abs(expected)


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value; ``None`` if there are more or it is an output."""
    consumers = {id(node): node for node, _ in value.uses()}
    if value.is_graph_output() or len(consumers) != 1:
        return None
    return next(iter(consumers.values()))


def _divided(node: ir.Node) -> float | None:
    divisor = scalar(node.inputs[1]) if node.op_type == "Div" else None
    return divisor if divisor else None


def product(value: ir.Value) -> Product:
    """Flatten a tree of ``Mul`` and ``Div``-by-scalar.

    Stops at values that are also used elsewhere (the root may be): those are factors.
    """
    return _product(value, root=True)


def _product(value: ir.Value, root: bool) -> Product:
    number = scalar(value)
    if number is not None:
        return Product(number, (), ())
    node = value.producer()
    inner = node is not None and (root or sole_consumer(value) is not None)
    if node is None or not inner or node.domain:
        return Product(1.0, (value,), ())
    if node.op_type == "Mul" and node.inputs[0] is not None and node.inputs[1] is not None:
        a, b = (_product(v, root=False) for v in node.inputs if v is not None)
        return Product(
            a.coefficient * b.coefficient, a.factors + b.factors, (*a.nodes, *b.nodes, node)
        )
    divisor = _divided(node)
    if divisor is not None and node.inputs[0] is not None:
        a = _product(node.inputs[0], root=False)
        return Product(a.coefficient / divisor, a.factors, (*a.nodes, node))
    return Product(1.0, (value,), ())


def offset(value: ir.Value) -> tuple[ir.Value, float, ir.Node] | None:
    """Read ``y + c`` (either order, or ``y - c``) as ``(y, c, node)``; one level only."""
    node = value.producer()
    if node is None or node.domain or node.op_type not in ("Add", "Sub"):
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    number = scalar(b)
    if number is not None:
        return a, number if node.op_type == "Add" else -number, node
    number = scalar(a)
    if number is not None and node.op_type == "Add":
        return b, number, node
    return None


def power(value: ir.Value, exponent: int) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """Read ``y**exponent``, as ``Pow`` or as repeated ``Mul``, as ``(y, nodes)``."""
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Pow" and node.inputs[0] is not None:
        matches = scalar(node.inputs[1]) == exponent
        return (node.inputs[0], (node,)) if matches else None
    p = product(value)
    same = len(p.factors) == exponent and len(set(p.factors)) == 1
    return (p.factors[0], p.nodes) if same and p.coefficient == 1.0 else None


def climb(
    start: ir.Value, accept: Callable[[Product], bool]
) -> tuple[ir.Value, Product] | None:
    """Follow the products that ``start`` is a factor of, upward, to the first accepted one.

    Returns:
        The product's value and its factors; ``None`` if no such product is accepted.
    """
    value = start
    while (node := sole_consumer(value)) is not None:
        if node.domain or node.op_type not in ("Mul", "Div"):
            return None
        value = node.outputs[0]
        found = product(value)
        if accept(found):
            return value, found
    return None
