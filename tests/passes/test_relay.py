"""Walking a network layer by layer: what each layer is told about its input."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import QuantizeActivation, ReplaceConstant, ShiftWeight
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.quantize import Quantize
from edgevit.passes.relay import Relay, Replaced, walk
from edgevit.passes.second_moments import Moments
from edgevit.passes.shiftadd import ShiftAdd
from edgevit.passes.unpack_shifts import UnpackShifts
from edgevit.quantization import fake
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples
from tests.passes.test_compensate import context

ALL = Relay(10_000, 0)
CONV = "kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1], dilations=[1,1], group=1"


def network(rng: np.random.Generator) -> ir.Model:
    """A convolution, two layers of one input, a residual, and a layer behind all of it."""
    weights = {n: rng.normal(size=(5, 5)).astype(np.float32) / 2 for n in ("A", "B", "C")}
    return build(
        "float[1,3,4,5] x => float[1,3,4,5] y",
        f"c = Conv<{CONV}>(x, W, d)\nr = Relu(c)\n"
        "p = MatMul(r, A)\na = Add(p, e)\nb = MatMul(r, B)\ns = Sigmoid(b)\n"
        "m = Mul(a, s)\nt = Add(m, r)\ny = MatMul(t, C)",
        {
            **weights,
            "W": rng.normal(size=(3, 3, 3, 3)).astype(np.float32) / 3,
            "d": rng.normal(size=3).astype(np.float32),
            "e": rng.normal(size=5).astype(np.float32),
        },
    )


def samples(rng: np.random.Generator, count: int = 4) -> Samples:
    shape = (1, 3, 4, 5)
    return Samples(
        tuple({"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count))
    )


def forward(x: Array, w: dict[str, Array]) -> dict[str, Array]:
    """The network again, in float64."""
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    c = np.zeros((3, 4, 5))
    for dy in range(3):
        for dx in range(3):
            window = padded[:, dy : dy + 4, dx : dx + 5]
            c += np.einsum("oi,ihw->ohw", w["W"][:, :, dy, dx], window)
    r = np.maximum(c + w["d"][:, None, None], 0)
    a, b = r @ w["A"] + w["e"], r @ w["B"]
    t = a / (1 + np.exp(-b)) + r
    return {"r": r, "t": t, "y": t @ w["C"]}


def constants(model: ir.Model) -> dict[str, Array]:
    found = {}
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        found[name] = value.const_value.numpy()
    return found


def test_layers_that_stay_are_told_the_truth_twice() -> None:
    rng = np.random.default_rng(0)
    model, data = network(rng), samples(rng)
    seen: dict[str, Moments] = {}

    def keep(layer: ChannelLayer, found: Moments) -> Replaced:
        seen[layer.name] = found
        return layer.weight, layer.bias

    walk(model, list(channel_layers(model)), data, ALL, keep)
    assert list(seen) == ["c", "a", "b", "y"]
    for name, source in (("a", "r"), ("b", "r"), ("y", "t")):
        rows = [forward(s["x"], constants(model))[source].reshape(-1, 5) for s in data]
        x = np.concatenate(rows)
        cross = seen[name].cross
        assert cross is not None
        # Sums of 48 rows in float32: 1e-5 relative to the largest is far above roundoff.
        for found in (seen[name].hessian, cross):
            assert np.abs(found[0] - x.T @ x).max() < 1e-5 * np.abs(x.T @ x).max()
        assert np.allclose(seen[name].mean, seen[name].target, rtol=1e-6)


def test_layers_behind_a_changed_one_see_both_inputs() -> None:
    rng = np.random.default_rng(1)
    model, data = network(rng), samples(rng)
    changed = {"c": ("W", "d"), "a": ("A", "e"), "b": ("B", "")}
    seen: dict[str, Moments] = {}

    def coarse(layer: ChannelLayer, found: Moments) -> Replaced:
        seen[layer.name] = found
        bias = None if layer.bias is None else np.rint(layer.bias * 2) / 2
        return np.rint(layer.weight * 2) / 2, bias

    walk(model, list(channel_layers(model)), data, ALL, coarse)
    true = constants(model)
    new = {n: np.rint(true[n] * 2) / 2 for pair in changed.values() for n in pair if n}
    for name, source in (("a", "r"), ("y", "t")):
        t = np.concatenate([forward(s["x"], true)[source].reshape(-1, 5) for s in data])
        x = np.concatenate(
            [forward(s["x"], {**true, **new})[source].reshape(-1, 5) for s in data]
        )
        assert np.abs(x - t).max() > 0.05
        found = seen[name]
        assert found.cross is not None
        assert np.abs(found.hessian[0] - x.T @ x).max() < 1e-5 * np.abs(x.T @ x).max()
        assert np.abs(found.cross[0] - t.T @ x).max() < 1e-5 * np.abs(t.T @ x).max()
        assert np.allclose(found.target[0], t.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("rounded", [True, False])
def test_the_true_network_has_quantizers_of_activations_or_not(rounded: bool) -> None:
    """5 bits and a Clip in front of every layer; the sum ``t`` reads ``r`` as codes too."""
    rng = np.random.default_rng(2)
    model, data = network(rng), samples(rng)
    source, given = constants(model), context(list(data.samples))
    choice = Quantize(weights=-1, activations=5, observer="minmax", outputs="Conv")
    edits = choice.plan(model, given)
    choice.perform(model, edits)
    (coarse,) = (
        e.params for e in edits if isinstance(e, QuantizeActivation) and e.value == "x"
    )
    seen: dict[str, Moments] = {}

    def keep(layer: ChannelLayer, found: Moments) -> Replaced:
        seen[layer.name] = found
        return layer.weight, layer.bias

    walk(model, list(channel_layers(model)), data, Relay(10_000, 0, rounded), keep)
    images = [s["x"] for s in data]
    pads = ((0, 0), (0, 0), (1, 1), (1, 1))
    sums = {
        "x": sum(np.pad(fake(x, coarse), pads)[..., :4, :5].sum() for x in images),
        "t": sum(np.pad(x, pads)[..., :4, :5].sum() for x in images),
    }
    first = seen["c"]  # the corner of its filters, over the three channels
    assert np.isclose(first.mean[0, ::9].sum(), sums["x"], rtol=1e-5)
    assert np.isclose(first.target[0, ::9].sum(), sums["x" if rounded else "t"], rtol=1e-5)
    assert abs(sums["x"] - sums["t"]) > 1e-3 * abs(sums["t"])
    for name, value in (("a", "r"), ("b", "r"), ("y", "t")):
        true = np.concatenate([forward(x, source)[value].reshape(-1, 5) for x in images])
        found = seen[name]
        near = np.allclose(found.target[0], true.sum(axis=0), rtol=1e-4)
        assert near is not rounded
        assert np.allclose(found.mean, found.target, rtol=1e-6) is rounded


@pytest.mark.parametrize("seed", range(3))
def test_rounding_in_order_beats_rounding_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, depth = 24, 6
    body = "\n".join(
        f"p{i} = MatMul(h{i}, W{i})\na{i} = Add(p{i}, b{i})\nh{i + 1} = Relu(a{i})"
        for i in range(depth)
    )
    held = {
        f"W{i}": rng.normal(size=(width, width)) * (2 / width) ** 0.5 for i in range(depth)
    }
    held |= {f"b{i}": rng.normal(size=width) * 0.1 for i in range(depth)}
    held = {k: v.astype(np.float32) for k, v in held.items()}
    basis = rng.normal(size=(width, width))

    def draw(count: int) -> list[dict[str, Array]]:
        rows = (rng.normal(size=(1, 40, width)) @ basis for _ in range(count))
        return [{"h0": r.astype(np.float32)} for r in rows]

    given = context(draw(12))
    tests, errors = draw(2), {}
    for order in ("sequential", "parallel"):
        model = build(f"float[1,40,{width}] h0 => float[1,40,{width}] h{depth}", body, held)
        true = [run(model, feeds)[0] for feeds in tests]
        p = ShiftAdd(terms="1", order=order)
        edits = p.plan(model, given)
        kinds = [type(e) for e in edits]
        assert kinds == [ShiftWeight, ReplaceConstant] * depth
        p.perform(model, edits)
        UnpackShifts().call(model)
        off = [run(model, feeds)[0] - y for feeds, y in zip(tests, true, strict=True)]
        errors[order] = float(np.square(off).sum() / np.square(true).sum())
    # .54, .78 and .71 of it on these three networks.
    assert errors["sequential"] < 0.9 * errors["parallel"]


@pytest.mark.parametrize(("most", "nbytes", "seen"), [(64, 1 << 30, 4), (3, 1 << 30, 3)])
def test_only_so_many_samples_are_held(
    most: int, nbytes: int, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _rows_seen(most, nbytes, monkeypatch) == seen * 12


def test_only_so_many_bytes_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    # Widest in front of the last layer: t alone; in front of A and B: r, float32 [1,3,4,5].
    one = 2 * 4 * 60
    assert _rows_seen(64, 3 * one, monkeypatch) == 3 * 12
    assert _rows_seen(64, 3 * one - 1, monkeypatch) == 2 * 12
    assert _rows_seen(64, 0, monkeypatch) == 12  # one sample at least


def _rows_seen(most: int, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows that the last layer is shown."""
    monkeypatch.setattr("edgevit.passes.relay._MOST", most)
    monkeypatch.setattr("edgevit.passes.relay._HELD", nbytes)
    rng = np.random.default_rng(5)
    model, found = network(rng), []

    def same(layer: ChannelLayer, moments: Moments) -> Replaced:
        found.append(moments.rows)
        return layer.weight, layer.bias

    walk(model, list(channel_layers(model)), samples(rng), ALL, same)
    return int(found[-1])


