"""Compensated rounding and reconstruction of weights, against brute force and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import QuantizeWeight, ReplaceConstant
from edgevit.errors import InputError, UsageError
from edgevit.passes.channel_layers import channel_layers, layer_of
from edgevit.passes.compensate import Compensate, CorrectBias
from edgevit.passes.compensated_rounding import (
    Grid,
    compensated,
    expected_error,
    nearest,
    refit,
    search_scales,
)
from edgevit.passes.reconstruct_weights import Settings, reconstruct
from edgevit.passes.second_moments import Moments, filter_inputs, moments, positions
from edgevit.pipeline import Context
from edgevit.target import QuantScheme, Target, load_target
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples, quick


def correlated(rng: np.random.Generator, rows: int, inputs: int) -> Array:
    """Rows whose columns depend on each other, as activations of a network do."""
    basis = rng.normal(size=(inputs // 2 + 1, inputs))
    return rng.normal(size=(rows, len(basis))) @ basis + 0.1 * rng.normal(size=(rows, inputs))


def second(x: Array) -> Array:
    return (x.T @ x / len(x))[None]


def scheme(**changes: object) -> Target:
    given = QuantScheme(activations="uint8", source="test").model_copy(update=changes)
    return load_target("onnx").model_copy(update={"quantization": {"test": given}})


def context(samples: list[dict[str, Array]], **changes: object) -> Context:
    return Context(Samples(tuple(samples)), scheme(**changes), "test")


def test_diagonal_moments_give_the_nearest_codes() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 5, 130))
    grid = search_scales(weight, np.ones((2, 130)), 4)
    hessian = np.eye(130)[None] * rng.uniform(0.5, 2, size=(2, 130, 1))
    found = compensated(weight, hessian, grid, 1e-9)
    assert np.array_equal(found, nearest(weight, grid))


def test_error_is_what_the_outputs_show() -> None:
    rng = np.random.default_rng(1)
    x = correlated(rng, 400, 24)
    weight = rng.normal(size=(1, 6, 24))
    grid = search_scales(weight, np.ones((1, 24)), 4)
    codes = compensated(weight, second(x), grid, 0.01)
    off = x @ (weight - codes * grid.columns(24))[0].T
    measured = np.square(off).mean(axis=0)
    assert np.allclose(expected_error(weight, codes, grid, second(x))[0], measured, rtol=1e-9)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_compensation_beats_the_nearest_codes(bits: int) -> None:
    rng = np.random.default_rng(bits)
    x = correlated(rng, 600, 96)
    weight = rng.normal(size=(1, 16, 96))
    grid = search_scales(weight, np.ones((1, 96)), bits)
    plain = expected_error(weight, nearest(weight, grid), grid, second(x)).sum()
    codes = compensated(weight, second(x), grid, 0.01)
    better = expected_error(weight, codes, grid, second(x)).sum()
    assert better < 0.5 * plain
    # A mutant: errors carried the wrong way are worse than none.
    wrong = 2 * nearest(weight, grid).astype(int) - codes
    assert expected_error(weight, wrong, grid, second(x)).sum() > plain


def test_compensation_is_close_to_the_best_there_is() -> None:
    rng = np.random.default_rng(3)
    total = np.zeros(3)
    for _ in range(20):
        h = second(correlated(rng, 50, 6))
        weight = rng.uniform(-2, 1, size=(1, 1, 6))  # nothing is clipped
        grid = Grid(np.full((1, 1, 1), 1.0), -2, 1)
        every = np.array(list(itertools.product(range(-2, 2), repeat=6)))[None]
        best = expected_error(np.broadcast_to(weight, every.shape), every, grid, h).min()
        found = expected_error(weight, compensated(weight, h, grid, 1e-3), grid, h)[0, 0]
        plain = expected_error(weight, nearest(weight, grid), grid, h)[0, 0]
        assert best <= found + 1e-12
        total += best, found, plain
    assert total[1] < 0.6 * total[2]
    assert total[1] < 2.0 * total[0]


def test_codes_stay_on_the_grid_and_dead_inputs_are_harmless() -> None:
    rng = np.random.default_rng(4)
    x = correlated(rng, 200, 32)
    x[:, 3] = 0
    weight = rng.normal(size=(2, 4, 32)) * 10
    hessian = np.concatenate([second(x), np.zeros((1, 32, 32))])
    grid = search_scales(weight, np.einsum("gii->gi", hessian), 4, blocks=4)
    codes = compensated(weight, hessian, grid, 0.01)
    assert codes.min() >= -7
    assert codes.max() <= 7
    assert np.array_equal(codes[1], nearest(weight, grid)[1])  # a group that sees nothing


def test_refitted_scales_are_the_least_squares_ones() -> None:
    rng = np.random.default_rng(5)
    x = correlated(rng, 100, 10)
    weight = rng.normal(size=(1, 3, 10))
    grid = search_scales(weight, np.ones((1, 10)), 3)
    codes = nearest(weight, grid)
    made = refit(weight, codes, grid, second(x))
    for row in range(3):
        aim, along = x @ weight[0, row], x @ codes[0, row]
        expected = np.linalg.lstsq(along[:, None], aim, rcond=None)[0][0]
        assert np.isclose(made.scale[0, row, 0], expected, rtol=1e-9)


CONVS = [
    ((1, 1, 1, 1), 1, 1, 1, (8, 4, 3, 3)),
    ((0, 1, 2, 1), 2, 1, 2, (6, 2, 3, 3)),
    ((2, 2, 2, 2), 1, 2, 4, (4, 1, 3, 3)),
    ((0, 0, 0, 0), 3, 1, 1, (5, 4, 2, 3)),
]


@pytest.mark.parametrize(("pads", "stride", "dilation", "group", "shape"), CONVS)
def test_filter_inputs_times_weights_is_the_convolution(
    pads: tuple[int, ...], stride: int, dilation: int, group: int, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(6)
    weight = rng.normal(size=shape).astype(np.float32)
    top, left, bottom, right = pads
    height = (9 + top + bottom - dilation * (shape[2] - 1) - 1) // stride + 1
    width = (8 + left + right - dilation * (shape[3] - 1) - 1) // stride + 1
    kernel = f"kernel_shape=[{shape[2]},{shape[3]}], pads={list(pads)}, group={group}"
    steps = f"strides=[{stride},{stride}], dilations=[{dilation},{dilation}]"
    model = build(
        f"float[2,4,9,8] x => float[2,{shape[0]},{height},{width}] y",
        f"y = Conv<{kernel}, {steps}>(x, W, c)",
        {"W": weight, "c": np.zeros(shape[0], np.float32)},
    )
    x = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
    (layer,) = channel_layers(model)
    at = positions(layer, 10_000, rng)
    rows = filter_inputs(x, layer, at)
    made = np.einsum("goi,gri->rgo", layer.matrix(), rows).reshape(len(at), -1)
    (y,) = run(model, {"x": x})
    expected = np.moveaxis(y, 1, -1).reshape(-1, shape[0])
    assert np.allclose(made, expected, atol=1e-4)
    some = positions(layer, 7, rng)
    assert np.allclose(filter_inputs(x, layer, some), rows[:, some])


def linear(rng: np.random.Generator, inputs: int = 24, outputs: int = 6) -> ir.Model:
    return build(
        f"float[1,40,{inputs}] x => float[1,40,{outputs}] y",
        "p = MatMul(x, W)\ny = Add(p, b)",
        {
            "W": rng.normal(size=(inputs, outputs)).astype(np.float32),
            "b": rng.normal(size=outputs).astype(np.float32),
        },
    )


def layer_moments(x: Array, t: Array) -> Moments:
    seen = Moments.empty(1, x.shape[1], True)
    seen.add(x[None].astype(np.float32), t[None].astype(np.float32))
    return seen


def test_refitting_makes_good_for_rounded_inputs() -> None:
    """With inputs that lost a column, the refitted weights are the regression's."""
    rng = np.random.default_rng(7)
    model = linear(rng)
    (layer,) = channel_layers(model)
    t = correlated(rng, 4000, 24) + 1.0
    x = np.round(t / 2.0) * 2.0
    fine = Settings(8, 0, False, 0.01, 1e-6)
    assert layer.bias is not None
    aim = t @ layer.weight + layer.bias
    errors = {}
    for name, settings in (("refit", fine), ("plain", Settings(8, 0, False, 0.01, -1.0))):
        made = reconstruct(layer, layer_moments(x, t), settings)
        weight = (made.codes * made.grid.columns(24))[0].T
        y = x @ weight + layer.bias + made.shift
        assert np.allclose(y.mean(axis=0), aim.mean(axis=0), atol=1e-3)
        errors[name] = float(np.square(y - aim).mean())
    design = np.c_[x, np.ones(len(x))]
    best = np.square(design @ np.linalg.lstsq(design, aim, rcond=None)[0] - aim).mean()
    assert errors["refit"] < 1.05 * best
    assert errors["plain"] > 1.1 * best


