"""Derived tolerances for per-node replay: how far one operator may be off, and no further.

First-order running error analysis (N. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., chapters 3 and 4). Each value of a group carries a bound on its absolute
error; an operator turns the bounds of its inputs into the bound of its output from the
magnitudes that the reference really has. Two roundoffs enter: ``storage`` (the dtype tensors
are kept in) and ``compute`` (the dtype sums are accumulated in). Sums of K terms are bounded
by the probabilistic form sqrt(K) u of Higham and Mary (2019) times ``SAFETY``; there is no
other knob.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.product_bounds import PRODUCT_RULES, sum_error
from edgevit.roundoff import FUNCTION_ULPS, SAFETY, Roundoff
from edgevit.shift_bounds import SHIFT_RULES
from edgevit.tipping import factor_roundoff, half_step, rounds_activations, tipped
from edgevit.token_bounds import TOKEN_RULES

__all__ = ["bounds"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Operand:
    """An input as the analysis sees it: the reference's array and its error bound."""

    array: Array
    error: float
    total: float | None = None

    def norm(self, length: int) -> float:
        """Bound on the Euclidean norm of the errors of ``length`` elements.

        ``total``, where it is known, is that of all elements: a quantizer errs only where a
        rounding is tipped over a tie, which is at few of them.
        """
        every = math.sqrt(length) * self.error
        return every if self.total is None else min(every, self.total)

    @property
    def peak(self) -> float:
        finite = self.array[np.isfinite(self.array)] if self.array.size else self.array
        if finite.dtype.kind in "iu":
            finite = finite.astype(np.float64)  # the lowest code has no opposite
        return float(np.max(np.abs(finite))) if finite.size else 0.0


_Rule = Callable[[ir.Node, list[_Operand], Array, Roundoff], float]


def bounds(
    model: ir.Model,
    values: Mapping[str, Array],
    cut: frozenset[str],
    unit: Roundoff,
    fed: Mapping[str, Array] | None = None,
) -> dict[str, float]:
    """Bound |replayed - reference| for every node output of a canonical model.

    Args:
        model: Canonical model.
        values: Reference array of every node output and graph input, by name.
        cut: Values that the replay feeds from the reference: they carry no error on. (For a
            narrow storage dtype the reference itself is computed from rounded feeds and
            weights, see ``edgevit.verify``.)
        unit: Roundoffs of the engine.
        fed: What the readers of a value get, where the replay feeds them another array than
            ``values`` has: which elements lie near a tie is a matter of that one.

    Returns:
        Value name -> bound on the absolute error of any element; infinite where an operator
        has no rule, so that such a value is reported as not judged and never as passed.
    """
    error: dict[str, float] = {}
    limit: dict[str, float] = {}
    total: dict[str, float] = {}
    read = {**values, **(fed or {})}
    for node in model.graph:
        operands = [_operand(v, read, error, total) for v in node.inputs if v is not None]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _quantizer(node, operands, values, cut, unit, error, limit, total)
            continue
        if rounds_activations(node, unit.dynamic):
            rounded = operands[0].error + half_step(operands[0].peak)
            operands[0] = replace(operands[0], error=rounded, total=None)
        rule = _RULES.get(node.op_type, _unknown)
        for out in node.outputs:
            name = str(out.name)
            if name not in values:
                continue
            own = _wider(unit, values[name].dtype)
            made = rule(node, operands, values[name], own)
            # Storing rounds to nearest: at most one unit roundoff of the value itself; a
            # second one covers the neighbor that an error before the rounding can choose.
            bound = made + 2 * (own.storage * _peak(values[name]) + own.underflow)
            # Behind an operator without a rule nothing can be bounded (inf times 0 is nan).
            limit[name] = bound if bound < math.inf else math.inf
            error[name] = 0.0 if name in cut else limit[name]
    return limit


def _wider(unit: Roundoff, dtype: np.dtype[Any]) -> Roundoff:
    """The roundoffs where the source itself stores a narrow float: it may sum in it too."""
    if dtype.kind != "f":
        return unit
    info = np.finfo(dtype)
    narrow, least = float(info.eps) / 2, float(info.smallest_subnormal) / 2
    return replace(
        unit,
        storage=max(unit.storage, narrow),
        compute=max(unit.compute, narrow),
        underflow=max(unit.underflow, least),
    )


