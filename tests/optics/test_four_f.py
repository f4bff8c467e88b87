"""The 4f system: the convolution comes out, with the sign, place and scale of physics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d, correlate2d

from edgevit.sim4f.correlate import apply, correlation, place, transfer, transfer_half
from edgevit.sim4f.errors import ParameterError, SamplingError
from edgevit.sim4f.fourier import four_f, invert
from edgevit.sim4f.grid import Field, Grid, from_origin, power
from edgevit.sim4f.modulator import passive

LAM = 532e-9
Array = npt.NDArray[Any]


def physical(planes: Array, kernel: Array, f1: float = 0.1, f2: float = 0.1) -> Array:
    """Convolution by lens, mask, lens; the camera's picture turned back and unscaled."""
    shape = (planes.shape[-2], planes.shape[-1])
    grid = Grid(shape, (6e-6, 6e-6), LAM)
    mask, top = passive(transfer(place(kernel, shape)))
    out = four_f(Field(planes + 0j, grid), from_origin(mask), f1, f2)
    turned: Array = invert(out.values) * (-f2 / f1 * top)
    return turned


def fast(planes: Array, kernel: Array) -> Array:
    shape = (planes.shape[-2], planes.shape[-1])
    out: Array = apply(planes, transfer_half(place(kernel, shape)))
    return out


def wrapped(image: Array, kernel: Array) -> Array:
    """Circular convolution by definition."""
    total = np.zeros(image.shape)
    for (i, j), tap in np.ndenumerate(kernel):
        total += tap * np.roll(image, (i, j), axis=(0, 1))
    return total


@pytest.mark.parametrize("f2", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("shape", [(32, 32), (31, 40), (33, 27)])
def test_all_pass_images_inverted_and_magnified(shape: tuple[int, int], f2: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    grid = Grid(shape, (6e-6, 5e-6), LAM)
    out = four_f(Field(values, grid), np.ones(shape), 0.1, f2)
    expected = -(0.1 / f2) * invert(values)
    assert np.abs(out.values - expected).max() < 1e-12 * np.abs(expected).max()
    assert out.grid.pitch == pytest.approx((6e-6 * f2 / 0.1, 5e-6 * f2 / 0.1), rel=1e-12)
    np.testing.assert_allclose(power(out), power(Field(values, grid)), rtol=1e-12)


@pytest.mark.parametrize("shape", [(7, 9), (8, 6)])
def test_delta_kernels_shift_by_every_offset(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    image = rng.standard_normal(shape)
    for offset in np.ndindex(shape):
        kernel = np.zeros((offset[0] + 1, offset[1] + 1))
        kernel[offset] = 1
        moved = np.roll(image, offset, axis=(0, 1))
        assert np.abs(fast(image, kernel) - moved).max() < 1e-13
        assert np.abs(physical(image, kernel) - moved).max() < 1e-12


def test_conjugate_mask_peaks_at_the_energy() -> None:
    rng = np.random.default_rng(3)
    image = rng.standard_normal((20, 23))
    out = apply(image, correlation(transfer_half(image)))
    assert out[0, 0] == pytest.approx(np.sum(image**2), rel=1e-12)
    assert np.abs(out[1:, 1:]).max() < out[0, 0]


@pytest.mark.parametrize("path", [fast, physical])
@pytest.mark.parametrize("shape", [(16, 16), (15, 17), (12, 19)])
def test_every_kernel_size_equals_direct_convolution(
    path: Any, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(4)
    for k in range(1, min(shape) + 1):
        image = rng.standard_normal(shape)
        kernel = rng.standard_normal((k, min(k + 1, shape[1])))
        expected = convolve2d(image, kernel, "valid")
        found = path(image, kernel)[kernel.shape[0] - 1 :, kernel.shape[1] - 1 :]
        scale = np.abs(image).max() * np.abs(kernel).sum()
        assert np.abs(found - expected).max() < 1e-13 * scale


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 20), st.integers(3, 20), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_correlation_equals_direct_correlation(h: int, w: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, kernel = rng.standard_normal((h, w)), rng.standard_normal((k, k))
    half = correlation(transfer_half(place(kernel, (h, w))))
    found = apply(image, half)[: h - k + 1, : w - k + 1]
    expected = correlate2d(image, kernel, "valid")
    assert np.abs(found - expected).max() < 1e-12 * (1 + np.abs(expected).max())


def test_circular_part_is_circular() -> None:
    rng = np.random.default_rng(5)
    image, kernel = rng.standard_normal((9, 8)), rng.standard_normal((4, 3))
    assert np.abs(fast(image, kernel) - wrapped(image, kernel)).max() < 1e-13


def test_passive_mask_never_adds_power() -> None:
    rng = np.random.default_rng(6)
    grid = Grid((24, 31), (6e-6, 6e-6), LAM)
    field = Field(rng.standard_normal((24, 31)) + 0j, grid)
    mask, _ = passive(np.fft.fft2(rng.standard_normal((24, 31))))
    assert float(power(four_f(field, mask, 0.1, 0.1))) < float(power(field))


@pytest.mark.parametrize("path", [fast, physical])
def test_linear_and_covariant_under_shifts(path: Any) -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 12, 13))
    kernel = rng.standard_normal((3, 4))
    both = path(2 * a - 3 * b, kernel)
    assert np.abs(both - 2 * path(a, kernel) + 3 * path(b, kernel)).max() < 1e-12
    moved = path(np.roll(a, (3, 5), axis=(0, 1)), kernel)
    assert np.abs(moved - np.roll(path(a, kernel), (3, 5), axis=(0, 1))).max() < 1e-12


@pytest.mark.parametrize("kernels", [(), (3, 1), (1, 2), (2,)])
def test_batches_broadcast_and_inputs_stay(kernels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(9)
    planes, kernel = rng.standard_normal((2, 10, 11)), rng.standard_normal((*kernels, 3, 2))
    half = transfer_half(place(kernel, (10, 11)))
    before = planes.copy(), half.copy()
    found = apply(planes, half)
    wide = np.broadcast_shapes((2,), kernels)
    assert found.shape == (*wide, 10, 11)
    every = np.broadcast_to(planes, found.shape), np.broadcast_to(kernel, (*wide, 3, 2))
    for i in np.ndindex(wide):
        np.testing.assert_allclose(found[i], wrapped(every[0][i], every[1][i]), atol=1e-13)
    np.testing.assert_array_equal(planes, before[0])
    np.testing.assert_array_equal(half, before[1])


def test_single_precision_is_good_to_1e_5() -> None:
    rng = np.random.default_rng(8)
    image = rng.standard_normal((256, 256)).astype(np.float32)
    kernel = rng.standard_normal((16, 16)).astype(np.float32)
    single = fast(image, kernel)
    double = fast(image.astype(float), kernel.astype(float))
    assert single.dtype == np.float32
    error = np.abs(single - double).max() / np.abs(double).max()
    # Rounding of an FFT grows as eps * log2(pixels): 6e-8 * 16, times some.
    assert 0 < error < 1e-5


def test_plane_too_small_names_the_inequality() -> None:
    with pytest.raises(SamplingError, match=r"input support \+ kernel support - 1 <= plane"):
        place(np.ones((9, 2)), (8, 8))


def test_no_light_through_a_zero_mask_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"max \|transfer function\|"):
        passive(np.zeros((4, 4)))
