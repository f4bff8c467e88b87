"""Operators along axes: reductions, softmax, sums, orders, normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.torchgraph.site import Operator, Site, Tensor, ints

__all__ = ["OPERATORS"]


def _reduce(name: str) -> Operator:
    def apply(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
        axes = ints(x[1]) if len(x) > 1 and x[1] is not None else list(range(x[0].ndim))
        return getattr(t, name)(x[0], dim=axes, keepdim=bool(at.get("keepdims", 1)))

    return apply


def _l2(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return _reduce("sum")(t, at, [x[0] * x[0], *x[1:]]).sqrt()  # type: ignore[union-attr]


def _prod(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axes = ints(x[1]) if len(x) > 1 and x[1] is not None else list(range(x[0].ndim))
    out = x[0]
    for axis in sorted((a % out.ndim for a in axes), reverse=True):
        out = t.prod(out, dim=axis, keepdim=bool(at.get("keepdims", 1)))
    return out


def _cumsum(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axis = ints(x[1])[0]
    forward = x[0].flip(axis) if at.get("reverse", 0) else x[0]
    total = t.cumsum(forward, dim=axis)
    if at.get("exclusive", 0):
        total = total - forward
    return total.flip(axis) if at.get("reverse", 0) else total


def _arg_max(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axis, keep = int(at.get("axis", 0)), bool(at.get("keepdims", 1))
    if not at.get("select_last_index", 0):
        return t.argmax(x[0], dim=axis, keepdim=keep)
    return x[0].shape[axis] - 1 - t.argmax(x[0].flip(axis), dim=axis, keepdim=keep)


def _top_k(t: Any, at: Site, x: Sequence[Tensor]) -> Sequence[Tensor]:
    axis, largest = int(at.get("axis", -1)), bool(at.get("largest", 1))
    values, order = t.sort(x[0], dim=axis, descending=largest, stable=True)
    count = ints(x[1])[0]
    return [values.narrow(axis, 0, count), order.narrow(axis, 0, count)]


def _softmax(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return t.softmax(x[0], dim=int(at.get("axis", -1)))


def _layer_norm(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    shape = x[0].shape[int(at.get("axis", -1)) :]
    bias = x[2] if len(x) > 2 else None
    epsilon = float(at.get("epsilon", 1e-5))
    return t.nn.functional.layer_norm(x[0], shape, x[1], bias, epsilon)


def _rms_norm(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axes = list(range(int(at.get("axis", -1)) % x[0].ndim, x[0].ndim))
    square = (x[0] * x[0]).mean(dim=axes, keepdim=True)
    return x[0] * t.rsqrt(square + float(at.get("epsilon", 1e-5))) * x[1]


def _group_norm(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    groups, epsilon = int(at.get("num_groups")), float(at.get("epsilon", 1e-5))
    return t.nn.functional.group_norm(x[0], groups, x[1], x[2], epsilon)


def _instance_norm(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    epsilon = float(at.get("epsilon", 1e-5))
    return t.nn.functional.group_norm(x[0], x[0].shape[1], x[1], x[2], epsilon)


OPERATORS: dict[str, Operator] = {
    "ArgMax": _arg_max,
    "CumSum": _cumsum,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "ReduceL2": _l2,
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("amin"),
    "ReduceProd": _prod,
    "ReduceSum": _reduce("sum"),
    "Softmax": _softmax,
    "TopK": _top_k,
}
