"""Joint choice of granularity, scheme and scale, and what an error is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import FoldChannels, KeepFloat, QuantizeActivation, QuantizeWeight
from edgevit.errors import UsageError
from edgevit.passes import output_weights
from edgevit.passes.bridge_quant import BridgeQuant
from edgevit.passes.bridge_weights import importance
from edgevit.passes.channel_layers import channel_layers
from edgevit.passes.joint_search import (
    Format,
    Reader,
    activation_error,
    search_input,
    search_weight,
)
from edgevit.passes.output_weights import (
    Probe,
    curvature,
    divergence,
    forward_weights,
    probabilities,
    weighted_loss,
)
from edgevit.passes.subgraphs import between
from edgevit.pipeline import Context
from edgevit.quantization import Range, fake, parameters
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples, canonical, quick
from tests.passes.test_compensate import scheme

FIXTURES = Path(__file__).parents[1] / "fixtures"


def values(model: ir.Model, samples: Samples, values: list[str]) -> list[dict[str, Array]]:
    """``statistics.stream`` in the harness's worker."""
    inputs = {str(v.name) for v in model.graph.inputs}
    inner = [v for v in values if v not in inputs]
    found = quick(model, samples, inner) if inner else [{} for _ in samples]
    return [
        {**f, **{v: s[v] for v in values if v in inputs}}
        for f, s in zip(found, samples, strict=True)
    ]


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.passes.bridge_quant.stream", values)
    monkeypatch.setattr("edgevit.passes.bridge_weights.stream", values)


def reader(rng: np.random.Generator, o: int = 8, i: int = 12, rows: int = 300) -> Reader:
    x = rng.normal(size=(1, rows, i)).astype(np.float32) * 2 + 0.7
    weight = rng.normal(size=(1, o, i)).astype(np.float32)
    return Reader(x, weight, x @ weight.swapaxes(1, 2), np.ones((1, o)))


@pytest.mark.parametrize("bits", [8, 4])
def test_the_search_is_as_good_as_brute_force(bits: int) -> None:
    rng = np.random.default_rng(bits)
    one = reader(rng)
    span = Range(np.asarray(one.rows.min()), np.asarray(one.rows.max()))
    form = Format("uint8", bits, ("asymmetric", "symmetric"))
    params, _ = search_input([one], span, form, rng)
    found = activation_error([one], params)
    grid = np.linspace(0.2, 1.2, 26)
    tried = [
        parameters(Range(span.low * a, span.high * b), "uint8", "asymmetric", bits)
        for a in grid
        for b in grid
    ]
    assert found <= 1.1 * min(activation_error([one], p) for p in tried)


def test_unimportant_outputs_do_not_steer() -> None:
    """An input that only a worthless output reads may be clipped away."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1, 400, 2)).astype(np.float32)
    rows[..., 1] *= 50
    weight = np.eye(2, dtype=np.float32)[None]
    span = Range(np.asarray(rows.min()), np.asarray(rows.max()))
    form = Format("int8", 4, ("symmetric",))
    steps = {}
    for worth in (1.0, 0.0):
        one = Reader(rows, weight, rows.copy(), np.array([[1.0, worth]]))
        params, _ = search_input([one], span, form, rng)
        steps[worth] = float(params.scale)
    assert steps[0.0] < 0.1 * steps[1.0]


def test_sketches_keep_sums_of_squares() -> None:
    rng = np.random.default_rng(2)
    one = reader(rng, o=200, i=40)
    params = parameters(Range(np.asarray(-5.0), np.asarray(6.0)), "uint8", "asymmetric", 4)
    true, short = (r.error(fake(r.rows, params)) for r in (one, one.sketched(rng)))
    assert 0.75 * true < short < 1.25 * true


def test_weight_scales_are_the_best_of_those_tried() -> None:
    rng = np.random.default_rng(3)
    one = reader(rng)
    scale = search_weight(one, one.weight, 7, one.rows)[:, :, None]
    made = np.clip(np.rint(one.weight / scale), -7, 7) * scale
    plain = np.abs(one.weight).max(axis=2, keepdims=True) / 7
    rough = np.clip(np.rint(one.weight / plain), -7, 7) * plain
    better, worse = (
        np.square(one.target - one.rows @ w.swapaxes(1, 2)).mean() for w in (made, rough)
    )
    assert better < worse


def test_curvature_of_a_softmax_is_known() -> None:
    """For y = x A the Hessian of the divergence is A^T (diag p - p p^T) A."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(6, 5)).astype(np.float32)
    model = build("float[1,6] x => float[1,5] y", "v = Relu(x)\ny = MatMul(v, A)", {"A": a})
    v = np.abs(rng.normal(size=(1, 6))).astype(np.float32)
    p = probabilities(v @ a)[0]
    expected = np.einsum("ic,cd,id->i", a, np.diag(p) - np.outer(p, p), a)
    start = next(o for n in model.graph for o in n.outputs if o.name == "v")
    piece = between(model, start, model.graph.outputs)
    assert piece.inputs == ("v",)
    found = forward_weights(piece, 1, [{"v": v}], Probe(1, groups=0))
    # the step of 0.1 is not infinitesimal: the fourth order is what is left
    assert np.allclose(found, expected, rtol=0.05)
    with pytest.MonkeyPatch.context() as patch:  # a mutant: float32's noise takes over
        patch.setattr(output_weights, "STEP", 1e-8)
        noise = forward_weights(piece, 1, [{"v": v}], Probe(1, groups=0))
    assert not np.allclose(noise, expected, rtol=0.5)


