"""The error function, vectorized.

Float64: rational approximations of W. J. Cody, "Rational Chebyshev approximations for the
error function", Mathematics of Computation 23 (1969) 631-637, coefficients of his CALERF.
Measured against ``math.erf``: relative error below 5e-16 (2 ULPs).

Float32, which programs compute in, six times as fast: the Taylor polynomial of degree 3
about the nearest of 257 points ``a`` that are 1/64 apart. With ``g = 2 exp(-a^2) / sqrt(pi)``
(the derivative) and ``d = x - a``, which is exact,

    erf(a + d) = erf(a) + g (d - a d^2 + (2 a^2 - 1) d^3 / 3) + r,  |r| < 0.4 d^4 < 2e-9.

Measured against ``math.erf``: relative error below 1.6e-7.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

__all__ = ["erf"]

_Float32 = np.ndarray[Any, np.dtype[np.float32]]
_Float64 = np.ndarray[Any, np.dtype[np.float64]]

# |x| <= 0.46875: erf(x) = x P(x^2) / Q(x^2)
_SMALL = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (
        1.0,
        2.36012909523441209e1,
        2.44024637934444173e2,
        1.28261652607737228e3,
        2.84423683343917062e3,
    ),
)
# 0.46875 < |x| <= 4: erfc(x) = exp(-x^2) P(x) / Q(x)
_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
# beyond 4, erf is 1 within 1.6e-8: erfc(x) = exp(-x^2) / x (1/sqrt(pi) - P(1/x^2)/(x^2 Q))
_LARGE = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e0,
        1.87295284992346725e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)
_STEPS, _END = 64, 4  # points per unit, and where they end
_CHUNK = 1 << 15  # elements: the temporaries of one chunk stay in the second-level cache


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to x, in the dtype of x."""
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    single = flat.dtype == np.float32
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        if single:
            result[part] = _erf_single(flat[part])
        else:
            result[part] = _erf(flat[part].astype(np.float64))
    return result.reshape(x.shape)


@functools.cache
def _taylor() -> tuple[_Float32, ...]:
    """Coefficients of ``d^3, d^2, d, 1`` at each point."""
    a = np.arange(_END * _STEPS + 1) / _STEPS
    slope = 2 / np.sqrt(np.pi) * np.exp(-a * a)
    terms = (slope * (2 * a * a - 1) / 3, -slope * a, slope, _erf(a))
    return tuple(term.astype(np.float32) for term in terms)


def _erf_single(x: _Float32) -> _Float32:
    """Case float32; from 4 on it is 1 to the last bit, and NaN stays."""
    size = np.minimum(np.abs(x), np.float32(_END))
    nearest = np.rint(size * np.float32(_STEPS))
    index = np.fmin(nearest, np.float32(_END * _STEPS)).astype(np.intp)  # NaN: the last
    nearest /= np.float32(_STEPS)
    size -= nearest
    first, *rest = _taylor()
    result = first.take(index)
    for term in rest:
        result *= size
        result += term.take(index)
    return np.copysign(result, x)


def _ratio(x: _Float64, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> _Float64:
    """Quotient of two polynomials, highest power first."""
    above, below = coefficients
    p, q = np.full_like(x, above[0]), np.full_like(x, below[0])
    for a, b in zip(above[1:], below[1:], strict=True):
        p *= x
        p += a
        q *= x
        q += b
    p /= q
    return p


def _erf(x: _Float64) -> _Float64:
    size = np.abs(x)
    result = np.where(np.isnan(x), np.nan, 1.0)  # 1 from 6 on, exactly
    small = size <= 0.46875
    middle = (size > 0.46875) & (size <= 4.0)
    large = (size > 4.0) & (size < 6.0)
    y = size[small]
    result[small] = y * _ratio(y * y, _SMALL)
    y = size[middle]
    result[middle] = 1.0 - np.exp(-y * y) * _ratio(y, _MIDDLE)
    y = size[large]
    z = 1.0 / (y * y)
    tail = (1.0 / np.sqrt(np.pi) - z * _ratio(z, _LARGE)) / y
    result[large] = 1.0 - np.exp(-y * y) * tail
    return np.copysign(result, x)
