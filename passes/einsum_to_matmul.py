"""``Einsum`` as transposes, reshapes and one ``MatMul``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["EinsumToMatMul", "Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """Labels of a contraction of two tensors, by the role they play.

    Attributes:
        batch: In both operands and in the result.
        left: In the first operand and the result.
        right: In the second operand and the result.
        inner: In both operands, summed over.
        out: The result's labels, in order.
    """

    batch: str
    left: str
    right: str
    inner: str
    out: str


def plan(equation: str) -> Plan | str:
    """Read an equation of two operands; the reason if it is no plain contraction."""
    text = equation.replace(" ", "")
    terms, arrow, out = text.partition("->")
    operands = terms.split(",")
    if "." in text or len(operands) != 2:
        return "an ellipsis, or not two operands"
    a, b = operands
    if not arrow:
        out = "".join(sorted(c for c in set(a + b) if (a + b).count(c) == 1))
    if any(len(set(term)) != len(term) for term in (a, b, out)):
        return "a label occurs twice in one operand (a diagonal)"
    if any(c not in b and c not in out for c in a) or any(
        c not in a and c not in out for c in b
    ):
        return "a label of one operand only is summed"
    return Plan(
        batch="".join(c for c in a if c in b and c in out),
        left="".join(c for c in a if c not in b),
        right="".join(c for c in b if c not in a),
        inner="".join(c for c in a if c in b and c not in out),
        out=out,
    )


@dataclass(frozen=True)
class EinsumToMatMul(NodePass):
    """Rewrite a plain contraction of two tensors.

    ``Einsum("bhid,bhjd->bhij", q, k)``  ->  ``MatMul(q, Transpose(k, [0,1,3,2]))``

    1. Two operands, no ellipsis, no label twice in one operand, no label of one operand that
       is summed without the other.
    2. Labels in both and in the result are batch axes; what one operand adds to the result
       is merged to one axis for ``MatMul`` and spread again behind it.
    """

    name: ClassVar[str] = "einsum-to-matmul"
    ops: ClassVar[frozenset[str]] = frozenset({"Einsum"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite, or give the plan's reason."""
        equation = str(attr(node, "equation"))
        found = plan(equation)
        if isinstance(found, str):
            return Refused(f"{equation!r}: {found}")
        a, b = operand(node, 0), operand(node, 1)
        left, right = static(a), static(b)
        if left is None or right is None:
            return Refused("the operand shapes are not known")
        terms = equation.replace(" ", "").partition("->")[0].split(",")
        sizes = {
            **dict(zip(terms[0], left, strict=True)),
            **dict(zip(terms[1], right, strict=True)),
        }
        first = _arrange(op, a, terms[0], (*found.batch, found.left, found.inner), sizes)
        second = _arrange(op, b, terms[1], (*found.batch, found.inner, found.right), sizes)
        batch = [sizes[c] for c in found.batch]
        flat = (*batch, _size(found.left, sizes), _size(found.right, sizes))
        product = op.op("MatMul", [first, second], shape=flat, dtype=a.dtype)
        labels = found.batch + found.left + found.right
        spread = _reshape(op, product, [sizes[c] for c in labels])
        return _transpose(op, spread, [labels.index(c) for c in found.out])


def _size(labels: str, sizes: dict[str, int]) -> int:
    return math.prod(sizes[c] for c in labels)


def _arrange(
    op: Builder, value: ir.Value, term: str, groups: Sequence[str], sizes: dict[str, int]
) -> ir.Value:
    """Transpose to the order of ``groups``, then merge each group to one axis."""
    turned = _transpose(op, value, [term.index(c) for c in "".join(groups)])
    return _reshape(op, turned, [_size(group, sizes) for group in groups])


def _transpose(op: Builder, value: ir.Value, perm: list[int]) -> ir.Value:
    shape = static(value) or ()
    if perm == sorted(perm):
        return value
    target = tuple(shape[p] for p in perm)
    return op.op("Transpose", [value], {"perm": perm}, shape=target, dtype=value.dtype)


def _reshape(op: Builder, value: ir.Value, target: list[int]) -> ir.Value:
    if static(value) == tuple(target):
        return value
    to = op.constant(np.array(target, np.int64))
    return op.op("Reshape", [value, to], {"allowzero": 0}, shape=target, dtype=value.dtype)