def feeds(rng: np.random.Generator, count: int) -> list[dict[str, Array]]:
    return [
        {"x": (correlated(rng, 40, 24) + 0.5)[None].astype(np.float32)} for _ in range(count)
    ]


@pytest.fixture(autouse=True)
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(
        model: ir.Model, samples: list[dict[str, Array]], values: list[str]
    ) -> list[dict[str, Array]]:
        inner = [v for v in values if v != "x"]
        found = quick(model, samples, inner) if inner else [{} for _ in samples]
        return [{**f, **s} for f, s in zip(found, samples, strict=True)]

    monkeypatch.setattr("edgevit.passes.compensate.stream", values)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_layer_in_a_model(bits: int) -> None:
    rng = np.random.default_rng(8)
    model = linear(rng)
    data = feeds(rng, 4)
    before = [run(model, f)[0] for f in data]
    found = {}
    for p in (Compensate(weights=bits), CorrectBias(weights=bits)):
        copy = model.clone()
        plan = p.plan(copy, context(data))
        assert [type(e) for e in plan] == [QuantizeWeight, ReplaceConstant]
        outcome = p.perform(copy, plan)
        assert outcome.modified
        off = np.concatenate(
            [run(copy, f)[0] - y for f, y in zip(data, before, strict=True)], axis=None
        )
        found[p.name] = float(np.square(off).mean())
        means = off.reshape(-1, 6).mean(axis=0)
        assert np.abs(means).max() < 1e-3 * np.abs(before[0]).max()  # the bias took it
    assert found["compensate"] < 0.8 * found["correct-bias"]
    assert layer_of(next(n for n in copy.graph if n.op_type == "MatMul")) is None


