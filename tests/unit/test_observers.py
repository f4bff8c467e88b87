"""Observers against numpy on the whole data, and ranges against brute force."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from edgevit.channel_observer import CHANNEL_HALF, ChannelObserver, ChannelStatistics
from edgevit.errors import InputError, UsageError
from edgevit.observers import HALF, Observer, TensorStatistics
from edgevit.quantization import QParams, Range, fake, parameters
from edgevit.ranges import activation_parameters, channel_parameters

Array = np.ndarray[Any, Any]


def seen(arrays: list[Array], axis: int | None = None) -> TensorStatistics:
    observer = Observer(axis)
    for array in arrays:
        observer.update(array)
    return observer.result()


def chunks(seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    # Growing ranges, so that the histogram has to widen several times.
    return [rng.normal(0.2, s, (2, 5, 7)).astype(np.float32) for s in (0.01, 1.0, 30.0)]


def test_moments_are_those_of_all_data() -> None:
    arrays = chunks(0)
    whole = np.concatenate(arrays).astype(np.float64)
    found = seen(arrays, axis=1)
    assert (found.low, found.high, found.count) == (whole.min(), whole.max(), whole.size)
    np.testing.assert_array_equal(found.channel_low, whole.min(axis=(0, 2)))
    np.testing.assert_array_equal(found.channel_high, whole.max(axis=(0, 2)))
    # float64 sums of 42 terms, in another order.
    np.testing.assert_allclose(found.channel_sum, whole.sum(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.channel_square, (whole**2).sum(axis=(0, 2)), rtol=1e-6)
    assert found.bins.sum() == whole.size


def test_the_histogram_widens_without_losing_its_place() -> None:
    arrays = chunks(1)
    found = seen(arrays)
    flat = np.concatenate(arrays).reshape(-1)
    edges = np.linspace(-found.reach, found.reach, 2 * HALF + 1)
    expected = np.histogram(flat, edges)[0]
    # Elements within float32 rounding of an edge may fall to its other side.
    assert np.abs(np.cumsum(found.bins) - np.cumsum(expected)).max() <= 2


def test_merging_is_seeing_it_all() -> None:
    arrays = chunks(2)
    first, second = Observer(1), Observer(1)
    first.update(arrays[0])
    for array in arrays[1:]:
        second.update(array)
    first.merge(second)
    merged, whole = first.result(), seen(arrays, axis=1)
    np.testing.assert_array_equal(merged.bins, whole.bins)
    np.testing.assert_array_equal(merged.channel_low, whole.channel_low)
    assert (merged.low, merged.high, merged.samples) == (whole.low, whole.high, 3)
    with pytest.raises(InputError, match="channels"):
        first.merge(_other())


def _other() -> Observer:
    other = Observer(0)
    other.update(np.ones((3, 2), np.float32))
    return other


def test_memory_does_not_grow_with_samples() -> None:
    def size(count: int) -> int:
        observer = Observer(0)
        for i in range(count):
            observer.update(np.full((4, 8), i, np.float32))
        return sum(np.asarray(v).nbytes for v in vars(observer.result()).values())

    assert size(4) == size(64)


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    x = np.array([[1.0, np.nan], [np.inf, -2.0]], np.float32)
    found = seen([x], axis=1)
    assert (found.broken, found.count, found.low, found.high) == (2, 2, -2.0, 1.0)
    assert found.channel_low.tolist() == [1.0, -2.0]
    nothing = seen([np.full(3, np.nan, np.float32)])
    assert (nothing.count, nothing.low, nothing.high) == (0, 0.0, 0.0)


def test_constant_tensors() -> None:
    found = seen([np.full((2, 3), -1.5, np.float32)])
    assert found.constant
    params = activation_parameters(found, "mse", "uint8", "asymmetric")
    assert abs(float(fake(np.array([-1.5], np.float32), params)[0]) + 1.5) < 1e-6
    assert seen([np.zeros(4, np.float32)]).constant


def test_minmax_is_the_range() -> None:
    found = seen(chunks(3))
    made = activation_parameters(found, "minmax", "int8", "asymmetric")
    span = Range(np.array(found.low), np.array(found.high))
    assert made.same(parameters(span, "int8", "asymmetric"))


def test_percentile_is_numpys() -> None:
    x = np.random.default_rng(4).normal(0, 1, 20000).astype(np.float32)
    made = activation_parameters(seen([x]), "percentile", "uint8", "asymmetric", None, 99.0)
    low, high = np.percentile(x, [1, 99])
    bin_width = 2 * seen([x]).reach / (2 * HALF)
    span = (np.array(made.clip) - (low, high)).__abs__()
    assert float(span.max()) <= float(made.scale) + 2 * bin_width


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_no_worse_than_any_share_of_the_range(bits: int) -> None:
    x = np.random.default_rng(5).laplace(0, 1, 20000).astype(np.float32)
    made = activation_parameters(seen([x]), "mse", "int8", "symmetric", bits)

    def error(params: object) -> float:
        return float(np.mean((fake(x, params) - x) ** 2))  # type: ignore[arg-type]

    peak = float(np.abs(x).max())
    others = [
        parameters(Range(np.array(-s * peak), np.array(s * peak)), "int8", "symmetric", bits)
        for s in np.linspace(0.1, 1, 10)
    ]
    # The histogram stands in for the data: 1 % is ten times what its bins can hide here.
    assert error(made) <= 1.01 * min(error(o) for o in others)
    if bits == 4:
        assert error(made) < 0.5 * error(others[-1])


def test_entropy_clips_outliers_that_minmax_keeps() -> None:
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(0, 1, 20000), [60.0]]).astype(np.float32)
    found = seen([x])
    chosen = activation_parameters(found, "entropy", "int8", "symmetric", 4)
    widest = activation_parameters(found, "minmax", "int8", "symmetric", 4)
    assert float(chosen.scale) < 0.5 * float(widest.scale)


def test_an_unknown_observer_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown observer"):
        activation_parameters(seen(chunks(7)), "best", "int8", "symmetric")


def test_the_error_behind_an_activation_decides() -> None:
    x = np.random.default_rng(8).uniform(-20, 5, 20000).astype(np.float32)

    def relu(v: Array) -> Array:
        return np.asarray(np.maximum(v, 0))

    plain = activation_parameters(seen([x]), "mse", "uint8", "asymmetric")
    through = activation_parameters(seen([x]), "mse", "uint8", "asymmetric", through=relu)
    # Everything below zero is one number behind the ReLU: the codes go to the rest.
    assert float(through.scale) < 0.5 * float(plain.scale)


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    from edgevit.statistics import _warn

    with caplog.at_level(logging.WARNING):
        _warn({"x": seen([np.array([np.nan, 1.0], np.float32)])}, 1)
    said = " ".join(r.getMessage() for r in caplog.records)
    assert "one calibration sample" in said
    assert "NaN" in said
    assert "constant" in said


def by_channel(arrays: list[Array], axis: int = 1) -> ChannelStatistics:
    observer = ChannelObserver(axis)
    for array in arrays:
        observer.update(array)
    return observer.result()


def uneven(seed: int) -> list[Array]:
    """Channels of very different size, growing from array to array."""
    rng = np.random.default_rng(seed)
    size = np.array([1e-3, 1.0, 50.0, 0.0], np.float32)[:, None]
    return [
        (rng.normal(0.5, s, (2, 4, 300)) * size).astype(np.float32) for s in (0.1, 1.0, 7.0)
    ]


def test_each_channel_has_a_histogram_that_widens_by_itself() -> None:
    arrays = uneven(0)
    found = by_channel(arrays)
    rows = np.concatenate(arrays).transpose(1, 0, 2).reshape(4, -1)
    np.testing.assert_array_equal(found.low, rows.min(axis=1))
    np.testing.assert_array_equal(found.high, rows.max(axis=1))
    for c in range(3):
        edges = np.linspace(-found.reach[c], found.reach[c], 2 * CHANNEL_HALF + 1)
        expected = np.histogram(rows[c], edges)[0]
        # Elements within float32 rounding of an edge may fall to its other side.
        assert np.abs(np.cumsum(found.bins[c]) - np.cumsum(expected)).max() <= 2
    assert found.bins.sum(axis=1).tolist() == [rows.shape[1]] * 4
    assert found.channel(3).constant


def test_channels_merge_and_take_constant_memory() -> None:
    arrays = uneven(1)
    one, two = ChannelObserver(1), ChannelObserver(1)
    one.update(arrays[2])
    for array in arrays[:2]:
        two.update(array)
    one.merge(two)
    whole = by_channel(arrays)
    np.testing.assert_array_equal(one.result().bins, whole.bins)
    np.testing.assert_array_equal(one.result().low, whole.low)
    assert whole.bins.nbytes == by_channel(arrays * 10).bins.nbytes
    with pytest.raises(InputError, match="channels"):
        one.update(np.zeros((1, 5, 2), np.float32))
    with pytest.raises(InputError, match="no calibration samples"):
        ChannelObserver(0).result()


def test_nan_and_all_negative_channels() -> None:
    x = np.array([[[np.nan, 1.0], [-3.0, -2.0], [np.inf, np.nan]]], np.float32)
    found = by_channel([x])
    assert (found.broken, found.count.tolist()) == (3, [1, 2, 0])
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, -3.0, 0.0], [1.0, -2.0, 0.0])
    made = channel_parameters(found, "minmax", "uint8", "asymmetric")
    assert made.zero_point.tolist()[:2] == [0, 255]  # zero is in every range
    assert made.axis == 1


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_parameters_of_channels_are_those_of_the_channels_alone(method: str) -> None:
    """The tensor's observer, with 16 times as many bins, on each channel by itself."""
    rng = np.random.default_rng(2)
    x = rng.laplace(0, 1, (1, 3, 20000)) * np.array([0.1, 1.0, 30.0])[:, None]
    x = x.astype(np.float32)
    found = channel_parameters(by_channel([x]), method, "uint8", "asymmetric", 4, 99.0)
    for c in range(3):
        alone = activation_parameters(
            seen([x[:, c]]), method, "uint8", "asymmetric", 4, percentile=99.0
        )
        errors = [
            float(np.mean((fake(x[:, c], p) - x[:, c]) ** 2))
            for p in (alone, QParams(found.scale[c], found.zero_point[c], "uint8", 0, 15))
        ]
        # A bin is a 256th of the reach and a step a 15th of the range: a few percent of it.
        # Entropy is of histograms: with fewer bins it is another number, of the same kind.
        loose = 3 if method == "entropy" else 1
        assert np.isclose(errors[0], errors[1], rtol=0.15 * loose)
        assert np.isclose(float(found.scale[c]), float(alone.scale), rtol=0.1 * loose)
