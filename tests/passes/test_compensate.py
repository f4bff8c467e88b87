"""Compensated rounding and reconstruction of weights, against brute force and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.edits import QuantizeWeight, ReplaceConstant
from edgevit.errors import InputError, UsageError
from edgevit.passes.channel_layers import channel_layers, layer_of
from edgevit.passes.compensate import Compensate, CorrectBias
from edgevit.passes.compensated_rounding import (
    Grid,
    Order,
    compensated,
    expected_error,
    nearest,
    refit,
    search_scales,
)
from edgevit.passes.quantize import Quantize
from edgevit.passes.reconstruct_weights import Settings, normal_equations, reconstruct
from edgevit.passes.second_moments import Moments, filter_inputs, moments, positions
from edgevit.pipeline import Context
from edgevit.statistics import exposed
from edgevit.target import QuantScheme, Target, load_target
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples, quick
from tests.support.graphs import GraphBuilder


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
    found = compensated(weight, grid, Order.of(hessian, 1e-9))
    assert np.array_equal(found, nearest(weight, grid))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 129, 200])
def test_factor_is_that_of_the_inverse(size: int) -> None:
    rng = np.random.default_rng(size)
    seen = np.concatenate([second(correlated(rng, 3 * size, size)), np.zeros((1, size, size))])
    order = Order.of(seen, 0.01)
    amount = [0.01 * np.trace(seen[0]) / size, 1.0]  # nothing seen: any positive number
    for g in range(2):
        u, at = order.factor[g], order.columns[g]
        h = seen[g][np.ix_(at, at)] + amount[g] * np.eye(size)
        assert not np.tril(u, -1).any()
        # Backward stable: off by some units of the last place, times the condition.
        tolerance = 10 * size * np.finfo(np.float64).eps * np.linalg.cond(h)
        assert np.abs(u.T @ u @ h - np.eye(size)).max() <= tolerance
        if size > 1 and g == 0:  # a mutant: the lower factor, U U^T, is another matrix
            assert np.abs(u @ u.T @ h - np.eye(size)).max() > 1e-3


def test_error_is_what_the_outputs_show() -> None:
    rng = np.random.default_rng(1)
    x = correlated(rng, 400, 24)
    weight = rng.normal(size=(1, 6, 24))
    grid = search_scales(weight, np.ones((1, 24)), 4)
    codes = compensated(weight, grid, Order.of(second(x), 0.01))
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
    codes = compensated(weight, grid, Order.of(second(x), 0.01))
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
        found = expected_error(weight, compensated(weight, grid, Order.of(h, 1e-3)), grid, h)[
            0, 0
        ]
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
    codes = compensated(weight, grid, Order.of(hessian, 0.01))
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


def test_volumes_and_very_wide_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    g = GraphBuilder()
    volume = g.op(
        "Conv",
        g.input("v", (1, 2, 3, 4, 4)),
        g.const(rng.normal(0, 1, (4, 2, 1, 2, 2)).astype("f4")),
    )
    rows = g.op("Reshape", volume, g.ints([4, 27]))
    weight = rng.normal(0, 1, (27, 3)).astype("f4")
    model = g.model(g.op("MatMul", rows, g.const(weight), out="y"))
    samples = [{"v": rng.normal(0, 1, (1, 2, 3, 4, 4)).astype("f4")} for _ in range(3)]
    planned = [
        e for e in Compensate().plan(model, context(samples)) if isinstance(e, QuantizeWeight)
    ]
    assert [e.consumers for e in planned] == [("y",)]
    monkeypatch.setattr("edgevit.passes.compensate._WIDEST", 26)
    assert Compensate().plan(model, context(samples)) == ()


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


@pytest.mark.parametrize("asked", [2, 4, 5, 8])
def test_codes_are_stored_in_what_holds_the_width_that_is_asked_for(asked: int) -> None:
    rng = np.random.default_rng(asked)
    data = context(feeds(rng, 2), weights="int4", activations="")
    for planned in (Compensate(weights=asked), Quantize(weights=asked)):
        (edit,) = [e for e in planned.plan(linear(rng), data) if isinstance(e, QuantizeWeight)]
        assert edit.params.dtype == ("int4" if asked <= 4 else "int8")
        assert edit.params.high == 2 ** (asked - 1) - 1


def test_bad_input() -> None:
    rng = np.random.default_rng(11)
    model = linear(rng)
    (layer,) = channel_layers(model)
    with pytest.raises(InputError, match="no calibration"):
        moments([layer], [], 16, 1, 0)
    with pytest.raises(InputError, match="not finite"):
        moments([layer], [{"x": np.full((1, 40, 24), np.nan)}], 16, 1, 0)
    broken = {"x": np.full((1, 40, 24), np.nan, np.float32)}
    for samples, message in (([], "no calibration"), ([broken], "not finite")):
        with pytest.raises(InputError, match=message):
            Compensate(order="sequential").plan(model, context(samples))
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


CONV = "kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1], dilations=[1,1], group=1"


def deep(rng: np.random.Generator) -> ir.Model:
    """A convolution, two layers of one input, a sum, and a layer behind all of it."""

    def normal(*shape: int) -> Array:
        drawn: Array = rng.normal(size=shape) / shape[-1] ** 0.5
        return drawn.astype(np.float32)

    return build(
        "float[1,3,6,16] x => float[1,3,6,8] y",
        f"c = Conv<{CONV}>(x, W, d)\nr = Relu(c)\n"
        "p = MatMul(r, A)\na = Add(p, e)\nq = MatMul(r, B)\nb = Add(q, f)\n"
        "s = Sigmoid(b)\nm = Mul(a, s)\nt = Add(m, r)\nu = MatMul(t, C)\ny = Add(u, g)",
        {
            "W": normal(3, 3, 3, 3),
            "A": normal(16, 16),
            "B": normal(16, 16),
            "C": normal(16, 8),
            "d": normal(3),
            "e": normal(16),
            "f": normal(16),
            "g": normal(8),
        },
    )


def images(rng: np.random.Generator, count: int) -> list[dict[str, Array]]:
    drawn = (rng.normal(0.3, 1, size=(1, 3, 6, 16)) for _ in range(count))
    return [{"x": x.astype(np.float32)} for x in drawn]


def rounded(model: ir.Model, given: Context, bits: int, p: Compensate) -> ir.Model:
    """Activations of all layers, results included, then the weights."""
    made = model.clone()
    first = Quantize(weights=-1, activations=bits, observer="minmax", outputs="MatMul|Conv")
    for each in (first, p):
        each.perform(made, each.plan(made, given))
    return made


def means(model: ir.Model, data: list[dict[str, Array]], name: str) -> Array:
    """Of a layer's result in front of its quantizer, channel by channel, on data."""
    shown = ir.from_proto(onnx.load_model_from_string(exposed(model, [name])))
    found = [run(shown, feeds)[0] for feeds in data]
    axes = (0, 2, 3) if name == "c" else (0, 1, 2)
    return np.asarray(np.mean([x.mean(axis=axes, dtype=np.float64) for x in found], axis=0))


