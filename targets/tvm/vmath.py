"""Elementary functions on vectors: polynomials, so that nothing calls libm a lane at a time.

Every function takes and returns TIR expressions of float32, scalar or vector. Errors are of
float32 arithmetic, measured by ``tests/targets/tvm/test_vmath.py`` over the whole range.
Constants come first in ``max`` and ``min``: the comparison then hands NaN on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

__all__ = [
    "UNARY",
    "constant",
    "erf",
    "exp",
    "exp_below",
    "gelu",
    "maximum",
    "minimum",
    "sigmoid",
    "tanh",
]

_LOG2E = 1.4426950408889634
# ln 2 in two parts: the first has few bits, so that n times it is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440054690581e-4
# 2 exp(r) on |r| <= ln 2 / 2: least largest relative error, 1.9e-9. Twice, as the power of two
# beside it would be past float32's largest number before e^x is.
_EXP = tuple(
    2 * c
    for c in (
        0.0013836835437270366,
        0.008374824055839817,
        0.041668226194788445,
        0.16666420072039834,
        0.4999999207506437,
        1.0000000363447392,
        1.000000000554609,
    )
)
# 2^r on |r| <= 1/2: the same, 7.5e-8.
_EXP2 = (
    0.0013276471781765442,
    0.009675541332770848,
    0.05550713274149935,
    0.24022119723881818,
    0.6931469670643619,
    1.0000000716546738,
)
_EXP_LOW, _EXP_HIGH = -86.9, 89.0
# erf(x) = x P(x^2) / Q(x^2) on |x| <= 3.95: weighted least squares, relative error 2.1e-8.
_ERF_EDGE = 3.95
_ERF_P = (
    2.0258553804219925e-06,
    2.8466659839568656e-04,
    3.8076699581397456e-03,
    5.28738959371021e-02,
    1.9154030803128871e-01,
    1.1283791439327513,
)
_ERF_Q = (
    3.7830142764878893e-05,
    1.1705876691539083e-03,
    1.5054113027638951e-02,
    1.1455528376712115e-01,
    5.030808569256721e-01,
    1.0,
)


def _lanes(x: Any) -> int:
    return int(x.ty.dtype.lanes)


def constant(value: float, like: Any) -> Any:
    """A float32 constant with as many lanes as ``like``."""
    one = tirx.const(value, "float32")
    lanes = _lanes(like)
    return T.Broadcast(one, lanes) if lanes > 1 else one


def maximum(low: float, x: Any) -> Any:
    """max(low, x); NaN stays NaN."""
    return tirx.max(constant(low, x), x)


def minimum(high: float, x: Any) -> Any:
    """min(high, x); NaN stays NaN."""
    return tirx.min(constant(high, x), x)


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """Horner's scheme, highest power first."""
    result = constant(coefficients[0], x)
    for c in coefficients[1:]:
        result = result * x + constant(c, x)
    return result


def _typed(x: Any, dtype: str) -> str:
    lanes = _lanes(x)
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def exp(x: Any) -> Any:
    """e^x, relative error at most 2^-22; below -86.9 it is 0, past float32 infinity."""
    inside = minimum(_EXP_HIGH, maximum(_EXP_LOW, x))
    n = tirx.floor(inside * constant(_LOG2E, x) + constant(0.5, x))
    r = inside - n * constant(_LN2_HIGH, x) - n * constant(_LN2_LOW, x)
    return tirx.Select(
        x < constant(_EXP_LOW, x), constant(0.0, x), _polynomial(_EXP, r) * _power(n, 126)
    )


def _power(n: Any, bias: int) -> Any:
    """2^(n + bias - 127) of whole numbers."""
    numbers = [tirx.const(bias, "int32"), tirx.const(23, "int32")]
    if _lanes(n) > 1:
        numbers = [T.Broadcast(one, _lanes(n)) for one in numbers]
    whole = n.astype(_typed(n, "int32"))
    return T.reinterpret(_typed(n, "float32"), (whole + numbers[0]) << numbers[1])


def exp_below(x: Any) -> Any:
    """e^x for x <= 0, absolute error at most 2^-22; below -87 it stays at 2^-126.

    What softmax needs: fewer steps than ``exp``, as nothing overflows and what is so small
    need not vanish.
    """
    y = maximum(-126.0, x * constant(_LOG2E, x))
    n = tirx.nearbyint(y)
    return _polynomial(_EXP2, y - n) * _power(n, 127)


def erf(x: Any) -> Any:
    """The error function, absolute error at most 5e-7."""
    inside = minimum(_ERF_EDGE, maximum(-_ERF_EDGE, x))
    square = inside * inside
    return inside * _polynomial(_ERF_P, square) / _polynomial(_ERF_Q, square)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return constant(1.0, x) / (constant(1.0, x) + exp(constant(0.0, x) - x))


def tanh(x: Any) -> Any:
    """1 - 2 / (e^2x + 1), absolute error at most 3e-7."""
    return constant(1.0, x) - constant(2.0, x) / (exp(x + x) + constant(1.0, x))


def gelu(x: Any) -> Any:
    """GELU: x Phi(x), by the error function."""
    return constant(0.5, x) * x * (constant(1.0, x) + erf(x * constant(2**-0.5, x)))


def gelu_tanh(x: Any) -> Any:
    """GELU's tanh approximation, as ONNX defines it."""
    inner = x * constant(0.7978845608028654, x)
    inner = inner * (constant(1.0, x) + constant(0.044715, x) * x * x)
    return constant(0.5, x) * x * (constant(1.0, x) + tanh(inner))


def _relu(x: Any) -> Any:
    return maximum(0.0, x)


def _hard_sigmoid(x: Any) -> Any:
    return minimum(1.0, maximum(0.0, x * constant(1 / 6, x) + constant(0.5, x)))


def _silu(x: Any) -> Any:
    return x / (constant(1.0, x) + exp(constant(0.0, x) - x))


def _softplus(x: Any) -> Any:
    return maximum(0.0, x) + tirx.log(constant(1.0, x) + exp(constant(0.0, x) - tirx.abs(x)))


UNARY: Mapping[str, Callable[[Any], Any]] = {
    "abs": tirx.abs,
    "ceil": tirx.ceil,
    "cos": tirx.cos,
    "erf": erf,
    "exp": exp,
    "floor": tirx.floor,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "hardswish": lambda x: x * _hard_sigmoid(x),
    "log": tirx.log,
    "mish": lambda x: x * tanh(_softplus(x)),
    "neg": lambda x: constant(0.0, x) - x,
    "reciprocal": lambda x: constant(1.0, x) / x,
    "relu": _relu,
    "round": tirx.nearbyint,
    "sigmoid": sigmoid,
    "silu": _silu,
    "sin": tirx.sin,
    "softplus": _softplus,
    "sqrt": tirx.sqrt,
    "tanh": tanh,
}