def test_scales_that_are_too_small_are_raised_and_their_codes_with_them() -> None:
    rng = np.random.default_rng(12)
    model = linear(rng)
    data = feeds(rng, 2)
    (free, _) = Compensate(weights=8).plan(model, context(data))
    assert isinstance(free, QuantizeWeight)
    least = float(np.sort(free.params.scale)[3])  # three of six channels are below
    (held, _) = Compensate(weights=8).plan(model, context(data, least_scale=least))
    assert isinstance(held, QuantizeWeight)
    assert free.codes is not None
    assert held.codes is not None
    np.testing.assert_array_equal(held.params.scale, np.maximum(free.params.scale, least))
    off = held.codes * held.params.scale - free.codes * free.params.scale
    assert np.abs(off).max() <= least / 2 * (1 + 1e-6)
    assert (off[:, free.params.scale >= least] == 0).all()
    assert (off != 0).any()


def test_blocks_share_scales_along_the_inputs() -> None:
    rng = np.random.default_rng(9)
    model = linear(rng)
    data = feeds(rng, 2)
    (weight, _) = Compensate(weights=4, block=8).plan(model, context(data))
    assert isinstance(weight, QuantizeWeight)
    assert weight.params.scale.shape == (3, 6)
    assert (weight.params.axis, weight.params.block) == (0, 8)
    y = run(model, data[0])[0]
    Compensate().perform(model, (weight,))
    off = run(model, data[0])[0] - y
    assert np.square(off).mean() < 0.02 * np.square(y).mean()


def test_excluded_and_shared_weights_are_left_alone() -> None:
    rng = np.random.default_rng(10)
    data = feeds(rng, 1)
    assert Compensate(exclude="p").plan(linear(rng), context(data)) == ()
    shared = build(
        "float[1,40,24] x => float[1,40,24] y",
        "p = MatMul(x, W)\ny = MatMul(p, W)",
        {"W": rng.normal(size=(24, 24)).astype(np.float32)},
    )
    assert Compensate().plan(shared, context(data)) == ()


def test_small_bad_layers_are_widened_first() -> None:
    rng = np.random.default_rng(13)
    model = build(
        "float[1,40,24] x => float[1,40,3] y",
        "p = MatMul(x, W)\nq = MatMul(p, U)\ny = MatMul(q, V)",
        {
            "W": rng.normal(size=(24, 64)).astype(np.float32),
            "U": rng.normal(size=(64, 8)).astype(np.float32),
            "V": rng.normal(size=(8, 3)).astype(np.float32),
        },
    )
    data = feeds(rng, 3)
    sizes = {"W": 1536, "U": 512, "V": 24}
    for share, least in ((0.0, 0), (0.05, 1), (0.5, 2), (2.0, 3)):
        plan = Compensate(weights=3, widen=share).plan(model, context(data))
        weights = {e.value: e.params for e in plan if isinstance(e, QuantizeWeight)}
        wide = [name for name, params in weights.items() if params.high == 127]
        assert len(wide) == least
        added = sum(sizes[name] for name in wide) * 5 / 8
        assert added <= share * sum(sizes.values()) * 3 / 8
    with pytest.raises(UsageError, match="widen"):
        Compensate(widen=-1).plan(model, context(data))


def test_bad_input() -> None:
    rng = np.random.default_rng(11)
    model = linear(rng)
    (layer,) = channel_layers(model)
    with pytest.raises(InputError, match="no calibration"):
        moments([layer], [], 16, 1, 0)
    with pytest.raises(InputError, match="not finite"):
        moments([layer], [{"x": np.full((1, 40, 24), np.nan)}], 16, 1, 0)
    with pytest.raises(UsageError, match="2 to 8"):
        Compensate(weights=9).plan(model, context(feeds(rng, 1)))
    with pytest.raises(UsageError, match="damping"):
        Compensate(damping=0).plan(model, context(feeds(rng, 1)))


def test_memory_of_moments_does_not_depend_on_samples() -> None:
    rng = np.random.default_rng(12)
    (layer,) = channel_layers(linear(rng))
    few, many = (moments([layer], feeds(rng, n), 16, n, 0)[layer.name] for n in (1, 9))
    assert few.hessian.nbytes == many.hessian.nbytes
    assert (few.rows, many.rows) == (16, 144)
