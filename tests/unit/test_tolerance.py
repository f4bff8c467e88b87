"""Derived bounds hold for real float32 arithmetic, and would not hold for a faulty one.

The oracle is float64 numpy (rounding 2^-53, nine digits below what is bounded here).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.roundoff import Roundoff, roundoff
from edgevit.tolerance import bounds
from tests.passes.harness import build
from tests.support.float64 import CASES, Array, Case
from tests.support.graphs import run_reference

FLOAT32 = Roundoff(storage=2.0**-24, compute=2.0**-24)
# A storage coarse enough that the error of ``h`` is what decides the error of ``y``, and
# fine enough that first-order analysis holds.
COARSE = Roundoff(storage=2.0**-14, compute=2.0**-24)
ALL = frozenset({"h", "y"})

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _double(inputs: dict[str, Array]) -> list[Array]:
    return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in inputs.values()]


def _reference(case: Case, inputs: dict[str, Array]) -> dict[str, Array]:
    return {**inputs, "h": inputs["x"], "y": case.compute(*_double(inputs))}


def _bound(case: Case, inputs: dict[str, Array]) -> float:
    return bounds(case.model(inputs), _reference(case, inputs), ALL, FLOAT32)["y"]


def _largest(error: Array) -> float:
    return float(np.abs(error).max())


@cases
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 8))
def test_float32_stays_within_the_bound(case: Case, seed: int, size: int) -> None:
    inputs = case.draw(np.random.default_rng(seed), size)
    feeds = {k: v for k, v in inputs.items() if k not in case.fixed}
    found = run_reference(case.model(inputs), feeds)["y"]
    expected = case.compute(*_double(inputs))
    assert found.shape == expected.shape
    assert _largest(found - expected) <= _bound(case, inputs)


@cases
def test_the_bound_is_tight_enough_to_see_faults(case: Case) -> None:
    """Mutants on ordinary data: a scale of 1.01, one element off by 1 %, float16 inputs."""
    inputs = case.draw(np.random.default_rng(0), 8)
    expected = case.compute(*_double(inputs))
    bound, peak = _bound(case, inputs), _largest(expected)
    assert 0 < bound <= 1e-3 * peak
    assert _largest(expected * 1.01 - expected) > bound
    moved = expected.copy()
    moved.flat[-1] += 0.01 * peak
    assert _largest(moved - expected) > bound
    half = [a.astype(np.float16).astype(a.dtype) for a in _double(inputs)]
    if case.op not in ("PRelu", "LeakyRelu"):
        assert _largest(case.compute(*half) - expected) > bound


@cases
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 8))
def test_an_error_carried_in_stays_within_the_bound(case: Case, seed: int, size: int) -> None:
    """``h`` is not cut: the operator may amplify what ``h`` is off by, within the bound."""
    rng = np.random.default_rng(seed)
    inputs = case.draw(rng, size)
    found = bounds(case.model(inputs), _reference(case, inputs), frozenset({"y"}), COARSE)
    exact = _double(inputs)
    expected = case.compute(*exact)
    for error in _errors(rng, exact[0], found["h"]):
        moved = case.compute(exact[0] + error, *exact[1:])
        assert _largest(moved - expected) <= found["y"]


def _errors(rng: np.random.Generator, x: Array, limit: float) -> list[Array]:
    """Everywhere the same, one sign an element, and along the element's own sign."""
    ones = np.ones_like(x)
    signs = rng.choice([-1.0, 1.0], x.shape)
    return [limit * e for e in (ones, -ones, signs, np.sign(x), -np.sign(x))]


@pytest.mark.parametrize(
    "name", ["hard swish", "leaky relu", "cumulative sum", "reciprocal root"]
)
def test_what_a_cut_value_is_off_by_is_not_carried(name: str) -> None:
    case = CASES[name]
    inputs = case.draw(np.random.default_rng(0), 4)
    values = _reference(case, inputs)
    cut = bounds(case.model(inputs), values, ALL, COARSE)
    uncut = bounds(case.model(inputs), values, frozenset({"y"}), COARSE)
    assert cut["h"] == uncut["h"] > 0
    assert cut["y"] < uncut["y"]


def test_values_that_the_reference_lacks_get_no_bound() -> None:
    case = CASES["gelu"]
    inputs = case.draw(np.random.default_rng(0), 1)
    values = {k: v for k, v in _reference(case, inputs).items() if k != "y"}
    assert set(bounds(case.model(inputs), values, ALL, FLOAT32)) == {"h"}


def test_infinite_elements_do_not_widen_the_bound() -> None:
    """Masks hold -inf; the bound comes from the finite elements."""
    case = CASES["softmax"]
    inputs = case.draw(np.random.default_rng(0), 2)
    plain = _bound(case, inputs)
    inputs["x"][:, 0] = -np.inf
    assert np.isfinite(_bound(case, inputs))
    assert _bound(case, inputs) <= 2 * plain


def test_unit_roundoffs_are_those_of_ieee_754() -> None:
    """Half the distance from 1 to the next number."""
    for name in ("float32", "float16"):
        assert roundoff(name).storage == float(np.finfo(name).eps) / 2
        assert roundoff(name).compute == float(np.finfo(np.float32).eps) / 2
        assert roundoff(name).underflow == float(np.finfo(name).smallest_subnormal) / 2
    with pytest.raises(KeyError):
        roundoff("int8")


def test_float16_results_below_the_normal_range() -> None:
    """A layer scale of 1e-6: all that a branch computes is subnormal in float16."""
    case = CASES["matmul"]
    inputs = case.draw(np.random.default_rng(0), 8)
    inputs = {"x": inputs["x"], **{k: v * 1e-7 for k, v in inputs.items() if k != "x"}}
    inputs = {k: v.astype(np.float16).astype(v.dtype) for k, v in inputs.items()}
    expected = case.compute(*_double(inputs))
    assert 0 < _largest(expected) < np.finfo(np.float16).smallest_normal
    model, values = case.model(inputs), _reference(case, inputs)
    bound = bounds(model, values, ALL, roundoff("float16"))["y"]
    rounded = expected.astype(np.float16).astype(np.float64)
    assert _largest(rounded - expected) <= bound
    # Without underflow the bound is below what rounding does, and two steps off are past it.
    assert 2 * roundoff("float16").storage * _largest(expected) < _largest(rounded - expected)
    step = float(np.finfo(np.float16).smallest_subnormal)
    assert _largest(rounded + 2 * step - expected) > bound


@pytest.mark.parametrize("low", [-np.inf, -3e38, -1e9])
def test_a_mask_does_not_make_the_bound_void(low: float) -> None:
    """A key far below the best counts for nothing, however far."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 2, 5, 8)).astype(np.float32) for _ in range(3))
    mask = np.where(rng.random((1, 1, 5, 5)) < 0.4, np.float32(low), np.float32(0.5))
    mask[..., 0] = 0
    scores = 0.3 * q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = (weights / weights.sum(-1, keepdims=True)) @ v
    shapes = "float[1,2,5,8] q, float[1,2,5,8] k, float[1,2,5,8] v"
    model = build(
        f"{shapes} => float[1,2,5,8] y", "y = Attention<scale=0.3>(q, k, v, m)", {"m": mask}
    )
    values = {"q": q, "k": k, "v": v, "y": y.astype(np.float32)}
    assert 0 < bounds(model, values, ALL, FLOAT32)["y"] < 2e-3
