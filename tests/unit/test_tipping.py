"""What rounding to codes can add to an error: no less than it does, and not much more."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.quantizers import mark_as_run
from edgevit.tipping import (
    bias_step,
    factor_roundoff,
    half_step,
    rounds_activations,
    tipped,
)
from tests.support.graphs import GraphBuilder
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]
LOW, HIGH = -128.0, 127.0


def _codes(x: Array, scale: float) -> Array:
    return np.clip(np.rint(x.astype(np.float64) / scale), LOW, HIGH)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1 << 32),
    scale=st.floats(0.01, 10.0),
    steps=st.floats(0.0, 3.0),
)
def test_no_perturbation_moves_a_code_further(seed: int, scale: float, steps: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 60 * scale, 400)
    # Some elements right at ties, where everything is decided.
    x[:50] = (np.rint(x[:50] / scale) + 0.5) * scale
    error = steps * scale
    limit = tipped(x, np.asarray(scale), error, 2.0**-24, LOW, HIGH)
    for moved in (x + error, x - error, x + rng.uniform(-error, error, x.shape)):
        assert np.all(np.abs(_codes(moved, scale) - _codes(x, scale)) <= limit)


def test_codes_far_from_ties_are_not_excused() -> None:
    x = np.array([0.0, 1.0, 3.2, -7.4, 100.3])
    none = tipped(x, np.asarray(1.0), 0.05, 2.0**-24, LOW, HIGH)
    assert none.tolist() == [0.0] * 5
    # 0.1 crosses the tie next to 3.45 and -7.4 alone.
    x[2] = 3.45
    near = tipped(x, np.asarray(1.0), 0.11, 2.0**-24, LOW, HIGH)
    assert near.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_several_ties_are_several_steps() -> None:
    # From 0.25 to 2.65: the ties at 0.5, 1.5 and 2.5.
    found = tipped(np.array([0.25]), np.asarray(1.0), 2.4, 0.0, LOW, HIGH)
    assert found.tolist() == [3.0]
    assert _codes(np.array([2.65]), 1.0) - _codes(np.array([0.25]), 1.0) == 3.0


def test_clamped_codes_do_not_move() -> None:
    x = np.array([300.5, -300.5, 127.6])
    assert tipped(x, np.asarray(1.0), 0.4, 0.0, LOW, HIGH)[:2].tolist() == [0.0, 0.0]
    # A zero point moves what is clamped: codes 0..255 with zero point 100.
    moved = tipped(np.array([154.5, -99.5, 200.5]), np.asarray(1.0), 0.4, 0.0, -100.0, 155.0)
    assert moved.tolist() == [1.0, 1.0, 0.0]


def test_scales_of_channels_broadcast() -> None:
    x = np.array([[0.4, 0.4], [0.4, 0.4]])
    found = tipped(x, np.array([1.0, 10.0]), 0.2, 0.0, LOW, HIGH)
    assert found.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_the_division_itself_may_tip() -> None:
    """In float32 ``x / s`` and ``x (1 / s)`` differ next to a tie; the bound allows it."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 1, (200, 1)).astype(np.float32)
    x = ((rng.integers(-120, 120, (200, 100)) + 0.5) * scale).astype(np.float32)
    one = np.rint(x / scale)
    two = np.rint(x * (np.float32(1) / scale))
    assert np.any(one != two)
    limit = tipped(x, scale.astype(np.float64), 0.0, 2.0**-24, LOW, HIGH)
    assert np.all(np.abs(one - two) <= limit)


def test_a_zero_point_that_is_added_first_may_tip() -> None:
    """``round(x (1 / s) + z)`` in float32 loses bits of small quotients: the sum is large."""
    rng = np.random.default_rng(0)
    scale, zero = np.float32(0.0117), 107.0
    low, high = -zero, 255.0 - zero
    near = rng.integers(-100, 140, 20000) + 0.5 + rng.uniform(-2e-5, 2e-5, 20000)
    x = (near * scale).astype(np.float32)
    one = np.rint(x / scale)
    added = (x * (np.float32(1) / scale) + np.float32(zero)).astype(np.float32)
    two = np.rint(added) - zero
    wide = np.asarray(scale, np.float64)
    limit = tipped(x, wide, 0.0, 2.0**-24, low, high, zero)
    assert np.all(np.abs(one - two) <= limit)
    # Not covered by the quotient's roundings alone, and most elements are still not excused.
    assert np.any(np.abs(one - two) > tipped(x, wide, 0.0, 2.0**-24, low, high))
    far = rng.uniform(-1, 1, 20000).astype(np.float32)
    assert np.mean(tipped(far, wide, 0.0, 2.0**-24, low, high, zero) > 0) < 1e-3


def _layer(quantized: bool, weight_scale: list[float]) -> ir.Node:
    g = QuantizedBuilder()
    x = g.input("x", (1, 4))
    x = g.pair(x, (0.5, 3)) if quantized else x
    codes = np.ones((4, len(weight_scale)), np.int8)
    model = g.model(g.op("MatMul", x, g.weight(codes, weight_scale, 1)))
    return next(n for n in model.graph if n.op_type == "MatMul")


def test_the_bias_of_an_integer_kernel_is_rounded_to_its_accumulator() -> None:
    node = _layer(True, [0.25, 0.125])
    # The channel with the largest step decides: half for the bias, one for the product.
    assert bias_step(node) == 1.5 * 0.5 * 0.25
    assert bias_step(_layer(False, [0.25, 0.125])) == 0.0


def test_hybrid_kernels_round_data_that_are_numbers() -> None:
    layer = _layer(False, [0.25])
    assert rounds_activations(layer, True)
    assert not rounds_activations(layer, False)
    mark_as_run(layer)
    assert rounds_activations(layer, False)
    g = GraphBuilder()
    model = g.model(g.op("MatMul", g.input("x", (1, 4)), g.const(np.ones((4, 2)))))
    plain = next(iter(model.graph))
    mark_as_run(plain)
    assert not rounds_activations(plain, True)


@pytest.mark.parametrize("peak", [0.0, 1.0, 254.0])
def test_half_a_step_of_eight_bits(peak: float) -> None:
    x = np.linspace(-peak, peak, 10_001)
    step = peak / 127 if peak else 1.0
    worst = float(np.abs(np.rint(x / step) * step - x).max())
    assert worst <= half_step(peak) * (1 + 1e-12)
    assert half_step(peak) <= worst * 1.01 or peak == 0


def test_factors_of_sixteen_bits_are_rounded_coarsely() -> None:
    # A multiplier in [2^15, 2^16) that is rounded to an integer errs by at most half of one.
    assert factor_roundoff(16) == 0.5 / 2**15
    assert factor_roundoff(8) == 0.0
