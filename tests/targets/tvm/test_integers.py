"""Kernels of bytes against int64, exactly, on every machine that runs here; and mutants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels.arithmetic import integer, pack_integers
from edgevit.targets.tvm.kernels.conv import Conv, Window, pack_conv_integers
from edgevit.targets.tvm.kernels.depthwise import Depthwise, pack_depthwise_integers
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Activation, Epilogue, Quantize
from edgevit.targets.tvm.kernels.gemm import Gemm, layout
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_kernels import caller, here, runs_here, share_always
from tests.support.tvm_mutants import MUTANTS
from tests.support.tvm_reference import EPSILON, convolved, finished

Array = np.ndarray[Any, Any]

USABLE = [m for m in MACHINES.values() if runs_here(m)]
SHAPES = [(1, 1, 4), (2, 7, 12), (13, 17, 4), (7, 131, 20), (25, 80, 8), (1, 100, 64)]
QUANTIZED = Epilogue(
    scale=True,
    bias=True,
    activation=Activation("relu"),
    residual=True,
    quantize=Quantize(0.05, 3, "uint8"),
)


def gemm(machine: Machine, m: int, n: int, k: int, epilogue: Epilogue = PLAIN) -> Gemm:
    return Gemm(m, k, layout(n, machine), k, n, epilogue, integer(machine))


def multiplied(
    kernel: Gemm, machine: Machine, zero: int, extreme: bool = False
) -> tuple[Array, Array, dict[str, Array]]:
    """Result, exact sums, the epilogue's operands by name."""
    rng = np.random.default_rng(0)
    m, n, k = kernel.rows, kernel.columns.count, kernel.depth
    range_ = np.iinfo(kernel.arithmetic.left)
    a = rng.integers(range_.min, range_.max, (m, k), kernel.arithmetic.left, endpoint=True)
    b = rng.integers(-128, 127, (k, n), np.int8, endpoint=True)
    if extreme:
        a[:], b[:, ::2], b[:, 1::2] = range_.max, -128, 127
    packed, offsets = pack_integers(b, zero, kernel.columns, kernel.arithmetic)
    scales = {"scale": 1e-3, "bias": 1.0, "residual": 1.0}
    extra = {
        o.name: (scales[o.name] * rng.uniform(0.5, 2, o.size)).astype(np.float32)
        for o in kernel.operands[3:-1]
    }
    got = caller(kernel, machine)(a, packed, offsets, *extra.values()).reshape(m, n)
    return got, (a.astype(np.int64) - zero) @ b.astype(np.int64), extra


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_exact(shape: tuple[int, int, int], machine: Machine) -> None:
    got, exact, _ = multiplied(gemm(machine, *shape), machine, 100)
    assert np.array_equal(got, exact)


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
def test_nothing_saturates_on_the_way(machine: Machine) -> None:
    got, exact, _ = multiplied(gemm(machine, 7, 33, 64), machine, 255, extreme=True)
    assert np.array_equal(got, exact)


def test_shared_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    share_always(monkeypatch)
    got, exact, _ = multiplied(gemm(here(), 25, 131, 20), here(), 100)
    assert np.array_equal(got, exact)


def rounds_right(got: Array, exact: Array, bound: Array, steps: Quantize) -> bool:
    """Whether integers are within half a step, and the bound, of the exact values."""
    low, high = np.iinfo(got.dtype).min, np.iinfo(got.dtype).max
    want = np.clip(exact / steps.scale + steps.zero, low, high)
    slack = (bound + 2 * EPSILON * np.abs(exact)) / steps.scale
    return bool((np.abs(got.astype(np.float64) - want) <= 0.5 + slack).all())


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("residual_first", [True, False])
def test_quantized_outputs(dtype: str, residual_first: bool) -> None:
    steps = Quantize(0.05, 3, dtype)
    epilogue = replace(QUANTIZED, quantize=steps, residual_first=residual_first)
    got, sums, extra = multiplied(gemm(here(), 13, 40, 32, epilogue), here(), 117)
    shaped = {**extra, "residual": extra["residual"].reshape(sums.shape)}
    exact, bound = finished(epilogue, sums.astype(np.float64), np.zeros(sums.shape), shaped)
    assert got.dtype == dtype
    assert rounds_right(got, exact, bound, steps)
    assert len(np.unique(got)) > 30, "the test sees most of the range"


