"""Sign recovery: exact without noise, and as noisy as predicted with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from edgevit.sim4f.arrays import Real
from edgevit.sim4f.camera import Camera, detect
from edgevit.sim4f.errors import ParameterError
from edgevit.sim4f.recovery import (
    FRAMES,
    four_step_join,
    four_step_light,
    homodyne_join,
    homodyne_light,
    homodyne_sigma,
    offset_for,
    offset_remove,
    split,
    split_join,
    split_sigma,
)

N = 200_000


def counted(light: Real, seed: int) -> Real:
    rng = np.random.default_rng(seed)
    return detect(light, Camera(), 1.0, rng).electrons


def test_split_parts_are_disjoint() -> None:
    values = np.array([-2.0, 0.0, 3.0])
    positive, negative = split(values)
    assert positive.tolist() == [0, 0, 3]
    assert negative.tolist() == [2, 0, 0]


def test_split_noise_is_root_half() -> None:
    """Square roots of Poisson counts have variance 1/4 each: 0.707 root-photons."""
    p, m = 40.0, 25.0
    found = split_join(counted(np.full(N, p**2), 1), counted(np.full(N, m**2), 2))
    assert found.std() == pytest.approx(split_sigma(), rel=0.01)
    assert split_sigma() == pytest.approx(0.7071, abs=1e-4)
    # The root of a count is low by 1 / (8 sqrt N) on average, to first order.
    assert found.mean() == pytest.approx(
        p - m - (1 / p - 1 / m) / 8, abs=5 * 0.7071 / np.sqrt(N)
    )


@pytest.mark.parametrize(("ratio", "expected"), [(30.0, 0.3537), (1.0, 0.5)])
def test_homodyne_noise(ratio: float, expected: float) -> None:
    """0.354 for a strong reference, 0.5 at r = y."""
    y = 20.0
    plus, minus = homodyne_light(np.full(N, y), ratio * y)
    found = homodyne_join(counted(plus, 3), counted(np.maximum(minus, 1e-9), 4), ratio * y)
    assert found.std() == pytest.approx(expected, rel=0.01)
    assert homodyne_sigma(np.array([y]), ratio * y)[0] == pytest.approx(expected, rel=1e-3)
    assert found.mean() == pytest.approx(y, abs=5 * expected / np.sqrt(N))


def test_homodyne_takes_the_real_part() -> None:
    y = np.array([1 + 2j, -3 + 0.5j])
    assert homodyne_join(*homodyne_light(y, 7.0), 7.0) == pytest.approx([1, -3], abs=1e-12)


def test_offset_is_exact_with_borders() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((9, 8)), rng.standard_normal((3, 4))
    b = offset_for(x)
    assert (x + b).min() == 0
    # Taps that fall outside of the image never saw the offset.
    seen = convolve2d(np.ones_like(x), w, "full")
    found = offset_remove(convolve2d(x + b, w, "full"), b, seen)
    np.testing.assert_allclose(found, convolve2d(x, w, "full"), atol=1e-12)
    valid = offset_remove(convolve2d(x + b, w, "valid"), b, float(w.sum()))
    np.testing.assert_allclose(valid, convolve2d(x, w, "valid"), atol=1e-12)
    assert offset_for(np.array([1.0, 2.0])) == 0


def test_four_steps_give_the_complex_field() -> None:
    rng = np.random.default_rng(6)
    y = rng.standard_normal(50) + 1j * rng.standard_normal(50)
    np.testing.assert_allclose(four_step_join(four_step_light(y, 5.0), 5.0), y, atol=1e-12)
    with pytest.raises(ParameterError, match="frames: expected four"):
        four_step_join((y.real, y.real), 5.0)


def test_frames_per_product() -> None:
    assert FRAMES["split-both"] == 2 * FRAMES["split"] == 2 * FRAMES["homodyne"] == 4


def test_reference_of_zero_is_refused() -> None:
    with pytest.raises(ParameterError, match="reference: expected > 0"):
        homodyne_light(np.ones(2), 0.0)
    with pytest.raises(ParameterError, match="reference"):
        homodyne_join(np.ones(2), np.ones(2), -1.0)
    with pytest.raises(ParameterError, match="reference"):
        homodyne_sigma(np.ones(2), 0.0)
