"""Elementary functions on vectors against the C library's in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm import vmath
from edgevit.targets.tvm.kernels.kernel import Operand, load, loop, store
from edgevit.targets.tvm.machine import Machine, native
from tests.support.native import kernels

Array = np.ndarray[Any, Any]
POINTS = 1 << 14
_erf = np.vectorize(math.erf)


def _sigmoid(x: Array) -> Array:
    return np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-np.abs(x))))


# Function -> what it is in float64, and the largest absolute error that its docstring and
# float32 arithmetic allow, on [-8, 8]; results there are at most 8 but for exp.
EXPECTED: dict[str, tuple[Callable[[Array], Array], float]] = {
    "erf": (_erf, 5e-7),
    "gelu": (lambda x: 0.5 * x * (1 + _erf(x * 0.5**0.5)), 8 * 2.5e-7 + 2**-21),
    "gelu_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
        8 * 3e-7 + 2**-21,
    ),
    "sigmoid": (_sigmoid, 2**-22),
    "silu": (lambda x: x * _sigmoid(x), 8 * 2**-22),
    "tanh": (np.tanh, 3e-7),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 8 * 2**-22),
    "softplus": (lambda x: np.log1p(np.exp(x)), 8 * 2**-22),
    "mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))), 8 * 3e-7 + 2**-21),
    "relu": (lambda x: np.maximum(x, 0), 0.0),
    "round": (np.rint, 0.0),
}


@dataclass(frozen=True)
class Unary:
    """A function of a whole vector at a time."""

    name: str
    size: int

    label = "unary"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Input, result."""
        return (Operand("x", "float32", self.size), Operand("y", "float32", self.size, True))

    def body(self, machine: Machine, *buffers: Any) -> None:
        """One loop."""
        lanes = machine.lanes
        with loop(self.size // lanes) as i:
            value = vmath.UNARY[self.name](load(buffers[0], i * lanes, lanes))
            store(buffers[1], i * lanes, value, lanes)


@pytest.fixture(scope="module")
def computed() -> dict[str, tuple[Array, Array]]:
    """Every function on points of [-8, 8], and ``exp`` on its whole range."""
    small = np.linspace(-8, 8, POINTS, dtype=np.float32)
    wide = np.linspace(-110, 95, POINTS, dtype=np.float32)
    wide[-2:] = -np.inf, np.inf
    points = dict.fromkeys(EXPECTED, small) | {"exp": wide}
    jobs = [(Unary(n, POINTS), [x.copy(), np.zeros_like(x)]) for n, x in points.items()]
    kernels(native(), jobs)
    return {n: (x, job[1][1]) for (n, x), job in zip(points.items(), jobs, strict=True)}


@pytest.mark.parametrize("name", EXPECTED)
def test_error_is_within_what_is_stated(name: str, computed: Any) -> None:
    x, y = computed[name]
    exact, limit = EXPECTED[name]
    assert np.abs(y - exact(x.astype(np.float64))).max() <= limit


def test_exp_is_relatively_exact_and_ends_where_it_says(computed: Any) -> None:
    x, y = computed["exp"]
    r = np.exp(x.astype(np.float64))
    largest = float(np.finfo(np.float32).max)
    inside = (x >= -86.9) & (r <= largest)
    assert np.abs(y[inside] / r[inside] - 1).max() <= 2**-22
    assert not y[x < -86.9].any()
    assert np.isposinf(y[r > largest * (1 + 2**-22)]).all()


def test_exp_below_zero_is_as_exact_as_softmax_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vmath.UNARY, "exp_below", vmath.exp_below)
    x = -np.geomspace(1e-7, 200, POINTS).astype(np.float32)
    x[-1] = -np.inf
    jobs = [(Unary("exp_below", POINTS), [x, np.zeros_like(x)])]
    kernels(native(), jobs)
    assert np.abs(jobs[0][1][1] - np.exp(x.astype(np.float64))).max() <= 2**-22


@pytest.mark.parametrize("name", ["erf", "gelu", "tanh"])
def test_a_worse_polynomial_is_noticed(name: str, computed: Any) -> None:
    """The limits are tight: an error of 4e-6 of the largest result is past them."""
    x, y = computed[name]
    exact, limit = EXPECTED[name]
    worse = y + np.float32(4e-6 * np.abs(y).max())
    assert np.abs(worse - exact(x.astype(np.float64))).max() > limit


def test_nan_stays_nan() -> None:
    x = np.full(native().lanes, np.nan, np.float32)
    jobs = [(Unary(n, x.size), [x, np.zeros_like(x)]) for n in ("relu", "exp", "gelu", "erf")]
    kernels(native(), jobs)
    assert all(np.isnan(job[1][1]).all() for job in jobs)