def test_halves_round_to_even() -> None:
    epilogue = Epilogue(scale=True, quantize=Quantize(1.0, 0, "int8"))
    kernel = replace(gemm(here(), 8, 1, 4, epilogue), columns=layout(1, here()))
    a = np.zeros((8, 4), kernel.arithmetic.left)
    a[:, 0] = np.arange(8)
    packed, offsets = pack_integers(
        np.array([[1], [0], [0], [0]], np.int8), 3, kernel.columns, kernel.arithmetic
    )
    got = caller(kernel, here())(a, packed, offsets, np.array([0.5], np.float32))
    assert got.tolist() == [-2, -1, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("machine", USABLE, ids=lambda m: m.name)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_are_exact(groups: int, machine: Machine) -> None:
    rng = np.random.default_rng(0)
    channels, out, zero = 8, 34, 7
    window = Window(
        2, (3, 4), (3, 2), (1, 2), (1, 1), 6 * 9 * channels, 9 * channels, channels
    )
    images = rng.integers(0, 128, (2, 6, 9, channels), integer(machine).left)
    weights = rng.integers(-128, 128, (out, channels // groups, 3, 2), np.int8)
    columns = layout(out // groups, machine)
    kernel = Conv(window, channels // groups, groups, columns, out, PLAIN, integer(machine))
    packed = pack_conv_integers(weights, groups, zero, columns, integer(machine))
    got = caller(kernel, machine)(images.ravel()[: kernel.operands[0].size], *packed)
    want = convolved(images.astype(np.int64) - zero, weights, window, groups)
    assert np.array_equal(got.reshape(want.shape), want)


def test_channels_are_padded_to_four() -> None:
    rng = np.random.default_rng(0)
    window = Window(1, (2, 3), (2, 2), (1, 1), (1, 1), 48, 16, 4)
    images = rng.integers(0, 128, (1, 3, 4, 4), integer(here()).left)
    weights = rng.integers(-128, 128, (5, 3, 2, 2), np.int8)
    columns = layout(5, here())
    kernel = Conv(window, 4, 1, columns, 5, PLAIN, integer(here()))
    packed = pack_conv_integers(weights, 1, 9, columns, integer(here()))
    got = caller(kernel, here())(images, *packed)
    want = convolved(images[..., :3].astype(np.int64) - 9, weights, window, 1)
    assert np.array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("channels", [3, 40])
def test_depthwise_is_exact(channels: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    window = Window(1, (3, 9), (5, 5), (2, 1), (1, 1), 0, 13 * channels, channels)
    limits = np.iinfo(dtype)
    images = rng.integers(limits.min, limits.max, (1, 9, 13, channels), dtype)
    weights = rng.integers(-128, 128, (channels, 1, 5, 5), np.int8)
    kernel = Depthwise(window, channels, 1, channels, source=dtype)
    got = caller(kernel, here())(images, *pack_depthwise_integers(weights, 100))
    want = convolved(images.astype(np.int64) - 100, weights, window, channels)
    assert np.array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_rejected(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    kernel = gemm(here(), 13, 40, 32, QUANTIZED)
    got, sums, extra = multiplied(kernel, here(), 117)
    shaped = {**extra, "residual": extra["residual"].reshape(sums.shape)}
    exact, bound = finished(QUANTIZED, sums.astype(np.float64), np.zeros(sums.shape), shaped)
    assert QUANTIZED.quantize is not None
    assert not rounds_right(got, exact, bound, QUANTIZED.quantize)
