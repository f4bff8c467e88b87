"""Misaligned planes against definitions, closed forms and the published sensitivity."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.correlate import place
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.misalign import (
    displaced_transfer,
    ramp,
    rotate,
    shift_error,
    shift_plane,
)


@pytest.mark.parametrize("shape", [(12, 15), (9, 10)])
def test_whole_pixel_shift_rolls_the_mask(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    response = rng.standard_normal(shape)
    shifted = np.fft.fft2(response * ramp(shape, (2, -3)))
    expected = np.roll(np.fft.fft2(response), (2, -3), axis=(0, 1))
    np.testing.assert_allclose(shifted, expected, atol=1e-11)


def test_shift_of_a_plane_follows_a_wave() -> None:
    n = np.arange(20)
    wave = np.exp(2j * np.pi * (3 * n[:, None] / 20 + 4 * n[None, :] / 20))
    moved = shift_plane(wave, (0.3, -0.7))
    phase = np.exp(-2j * np.pi * (3 * 0.3 - 4 * 0.7) / 20)
    np.testing.assert_allclose(moved, wave * phase, atol=1e-12)


@pytest.mark.parametrize(("k", "expected"), [(3, 2.2e-4), (7, 1.3e-3), (31, 3.1e-2)])
def test_error_of_a_mask_shift_grows_with_the_kernel_squared(k: int, expected: float) -> None:
    """One mask pixel at N = 256, real part, centred kernels: measured figures."""
    rng = np.random.default_rng(2)
    n = 256
    plane = np.roll(place(rng.standard_normal((k, k)), (n, n)), (-(k // 2),) * 2, axis=(0, 1))
    seen = (plane * ramp((n, n), (0.0, 1.0))).real
    error = np.linalg.norm(seen - plane) / np.linalg.norm(plane)
    assert error == pytest.approx(shift_error(1.0, k, n), rel=0.3)
    assert shift_error(1.0, k, n) == pytest.approx(expected, rel=0.25)


def test_displaced_transfer_by_definition() -> None:
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((3, 4))
    shape, shift, scale, origin = (8, 9), (0.3, -0.6), (1.01, 0.98), (-1, 2)
    found = displaced_transfer(kernel, shape, shift=shift, scale=scale, origin=origin)
    u = np.fft.fftfreq(8) * 8
    v = np.fft.fftfreq(9) * 9
    for (a, b), value in np.ndenumerate(found):
        fy, fx = (u[a] - 0.3) / (1.01 * 8), (v[b] + 0.6) / (0.98 * 9)
        total = sum(
            tap * np.exp(-2j * np.pi * (fy * (i - 1) + fx * (j + 2)))
            for (i, j), tap in np.ndenumerate(kernel)
        )
        assert value == pytest.approx(total, abs=1e-12)


def test_aligned_transfer_is_the_dft() -> None:
    rng = np.random.default_rng(4)
    kernel = rng.standard_normal((2, 3, 3))
    expected = np.fft.fft2(place(kernel, (10, 11), (2, -1)))
    found = displaced_transfer(kernel, (10, 11), origin=(2, -1))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_shifted_transfer_is_the_ramp() -> None:
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((3, 3))
    plane = place(kernel, (12, 12))
    found = displaced_transfer(kernel, (12, 12), shift=(0.4, 0.7))
    np.testing.assert_allclose(
        found, np.fft.fft2(plane * ramp((12, 12), (0.4, 0.7))), atol=1e-12
    )


def spot(n: int, y0: float, x0: float) -> Real:
    y, x = np.arange(n)[:, None] - n // 2, np.arange(n)[None, :] - n // 2
    return np.asarray(np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / 18.0))


@pytest.mark.parametrize("n", [64, 65])
@pytest.mark.parametrize("angle", [0.3, -0.1])
def test_rotation_turns_about_the_axis(n: int, angle: float) -> None:
    turned = rotate(spot(n, 0.0, 12.0), angle)
    expected = spot(n, 12 * np.sin(angle), 12 * np.cos(angle))
    np.testing.assert_allclose(turned, expected, atol=1e-7)
    back = rotate(rotate(spot(n, 5.0, 8.0), angle), -angle)
    np.testing.assert_allclose(back, spot(n, 5.0, 8.0), atol=1e-12)


def test_impossible_misalignments_are_refused() -> None:
    with pytest.raises(ParameterError, match="mask scale along x: expected > 0"):
        displaced_transfer(np.ones((2, 2)), (4, 4), scale=(1.0, 0.0))
    with pytest.raises(ParameterError, match=r"angle: expected \|angle\| <= pi / 4"):
        rotate(np.ones((4, 4)), 1.0)