def _kept(
    model: ir.Model, data: Samples, how: Relay, *, without: str = ""
) -> dict[str, Moments]:
    """What layers are shown that stay as they are."""
    seen: dict[str, Moments] = {}

    def keep(layer: ChannelLayer, found: Moments) -> Replaced:
        seen[layer.name] = found
        return layer.weight, layer.bias

    layers = [x for x in channel_layers(model) if x.name != without]
    walk(model, layers, data, how, keep)
    return seen


def _drawn(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def test_new_weights_take_no_name_that_another_constant_has() -> None:
    """``lin`` is what the first layer makes, and what parameters of the second are called."""
    rng = np.random.default_rng(6)
    held = {"W": _drawn(rng, 4, 4), "V": _drawn(rng, 4, 4), "U": _drawn(rng, 4, 4)}
    held |= {"b": _drawn(rng, 4), "c": _drawn(rng, 4)}
    model = build(
        "float[1,6,4] x => float[1,6,4] y",
        "p = MatMul(x, W)\nlin = Add(p, b)\nq = MatMul(lin, V)\nz = Add(q, c)\n"
        "y = MatMul(z, U)",
        held,
    )
    for old, new in (("V", "lin.weight"), ("c", "lin.bias")):
        value = model.graph.initializers.pop(old)
        value.name = new
        model.graph.register_initializer(value)
    data = Samples(tuple({"x": _drawn(rng, 1, 6, 4)} for _ in range(2)))
    seen = _kept(model, data, ALL, without="z")["y"]
    x = np.concatenate([s["x"][0] for s in data]).astype(np.float64)
    z = (x @ held["W"] + held["b"]) @ held["V"] + held["c"]
    assert np.allclose(seen.mean[0], z.sum(axis=0), rtol=1e-4, atol=1e-4)


def test_a_cut_between_the_halves_of_a_quantizer() -> None:
    rng = np.random.default_rng(7)
    model = build(
        "float[1,6,4] x => float[1,6,4] y",
        "r = Relu(x)\nc = QuantizeLinear(r, s, o)\np = MatMul(x, W)\n"
        "d = DequantizeLinear(c, s, o)\nq = MatMul(d, V)\ny = Add(p, q)",
        {
            "s": np.array(0.5, np.float32),
            "o": np.array(0, np.int8),
            "W": _drawn(rng, 4, 4),
            "V": _drawn(rng, 4, 4),
        },
    )
    data = Samples(tuple({"x": _drawn(rng, 1, 6, 4)} for _ in range(2)))
    rows = np.maximum(np.concatenate([s["x"][0] for s in data]), 0)
    codes = np.rint(rows * 2) / 2
    for rounded, true in ((False, rows), (True, codes)):
        seen = _kept(model, data, Relay(10_000, 0, rounded))["q"]
        assert np.allclose(seen.target[0], true.sum(axis=0), rtol=1e-5)
        assert np.allclose(seen.mean[0], codes.sum(axis=0), rtol=1e-5)
    assert np.abs(rows.sum(axis=0) - codes.sum(axis=0)).max() > 0.1
