"""One loop nest over strided operands that evaluates an expression an element.

Copies, transposes, broadcasts, concatenations, padding and every pointwise operator are this
kernel; neighboring operators share one nest where the lowering fuses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.kernel import Operand, load, loop, spread, store
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.strides import Loop

__all__ = [
    "Apply",
    "Const",
    "Expression",
    "In",
    "Pointwise",
    "evaluate",
    "inputs_of",
    "size_of",
]

# Below this many elements threads cost more than they save.
PARALLEL_FROM = 16384
# Lanes of a part are unrolled in Python at most this often.
UNROLL = 4


@dataclass(frozen=True)
class In:
    """The element of an operand."""

    index: int


@dataclass(frozen=True)
class Const:
    """A number of a dtype."""

    value: float
    dtype: str = "float32"


@dataclass(frozen=True)
class Apply:
    """An operator on elements; ``numbers`` are its own constants."""

    name: str
    args: tuple[Expression, ...]
    numbers: tuple[float, ...] = ()


Expression = In | Const | Apply

# How often a function names its operand where it is written out: a polynomial once a power.
_REPEATS: Mapping[str, int] = {
    **dict.fromkeys(("exp", "sigmoid", "silu", "softplus", "tanh", "elu"), 24),
    **dict.fromkeys(("erf", "gelu"), 32),
    "gelu_tanh": 72,
    "mish": 576,
    **dict.fromkeys(("max", "min"), 5),
    **dict.fromkeys(("leaky", "prelu", "sign", "hardswish"), 3),
}


def size_of(expression: Expression) -> int:
    """How many operands are named where an expression is written out, roughly.

    Expressions are trees: what is named twice is generated twice, and that multiplies along a
    chain of functions.
    """
    if not isinstance(expression, Apply):
        return 1
    return _REPEATS.get(expression.name, 1) * sum(size_of(a) for a in expression.args)


_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": lambda a, b: tirx.Select(a > b, a, tirx.Select(b > a, b, _same(a, b))),
    "min": lambda a, b: tirx.Select(a < b, a, tirx.Select(b < a, b, _same(a, b))),
    "less": lambda a, b: a < b,
    "greater": lambda a, b: a > b,
    "lessequal": lambda a, b: a <= b,
    "greaterequal": lambda a, b: a >= b,
    "equal": lambda a, b: tirx.EQ(a, b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "pow": tirx.pow,
}


def inputs_of(expression: Expression) -> set[int]:
    """Indices of the operands that an expression reads."""
    if isinstance(expression, In):
        return {expression.index}
    if isinstance(expression, Const):
        return set()
    return set().union(*(inputs_of(a) for a in expression.args))


def _same(a: Any, b: Any) -> Any:
    """Neither is larger: they are equal, or one is NaN and so is their sum.

    ``a + (b - b)`` would say it in one go, but TVM simplifies ``b - b`` to 0.
    """
    return tirx.Select(tirx.EQ(a, b), a, a + b)


def _div(a: Any, b: Any) -> Any:
    return tirx.truncdiv(a, b) if "int" in str(a.ty.dtype) else a / b


def evaluate(expression: Expression, values: Sequence[Any], lanes: int) -> Any:
    """The TIR expression, ``values`` being those of the operands."""
    if isinstance(expression, In):
        return values[expression.index]
    if isinstance(expression, Const):
        return spread(tirx.const(expression.value, expression.dtype), lanes)
    args = [evaluate(a, values, lanes) for a in expression.args]
    return apply(expression.name, args, expression.numbers, lanes)


def apply(name: str, args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    """One operator on TIR expressions of ``lanes`` lanes.

    Raises:
        KeyError: No such operator (the table of the lowering names it, so our bug).
    """
    if name in vmath.UNARY:
        return vmath.UNARY[name](args[0])
    if name in _BINARY:
        return _BINARY[name](*args)
    if name == "div":
        return _div(*args)
    if name == "where":
        return tirx.Select(args[0], args[1], args[2])
    if name == "not":
        return tirx.Not(args[0])
    return _PARAMETRIC[name](args, numbers, lanes)


def _clip(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    low, high = numbers
    x = args[0]
    x = x if math.isinf(low) else vmath.maximum(low, x)
    return x if math.isinf(high) else vmath.minimum(high, x)


def _leaky(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    x = args[0]
    return tirx.Select(x < vmath.constant(0, x), x * vmath.constant(numbers[0], x), x)


def _elu(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    x = args[0]
    low = vmath.constant(numbers[0], x) * (vmath.exp(x) - vmath.constant(1, x))
    return tirx.Select(x < vmath.constant(0, x), low, x)


def _hard_sigmoid(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    x = args[0]
    line = x * vmath.constant(numbers[0], x) + vmath.constant(numbers[1], x)
    return vmath.minimum(1.0, vmath.maximum(0.0, line))


def _cast(dtype: str) -> Callable[..., Any]:
    def convert(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
        if dtype == "bool":
            zero = spread(tirx.const(0, str(args[0].ty.dtype).partition("x")[0]), lanes)
            return tirx.NE(args[0], zero)
        return args[0].astype(dtype if lanes == 1 else f"{dtype}x{lanes}")

    return convert


def _quantize(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    """Codes in float32: round half to even of x / scale, plus the zero point, saturated."""
    scale, zero, low, high = numbers
    x = tirx.nearbyint(args[0] / vmath.constant(scale, args[0]))
    return vmath.minimum(high, vmath.maximum(low, x + vmath.constant(zero, x)))


def _dequantize(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    """(codes - zero) * scale."""
    scale, zero = numbers
    x = args[0].astype("float32" if lanes == 1 else f"float32x{lanes}")
    return (x - vmath.constant(zero, x)) * vmath.constant(scale, x)


def _sign(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    x, zero = args[0], vmath.constant(0, args[0])
    negative = tirx.Select(x < zero, vmath.constant(-1, x), x)
    return tirx.Select(x > zero, vmath.constant(1, x), negative)


def _prelu(args: Sequence[Any], numbers: Sequence[float], lanes: int) -> Any:
    x, slope = args
    return tirx.Select(x < vmath.constant(0, x), x * slope, x)


_PARAMETRIC: Mapping[str, Callable[..., Any]] = {
    "shift": lambda args, numbers, lanes: args[0] + vmath.constant(numbers[0], args[0]),
    "prelu": _prelu,
    "clip": _clip,
    "leaky": _leaky,
    "elu": _elu,
    "hardsigmoid": _hard_sigmoid,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "sign": _sign,
    **{
        f"cast-{d}": _cast(d)
        for d in ("float32", "int32", "int64", "uint8", "int8", "int16", "bool", "float16")
    },
}


@dataclass(frozen=True)
class Pointwise:
    """``out[...] = expression(in0[...], in1[...], ...)`` over a nest of loops.

    Attributes:
        expression: What is computed; operand ``i`` of it is input ``i``.
        nest: Loops, outermost first; strides of the result, then of each input.
        dtypes: Of the result, then of each input.
    """

    expression: Expression
    nest: tuple[Loop, ...]
    dtypes: tuple[str, ...]

    @property
    def label(self) -> str:
        """``copy`` where nothing is computed."""
        return "copy" if isinstance(self.expression, In) else "pointwise"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The result first."""
        found = []
        for i, dtype in enumerate(self.dtypes):
            reach = 1 + sum((n.size - 1) * n.strides[i] for n in self.nest)
            found.append(Operand("out" if i == 0 else f"in{i - 1}", dtype, reach, i == 0))
        return tuple(found)

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Loops, the innermost in vectors where every operand allows."""
        lanes = self._lanes(machine)
        outer = self.nest[:-1] if self.nest else ()
        total = math.prod(n.size for n in self.nest)
        with ExitStack() as stack:
            at: list[Any] = [0] * len(buffers)
            for depth, one in enumerate(outer):
                wide = depth == 0 and total >= PARALLEL_FROM and one.size > 1
                index = stack.enter_context(loop(one.size, parallel=wide))
                at = [a + index * s for a, s in zip(at, one.strides, strict=True)]
            if not self.nest:
                self._part(buffers, at, (0,) * len(buffers), 1)
                return
            self._innermost(buffers, at, lanes, alone=not outer and total >= PARALLEL_FROM)

    def _lanes(self, machine: Machine) -> int:
        """Lanes of the innermost loop; 1 where an operand jumps."""
        if not self.nest:
            return 1
        last = self.nest[-1]
        narrow = min(np.dtype(d).itemsize for d in self.dtypes) < 4
        jumps = any(s not in (0, 1) for s in last.strides) or last.strides[0] != 1
        return 1 if jumps or (narrow and "bool" in self.dtypes) else machine.lanes

    def _innermost(self, buffers: Any, at: list[Any], lanes: int, *, alone: bool) -> None:
        last = self.nest[-1]
        while lanes > 1 and last.size < lanes:
            lanes //= 2
        count, rest = divmod(last.size, lanes)
        with loop(count, parallel=alone and count > 1) as index:
            here = [a + index * lanes * s for a, s in zip(at, last.strides, strict=True)]
            self._part(buffers, here, last.strides, lanes)
        done = count * lanes
        while rest:
            lanes = 1 << (rest.bit_length() - 1)
            here = [a + done * s for a, s in zip(at, last.strides, strict=True)]
            self._part(buffers, here, last.strides, lanes)
            done, rest = done + lanes, rest - lanes

    def _part(self, buffers: Any, at: list[Any], steps: tuple[int, ...], lanes: int) -> None:
        values = [
            load(b, a, lanes) if s == 1 or lanes == 1 else spread(b[a], lanes)
            for b, a, s in zip(buffers[1:], at[1:], steps[1:], strict=True)
        ]
        store(buffers[0], at[0], evaluate(self.expression, values, lanes), lanes)