def test_curvature_is_a_mean_over_positions() -> None:
    rng = np.random.default_rng(5)
    model = build(
        "float[1,4,6] x => float[1,4,3] y",
        "v = Relu(x)\ny = MatMul(v, A)",
        {"A": rng.normal(size=(6, 3)).astype(np.float32)},
    )
    start = next(o for n in model.graph for o in n.outputs if o.name == "v")
    piece = between(model, start, model.graph.outputs)
    v = rng.normal(size=(1, 4, 6)).astype(np.float32)
    worth = np.array([1.0, 2.0, 5.0])
    found = forward_weights(piece, 2, [{"v": v}], Probe(1, groups=0), weighted_loss(worth, 2))
    a = next(iter(model.graph.initializers.values())).const_value
    assert a is not None
    assert np.allclose(found, (a.numpy() ** 2 * worth).sum(axis=1), rtol=1e-3)


def test_divergence() -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    assert divergence(p, p) == 0
    assert np.isclose(divergence(p, q), 0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert np.allclose(probabilities(q), q)
    assert np.allclose(probabilities(np.array([[0.0, np.log(3)]])), q)
    assert curvature(0.5, 0.5, 1.0) == 1.0


def test_a_piece_computes_what_the_whole_does() -> None:
    rng = np.random.default_rng(6)
    model = build(
        "float[1,6] x => float[1,6] y",
        "a = Relu(x)\nb = Sigmoid(a)\nc = MatMul(b, W)\nd = Add(c, a)\ny = Tanh(d)",
        {"W": rng.normal(size=(6, 6)).astype(np.float32)},
    )
    made = {str(o.name): o for n in model.graph for o in n.outputs}
    piece = between(model, made["b"], [made["d"]])
    assert piece.inputs == ("b", "a")
    x = rng.normal(size=(1, 6)).astype(np.float32)
    whole = dict(zip("abd", next(iter(_all(model, x, "abd"))), strict=True))
    part = ir.from_proto(__import__("onnx").load_model_from_string(piece.content))
    assert np.array_equal(run(part, {k: whole[k] for k in piece.inputs})[0], whole["d"])
    with pytest.raises(ValueError, match="depends"):
        between(model, made["d"], [made["b"]])


def _all(model: ir.Model, x: Array, names: str) -> list[list[Array]]:
    return [list(f.values()) for f in quick(model, [{"x": x}], list(names))]


def images(count: int) -> Samples:
    with np.load(FIXTURES / "data" / "fashion_test_500.npz") as data:
        raw = data["images"][:count].astype(np.float32)
    return Samples(tuple({"x": ((i / 255 - 0.286) / 0.353)[None, None]} for i in raw))


@pytest.mark.usefixtures("in_worker")
def test_layers_inside_of_bridges_are_weighed_at_the_exit() -> None:
    model = canonical("fashion_hybrid_ts.onnx")
    layers = list(channel_layers(model))
    found = importance(model, layers, images(1), Probe(1, groups=3), "bridges")
    uneven = [n for n, w in found.items() if np.ptp(w) > 0]
    assert 2 <= len(uneven) < len(layers)
    assert all(w.min() > 0 for w in found.values())
    flat = importance(model, layers, images(1), Probe(1), "none")
    assert all(np.all(w == 1) for w in flat.values())


@pytest.mark.usefixtures("in_worker")
@pytest.mark.parametrize(("bits", "explicit"), [(4, True)])
def test_a_hybrid_survives(bits: int, explicit: bool) -> None:
    model = canonical("fashion_hybrid_ts.onnx")
    samples = images(10)
    narrow = {} if bits == 8 else {"weight_bits": bits, "activation_bits": bits}
    context = Context(Samples(samples.samples[:6]), scheme(**narrow), "test")
    p = BridgeQuant(rounds=2, rows=60, probes=1, explicit=explicit)
    edits = p.plan(model, context)
    kinds = [type(e) for e in edits]
    assert FoldChannels in kinds
    assert kinds.count(QuantizeWeight) == sum(1 for _ in channel_layers(model))
    assert QuantizeActivation in kinds
    feeds = samples.samples[6:]
    before = np.concatenate([run(model, f)[0] for f in feeds])
    outcome = p.perform(model, edits)
    assert outcome.modified
    off = np.concatenate([run(model, f)[0] for f in feeds]) - before
    sqnr = 10 * np.log10(np.square(before).sum() / np.square(off).sum())
    assert sqnr > {8: 25.0, 4: 5.0}[bits]


@pytest.mark.usefixtures("in_worker")
def test_a_range_without_zero_is_said() -> None:
    rng = np.random.default_rng(7)
    model = build(
        "float[1,8] x => float[1,4] y",
        "s = Sigmoid(x)\nt = Add(s, three)\ny = MatMul(t, W)",
        {"three": np.array(3.0, np.float32), "W": rng.normal(size=(8, 4)).astype(np.float32)},
    )
    feeds = [{"x": rng.normal(size=(1, 8)).astype(np.float32)} for _ in range(4)]
    context = Context(Samples(tuple(feeds)), scheme(), "test")
    p = BridgeQuant(granularity=False, hessian="none", scheme="device")
    edits = p.plan(model, context)
    assert any(isinstance(e, KeepFloat) and "zero point" in e.reason for e in edits)
    y = run(model, feeds[0])[0]
    p.perform(model, edits)
    # repaired: the range 0..4 in 255 steps, and no collapse
    assert np.abs(run(model, feeds[0])[0] - y).max() < 0.02 * np.abs(y).max()


def _two_layers() -> tuple[ir.Model, Samples]:
    """``hard`` reads outliers that hide the rest from a coarse step, ``easy`` even numbers."""
    rng = np.random.default_rng(11)
    model = build(
        "float[64,8] x, float[64,8] z => float[64,4] y",
        "hard = Neg(x)\neasy = Neg(z)\n"
        "a = MatMul(hard, A)\nb = MatMul(easy, B)\ny = Add(a, b)",
        {n: rng.normal(size=(8, 4)).astype(np.float32) for n in ("A", "B")},
    )
    x = rng.normal(size=(4, 64, 8)).astype(np.float32)
    x[:, 0, :] *= 30
    z = rng.uniform(-1, 1, size=(4, 64, 8)).astype(np.float32)
    feeds = tuple({"x": a, "z": b} for a, b in zip(x, z, strict=True))
    return model, Samples(feeds)


@pytest.mark.usefixtures("in_worker")
@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, {"hard": 16, "easy": 16}),
        (0.4, {"hard": 16, "easy": 16}),  # each layer has half of the products: none fits
        (0.5, {"hard": 256, "easy": 16}),
        (1.0, {"hard": 256, "easy": 256}),
    ],
)
def test_the_worst_inputs_are_widened_first(share: float, expected: dict[str, int]) -> None:
    model, samples = _two_layers()
    context = Context(samples, scheme(activation_bits=4), "test")
    p = BridgeQuant(granularity=False, hessian="none", scheme="device", widen=share)
    edits = [e for e in p.plan(model, context) if isinstance(e, QuantizeActivation)]
    assert {e.value: e.params.high - e.params.low + 1 for e in edits} == expected


def test_options_are_checked() -> None:
    model = canonical("fashion_hybrid_ts.onnx")
    for wrong, named in (
        (BridgeQuant(hessian="full"), "hessian"),
        (BridgeQuant(widen=2), "widen"),
    ):
        with pytest.raises(UsageError, match=named):
            wrong.plan(model, Context(images(1), scheme(), "test"))