def _peak(array: Array) -> float:
    return _Operand(array, 0.0).peak


def _operand(
    value: ir.Value,
    values: Mapping[str, Array],
    error: Mapping[str, float],
    total: Mapping[str, float],
) -> _Operand:
    fixed, name = constant(value), str(value.name)
    if fixed is not None:
        return _Operand(fixed, 0.0)
    return _Operand(values[name], error.get(name, 0.0), total.get(name))


def _quantizer(
    node: ir.Node,
    ops: list[_Operand],
    values: Mapping[str, Array],
    cut: frozenset[str],
    unit: Roundoff,
    error: dict[str, float],
    limit: dict[str, float],
    total: dict[str, float],
) -> None:
    """Bounds behind a quantizer: whole steps, where a rounding can be tipped over a tie."""
    name = str(node.outputs[0].name)
    x, scale = ops[0], ops[1].array.astype(np.float64)
    if name not in values:
        return
    if node.op_type == "QuantizeLinear":
        info = np.iinfo(values[name].dtype)
        zero = float(ops[2].array.max()) if len(ops) > 2 else 0.0
        own = unit.compute + factor_roundoff(info.bits)
        steps = tipped(x.array, scale, x.error, own, info.min - zero, info.max - zero, zero)
        limit[name], every = float(steps.max(initial=0)), float(np.linalg.norm(steps))
    else:
        step = float(scale.max())
        y = values[name].astype(np.float64)
        limit[name] = x.error * step + 2 * (unit.storage * _peak(y) + unit.underflow)
        stored = unit.storage * float(np.linalg.norm(y)) + unit.underflow * math.sqrt(y.size)
        every = x.norm(y.size) * step + 2 * stored
    error[name] = 0.0 if name in cut else limit[name]
    total[name] = 0.0 if name in cut else every