@pytest.mark.parametrize("p", [Compensate, CorrectBias])
def test_in_order_every_layer_has_the_mean_of_the_float_network(p: type[Compensate]) -> None:
    """All positions are looked at, so the correction is exact on the samples themselves."""
    rng = np.random.default_rng(20)
    model, data = deep(rng), images(rng, 4)
    given = context(data, scheme="asymmetric")
    found = {
        order: rounded(model, given, 5, p(weights=5, order=order))
        for order in ("parallel", "sequential")
    }
    worst = dict.fromkeys(found, 0.0)
    for name, raw in (("c", "c"), ("a", "a"), ("b", "b"), ("y", "y.raw")):
        true = means(model, data, name)
        for order, made in found.items():
            off = np.abs(means(made, data, raw) - true).max() / np.abs(true).max()
            worst[order] = max(worst[order], float(off))
    # Sums of 1,000 numbers in float32.
    assert worst["sequential"] < 1e-4
    assert worst["parallel"] > 1e-2


def chain(rng: np.random.Generator, depth: int, width: int) -> ir.Model:
    """Linear layers with ReLU between them."""
    names = ["x", *(f"h{i}" for i in range(1, depth)), "y"]
    steps = (
        f"p{i} = MatMul({names[i]}, W{i})\na{i} = Add(p{i}, b{i})\n{names[i + 1]} = Relu(a{i})"
        for i in range(depth)
    )
    held = {f"W{i}": rng.normal(0, (2 / width) ** 0.5, (width, width)) for i in range(depth)}
    held |= {f"b{i}": rng.normal(0, 0.1, width) for i in range(depth)}
    constants = {name: array.astype(np.float32) for name, array in held.items()}
    signature = f"float[1,40,{width}] x => float[1,40,{width}] y"
    return build(signature, "\n".join(steps), constants)


def test_layers_in_order_make_good_for_what_is_before_them() -> None:
    off = {"parallel": 0.0, "sequential": 0.0}
    for seed in (30, 31, 32):
        rng = np.random.default_rng(seed)
        model, basis = chain(rng, 6, 24), rng.normal(size=(24, 24)) / 24**0.5
        drawn = [(rng.normal(size=(1, 40, 24)) @ basis).astype(np.float32) for _ in range(14)]
        given = context([{"x": x} for x in drawn[:12]], scheme="asymmetric")
        tests = [{"x": x} for x in drawn[12:]]
        true = [run(model, f)[0] for f in tests]
        for order in off:
            made = rounded(model, given, 8, Compensate(weights=3, order=order))
            errors = [run(made, f)[0] - y for f, y in zip(tests, true, strict=True)]
            off[order] += float(np.square(errors).mean())
    assert off["sequential"] < 0.85 * off["parallel"]  # .69, .78 and .93 of it one by one


