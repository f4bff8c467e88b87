"""Attention of 0/1 codes as exporters write it: found by structure, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, operand, scalar, static
from edgevit.passes.sites import is_op
from edgevit.rewrite import Refused

__all__ = ["BinarySite", "binary_site", "code_products"]

# Exporters write 1 / pi and 1 / 2 in float32.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class BinarySite:
    """One attention.

    Attributes:
        root: The sum whose result it is.
        q: Queries ``[b, h, t, d]``, not normalized.
        k: Keys.
        v: Values.
        thresholds: What normalized queries and keys are compared with: constants, or means
            that the model computes of each input.
        taps: Filters ``[h, 1, n, 1]`` of the convolution over tokens.
        pads: Its padding.
    """

    root: ir.Node
    q: ir.Value
    k: ir.Value
    v: ir.Value
    thresholds: tuple[ir.Value, ir.Value]
    taps: ir.Value
    pads: tuple[int, ...]


class _OtherError(Exception):
    """Not this attention, and why."""


def code_products(graph: ir.Graph) -> Iterator[ir.Node]:
    """Products whose second operand is a product with turned codes: one for each site."""
    for node in graph:
        if not is_op(node, "MatMul"):
            continue
        inner = operand(node, 1).producer()
        if not is_op(inner, "MatMul") or inner is None or not _is_codes(operand(node, 0)):
            continue
        turned = operand(inner, 0).producer()
        if is_op(turned, "Transpose") and turned is not None and _is_codes(operand(turned, 0)):
            yield node


def _is_codes(value: ir.Value) -> bool:
    node = value.producer()
    return (
        is_op(node, "Cast")
        and node is not None
        and is_op(operand(node, 0).producer(), "Greater")
    )


def binary_site(product: ir.Node) -> BinarySite | Refused:
    """The attention around ``qb A``, one of ``code_products``.

    1. ``A = kb^T v`` with ``kb = 1[k / |k| > t]``; the same of queries; t is a constant or the
       mean of what is compared with it.
    2. ``o = v / 2 + qb A / pi``, then ``o / |o|``, norms over the last axis.
    3. The result is that plus a depthwise convolution of v over tokens, without bias.
    """
    try:
        return _site(product)
    except _OtherError as e:
        return Refused(f"attention of 0/1 codes, but {e}")


def _site(product: ir.Node) -> BinarySite:
    inner = _producer(operand(product, 1), "MatMul")
    v = operand(inner, 1)
    turned = _producer(operand(inner, 0), "Transpose")
    if tuple(attr(turned, "perm")) != (0, 1, 3, 2):
        raise _OtherError("its keys are not turned by their last two axes")
    (q, tq), (k, tk) = (_codes(x) for x in (operand(product, 0), operand(turned, 0)))
    scaled = _scaled(product.outputs[0], 1 / math.pi, "the product of codes")
    o, half = _sum(scaled, "it is not added to v / 2")
    if _half(half) is not v:
        raise _OtherError("what is added to it is not v / 2 (with the v of its products)")
    root, near = _sum(_normalized_by(o), "its unit vectors are not added to a convolution")
    taps, pads = _convolution(near, v)
    return BinarySite(_producer(root, "Add"), q, k, v, (tq, tk), taps, pads)


def _producer(value: ir.Value, op: str) -> ir.Node:
    node = value.producer()
    if node is None or not is_op(node, op):
        raise _OtherError(f"{value.name!r} is not the result of {op}")
    return node


def _only_user(value: ir.Value, *ops: str) -> list[ir.Node]:
    return [use.node for use in value.uses() if is_op(use.node, *ops)]


def _scaled(value: ir.Value, factor: float, what: str) -> ir.Value:
    """``value * factor``, or ``value / (1 / factor)``."""
    for user in _only_user(value, "Mul", "Div"):
        number = scalar(user.inputs[1])
        if number is None or not number:
            continue
        found = number if user.op_type == "Mul" else 1 / number
        if math.isclose(found, factor, rel_tol=_ROUNDING):
            return user.outputs[0]
        raise _OtherError(f"{what} is scaled by {found:.6g}, expected {factor:.6g}")
    raise _OtherError(f"{what} is not scaled by {factor:.6g}")


def _half(value: ir.Value) -> ir.Value | None:
    """x, of ``x / 2``."""
    node = value.producer()
    if node is None or not is_op(node, "Mul", "Div"):
        return None
    wanted = 0.5 if node.op_type == "Mul" else 2.0
    return operand(node, 0) if scalar(node.inputs[1]) == wanted else None


def _sum(value: ir.Value, otherwise: str) -> tuple[ir.Value, ir.Value]:
    """The sum that reads ``value``, and its other term."""
    for user in _only_user(value, "Add"):
        a, b = operand(user, 0), operand(user, 1)
        return user.outputs[0], b if a is value else a
    raise _OtherError(otherwise)


def _normalized_by(x: ir.Value) -> ir.Value:
    """``x / |x|`` where something computes it."""
    for user in _only_user(x, "Div"):
        if operand(user, 0) is x and _norm_of(operand(user, 1)) is x:
            return user.outputs[0]
    raise _OtherError("its result is not divided by its norm over the last axis")


def _norm_of(value: ir.Value) -> ir.Value | None:
    """x, of ``max(|x|, tiny)`` over the last axis."""
    node = value.producer()
    if node is not None and is_op(node, "Clip", "Max"):
        least = scalar(node.inputs[1]) if len(node.inputs) > 1 else None
        if least is None or not 0 <= least <= 1e-6:
            return None
        node = operand(node, 0).producer()
    if node is None or not is_op(node, "ReduceL2"):
        return None
    x = operand(node, 0)
    axes, shape = constant(node.inputs[1]) if len(node.inputs) > 1 else None, static(x)
    if axes is None or shape is None or axes.size != 1:
        return None
    last = int(axes.reshape(-1)[0]) % len(shape) == len(shape) - 1
    return x if last and attr(node, "keepdims", 1) else None


def _codes(value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """X and t, of ``1[x / |x| > t]``."""
    greater = _producer(operand(_producer(value, "Cast"), 0), "Greater")
    unit, threshold = operand(greater, 0), operand(greater, 1)
    quotient = _producer(unit, "Div")
    x = operand(quotient, 0)
    if _norm_of(operand(quotient, 1)) is not x:
        raise _OtherError("what is compared is not divided by its norm over the last axis")
    if scalar(threshold) is None and _mean_of(threshold) is not unit:
        raise _OtherError("its threshold is neither a constant nor the mean of what it is for")
    return x, threshold


def _mean_of(value: ir.Value) -> ir.Value | None:
    """x, of its mean over everything."""
    node = value.producer()
    while node is not None and is_op(node, "Reshape", "Squeeze"):
        node = operand(node, 0).producer()
    if node is None or not is_op(node, "ReduceMean"):
        return None
    shape = static(node.outputs[0])
    return operand(node, 0) if shape is not None and math.prod(shape) == 1 else None


def _convolution(value: ir.Value, v: ir.Value) -> tuple[ir.Value, tuple[int, ...]]:
    node = _producer(value, "Conv")
    taps, shape, heads = operand(node, 1), static(operand(node, 1)), static(v)
    if operand(node, 0) is not v or shape is None or heads is None:
        raise _OtherError("what is added last is not a convolution of its values")
    depthwise = attr(node, "group", 1) == heads[1] and shape[:2] == (heads[1], 1)
    plain = set(attr(node, "strides", (1, 1))) | set(attr(node, "dilations", (1, 1))) == {1}
    pads = tuple(int(p) for p in attr(node, "pads", (0, 0, 0, 0)))
    kept = shape[3] == 1 and pads == (shape[2] // 2, 0) * 2 and shape[2] % 2 == 1
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    if not (depthwise and plain and kept) or biased:
        raise _OtherError("its convolution is not a depthwise one over tokens, without bias")
    return taps, pads