def _softmax(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    axis = node.attributes.get_int("axis", -1)
    length = ops[0].array.shape[-1 if axis is None else axis]
    relative = 2 * ops[0].error + SAFETY * FUNCTION_ULPS * unit.compute * (1 + ops[0].peak)
    return _peak(out) * (relative + SAFETY * math.sqrt(length) * unit.compute)


def _normalization(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    x = ops[0]
    axes = -1 if node.op_type in ("LayerNormalization", "RMSNormalization") else None
    rows = x.array.astype(np.float64)
    if axes is None:
        groups = node.attributes.get_int("num_groups", x.array.shape[1]) or 1
        rows = rows.reshape(rows.shape[0], groups, -1)
    centered = 0.0 if node.op_type == "RMSNormalization" else 1.0
    epsilon = node.attributes.get_float("epsilon", 1e-5) or 0.0
    spread = np.sqrt(
        np.mean((rows - centered * rows.mean(-1, keepdims=True)) ** 2, -1) + epsilon
    )
    smallest = float(np.min(spread))
    # (x - mean) / sigma: both the subtraction and sigma inherit the error of x.
    length = rows.shape[-1]
    absolute = x.error + SAFETY * unit.compute * math.sqrt(length) * x.peak
    normalized = float(np.max(np.abs(rows).max(-1) / spread)) + 1.0
    scale = max((o.peak for o in ops[1:2]), default=1.0)
    shift = max((o.peak for o in ops[2:3]), default=0.0)
    inner = (absolute / smallest) * (1 + min(normalized, math.sqrt(length)))
    return scale * inner + 3 * unit.storage * (scale * normalized + shift)


def _sum(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    x = ops[0]
    length = max(x.array.size // max(out.size, 1), 1)
    mean = 1.0 / length if node.op_type == "ReduceMean" else 1.0
    total = mean * length
    return total * x.error + sum_error(length, total * x.peak, unit)


def _pool(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    return ops[0].error + sum_error(64, ops[0].peak, unit)


def _add(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    return sum(o.error + SAFETY * unit.compute * o.peak for o in ops)


def _mul(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    a, b = ops
    return a.error * b.peak + b.error * a.peak + SAFETY * unit.compute * _peak(out)


def _div(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    a, b = ops
    nonzero = np.abs(b.array[b.array != 0].astype(np.float64))
    smallest = float(nonzero.min()) if nonzero.size else 1.0
    carried = a.error / smallest + b.error * _peak(out) / smallest
    return carried + SAFETY * FUNCTION_ULPS * unit.compute * _peak(out)


def _move(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    return max((o.error for o in ops), default=0.0)


def _cumulative(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    """Every partial sum carries the error of all its terms."""
    x = ops[0]
    length = int(x.array.shape[int(ops[1].array.item())])
    return length * x.error + sum_error(length, length * x.peak, unit)


def _power(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    """Smooth but steep functions: bounded through the largest slope of the reference."""
    x = ops[0].array.astype(np.float64)
    slope = _steepest(node.op_type, x, ops)
    return ops[0].error * slope + SAFETY * FUNCTION_ULPS * unit.compute * max(_peak(out), 1.0)


def _steepest(op: str, x: Array, ops: list[_Operand]) -> float:
    with np.errstate(all="ignore"):
        if op == "Exp":
            slopes = np.exp(np.minimum(x, 700.0))
        elif op == "Sqrt":
            slopes = 0.5 / np.sqrt(x)
        elif op == "Log":
            slopes = 1.0 / x
        elif op == "Reciprocal":
            slopes = 1.0 / x**2
        else:
            exponent = ops[1].array.astype(np.float64)
            slopes = exponent * x ** (exponent - 1)
    return float(np.max(np.abs(slopes[np.isfinite(slopes)]), initial=0.0))


def _pointwise(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    """Activations, evaluated to a few ulps."""
    carried = _slope(node, ops) * sum(o.error for o in ops)
    scale = max(_peak(out), max((o.peak for o in ops if o.array.dtype.kind == "f"), default=0))
    return carried + SAFETY * FUNCTION_ULPS * unit.compute * max(scale, 1.0)


def _slope(node: ir.Node, ops: list[_Operand]) -> float:
    """Largest slope of an activation; 1.13 bounds Gelu's and Erf's, the steepest others."""
    op = node.op_type
    if op == "HardSwish":
        return 1.5
    if op == "PRelu":
        return max(ops[1].peak, 1.0)
    default = {"LeakyRelu": 0.01, "Elu": 1.0, "HardSigmoid": 0.2}.get(op)
    alpha = 0.0 if default is None else node.attributes.get_float("alpha", default) or 0.0
    return max(abs(alpha), 1.13)


def _unknown(node: ir.Node, ops: list[_Operand], out: Array, unit: Roundoff) -> float:
    return math.inf


_MOVES = (
    *("Reshape", "Transpose", "Concat", "Split", "Slice", "Gather", "GatherND"),
    *("GatherElements", "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Where"),
    *("Clip", "Relu", "MaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "Neg", "Abs", "TopK"),
    *("ArgMax", "Identity", "ScatterND", "Cast", "Floor", "Ceil", "Round", "Sign"),
)

_ACTIVATIONS = (
    *(
        "Sigmoid",
        "Tanh",
        "Erf",
        "Gelu",
        "HardSwish",
        "HardSigmoid",
        "Silu",
        "Mish",
        "Softplus",
    ),
    *("LeakyRelu", "Elu", "PRelu", "Sin", "Cos"),
)

# Truth values: replayed on the reference's own inputs they are equal.
_LOGIC = ("Not", "And", "Or", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_MOVES, _move),
    **dict.fromkeys(_ACTIVATIONS, _pointwise),
    **dict.fromkeys(_LOGIC, _move),
    **PRODUCT_RULES,
    **TOKEN_RULES,
    **SHIFT_RULES,
    "Softmax": _softmax,
    "LayerNormalization": _normalization,
    "RMSNormalization": _normalization,
    "InstanceNormalization": _normalization,
    "GroupNormalization": _normalization,
    "ReduceMean": _sum,
    "ReduceSum": _sum,
    "ReduceL2": _sum,
    "CumSum": _cumulative,
    "AveragePool": _pool,
    "Resize": _pool,
    "Add": _add,
    "Sub": _add,
    "Mul": _mul,
    "Div": _div,
    "Exp": _power,
    "Log": _power,
    "Sqrt": _power,
    "Reciprocal": _power,
    "Pow": _power,
}