def test_in_order_the_same_layers_are_widened() -> None:
    rng = np.random.default_rng(40)
    model, data = deep(rng), images(rng, 3)
    wide = {}
    for order in ("parallel", "sequential"):
        plan = Compensate(weights=3, widen=0.3, order=order).plan(model, context(data))
        weights = {e.value: e for e in plan if isinstance(e, QuantizeWeight)}
        assert set(weights) == set("WABC")
        wide[order] = {name for name, e in weights.items() if e.params.high == 127}
        for edit in weights.values():
            assert edit.codes is not None
            assert np.abs(edit.codes).max() <= edit.params.high
    assert wide["sequential"] == wide["parallel"]
    assert 0 < len(wide["parallel"]) < 4
    with pytest.raises(UsageError, match="order is 'layers'"):
        Compensate(order="layers").plan(model, context(data))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_one_row_leaves_all_to_the_bias(order: str, seed: int) -> None:
    """A head and one image: what varies about the mean is roundoff, and no moments."""
    rng = np.random.default_rng(seed)
    model = build(
        "float[1,64] x => float[1,10] y",
        "r = Relu(x)\np = MatMul(r, W)\ny = Add(p, b)",
        {
            "W": rng.normal(size=(64, 10)).astype(np.float32),
            "b": rng.normal(size=10).astype(np.float32),
        },
    )
    data = [{"x": (100 * rng.normal(size=(1, 64))).astype(np.float32)}]
    given = context(data)
    (true,) = run(model, data[0])
    inputs = Quantize(weights=-1, observer="minmax")
    inputs.perform(model, inputs.plan(model, given))
    p = Compensate(order=order)
    p.perform(model, p.plan(model, given))
    # The bias takes all of the error but roundoff of two sums of 64.
    assert np.abs(run(model, data[0])[0] - true).max() < 1e-5 * np.abs(true).max()


def test_roundoff_below_zero_is_damped_away() -> None:
    """One direction of variance, and an eigenvalue below zero by five times the damping."""
    along = np.ones(8) / 8**0.5
    hessian = (8 * np.outer(along, along) - 0.05 * np.eye(8))[None]
    order = Order.of(hessian, 0.01)
    u, at = order.factor[0], order.columns[0]
    inverse = np.linalg.inv(u.T @ u) - hessian[0][np.ix_(at, at)]
    amount = 10 * 0.01 * np.trace(hessian[0]) / 8
    assert np.allclose(inverse, amount * np.eye(8), atol=1e-9)


def test_inputs_far_from_zero_are_not_refitted_to_roundoff() -> None:
    """Variance of 1e-5 of the power; sums off by two roundings, in the worst direction."""
    rng = np.random.default_rng(60)
    model = linear(rng, 64, 8)
    (layer,) = channel_layers(model)
    t = 1000 * (1 + 3e-3 * rng.normal(size=(1600, 64)))
    x = np.rint(t / 4) * 4
    mean, power = x.mean(axis=0), x.T @ x / len(x)
    seen = layer_moments(x, t)
    exact = np.cov(x.T, bias=True)
    ridged = exact + 0.01 * (1 + 20 * 64 / 1600) * np.trace(exact) / 64 * np.eye(64)
    along = rng.choice([-1.0, 1.0], 64) / 8
    worst = np.outer(along, along) * 0.999 / (along @ np.linalg.solve(ridged, along))
    assert np.abs(worst).max() < 2 * 2.0**-23 * power.min()
    seen.hessian = ((exact - worst + np.outer(mean, mean)) * len(x))[None]
    off = {}
    for ridge in (-1.0, 0.01):
        made = reconstruct(layer, seen, Settings(8, 0, True, 0.01, ridge))
        weight = (made.codes * made.grid.columns(64))[0].T
        off[ridge] = float(np.abs(x @ weight + made.shift - t @ layer.weight).max())
    assert off[0.01] < 1.5 * off[-1.0]


def test_constant_inputs_say_nothing_beside_the_bias() -> None:
    """A channel far from zero that never varies, among others that do."""
    rng = np.random.default_rng(50)
    t = correlated(rng, 400, 24)
    t[:, 5] = 3000.7
    x = t.copy()
    x[:, 5] = 3001.0
    hessian, cross = normal_equations(layer_moments(x, t), centered=True)
    rest = np.delete(np.arange(24), 5)
    assert not hessian[0, 5].any()
    assert not hessian[0, :, 5].any()
    assert not cross[0, :, 5].any()
    exact = np.cov(x[:, rest].T, bias=True)
    assert np.abs(hessian[0][np.ix_(rest, rest)] - exact).max() < 1e-5 * exact.max()
