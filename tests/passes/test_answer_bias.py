"""The last bias in front of a softmax: every answer as likely as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.edits import Edit, Remark
from edgevit.errors import InputError
from edgevit.passes.answer_bias import answer_bias, fitted_bias, gives_answers
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.compensate import Compensate
from edgevit.passes.compensated_rounding import Grid
from edgevit.passes.quantize import Quantize
from edgevit.passes.relay import Relay, Replaced, walk
from edgevit.passes.second_moments import Moments
from edgevit.passes.shift_rounding import Rounded
from edgevit.passes.shiftadd import ShiftAdd
from edgevit.passes.unpack_shifts import UnpackShifts
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples
from tests.passes.test_compensate import context

CLASSES, INPUTS, ROWS = 6, 12, 7


def softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def divergence(true: list[Array], ours: list[Array], bias: Array) -> float:
    """By the definition, in float64."""
    total = 0.0
    for t, z in zip(true, ours, strict=True):
        p, q = softmax(t), softmax(z + bias)
        total += float((p * (np.log(p) - np.log(q))).sum())
    return total


def fitted(true: list[Array], ours: list[Array]) -> Any:
    return answer_bias(lambda: zip(true, ours, strict=True))


def scores(seed: int, classes: int, gain: float, noise: float) -> tuple[list[Array], ...]:
    rng = np.random.default_rng(seed)
    true = [gain * rng.normal(size=(5, classes)) for _ in range(4)]
    off = noise * rng.normal(size=classes)
    return true, [t + off + noise * rng.normal(size=t.shape) for t in true]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(0.01, 30), st.floats(0, 10))
def test_every_class_has_its_probability_but_for_the_ridge(
    seed: int, classes: int, gain: float, noise: float
) -> None:
    """Where the sum of divergence and ridge is least its slope is zero, class by class.

    ``sum q - sum p + b = 0``. Newton's last step is below 1e-4 and the slope changes by at
    most rows + 1 for a unit of it: 21e-4. Classes with less than .02 in all are not moved.
    """
    true, ours = scores(seed, classes, gain, noise)
    found = fitted(true, ours)
    wanted = sum(softmax(t).sum(axis=0) for t in true)
    had = sum(softmax(z).sum(axis=0) for z in ours)
    now = sum(softmax(z + found.shift).sum(axis=0) for z in ours)
    seen = wanted + had > 0.02
    assert np.abs((now - wanted + found.shift)[seen]).max(initial=0) < 21e-4
    assert not found.shift[~seen].any()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(0.01, 5), st.floats(0, 3))
def test_what_it_says_is_the_divergence(
    seed: int, classes: int, gain: float, noise: float
) -> None:
    true, ours = scores(seed, classes, gain, noise)
    found = fitted(true, ours)
    before = divergence(true, ours, np.zeros(classes))
    after = divergence(true, ours, found.shift)
    # Sums of up to 180 terms in float64, each within some 1e-14.
    assert found.before == pytest.approx(before, rel=1e-9, abs=1e-10)
    assert found.after == pytest.approx(after, rel=1e-9, abs=1e-10)
    assert after <= before + 1e-10


def test_a_bias_that_was_lost_comes_back() -> None:
    """200,000 positions of four classes: the ridge of one of them is nothing beside that."""
    true = [np.random.default_rng(0).normal(size=(200_000, 4))]
    lost = np.array([0.5, -0.25, 0.0, -0.25])
    found = fitted(true, [true[0] - lost])
    assert np.abs(found.shift - lost).max() < 1e-4  # Newton's last step; ridge: 1e-5
    assert found.after < 1e-3 < 100 < found.before


def test_nothing_is_lost_and_nothing_changes() -> None:
    true, _ = scores(3, 5, 2.0, 0.0)
    found = fitted(true, true)
    # Sums of 20 probabilities differ by some 1e-15 from themselves in another order.
    assert np.abs(found.shift).max() < 1e-13
    assert abs(found.before) < 1e-13
    assert abs(found.after) < 1e-13


def test_certain_answers_that_are_wrong_do_not_run_away() -> None:
    """No bias within reach changes the answers: the ridge holds it."""
    true, ours = [np.array([[200.0, 0.0]])], [np.array([[0.0, 200.0]])]
    found = fitted(true, ours)
    assert found.shift == pytest.approx([1.0, -1.0], abs=1e-3)  # q - p + b = 0, p - q = 1


def test_a_class_that_cannot_be_stays_so() -> None:
    true, ours = scores(4, 4, 1.0, 1.0)
    banned = np.array([0, -np.inf, 0, 0])
    found = fitted([t + banned for t in true], [z + banned for z in ours])
    others = [0, 2, 3]
    expected = fitted([t[:, others] for t in true], [z[:, others] for z in ours])
    assert np.allclose(found.shift[others], expected.shift, atol=1e-9)
    assert found.shift[1] == 0
    assert found.after == pytest.approx(expected.after)


def test_scores_far_apart_are_no_overflow() -> None:
    """All 2,000 positions certain and wrong: half of the margin from each side mends them."""
    true, ours = [np.tile([900.0, 0.0], (2000, 1))], [np.tile([0.0, 900.0], (2000, 1))]
    found = fitted(true, ours)
    assert found.before == pytest.approx(2000 * 900)
    assert found.shift[0] == pytest.approx(-found.shift[1])
    # log 2000 and 450 beyond zero: probabilities q of the wrong with 2000 q = 450.
    assert 450 < found.shift[0] < 460
    assert 0 <= found.after < 1e-3 * found.before


def test_only_so_many_classes_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    true, ours = scores(6, 9, 1.0, 1.0)
    monkeypatch.setattr("edgevit.passes.answer_bias._MOST", 4)
    found = fitted(true, ours)
    often = sum(softmax(z).sum(axis=0) for z in (*true, *ours))
    assert set(np.flatnonzero(found.shift)) == set(np.argsort(-often)[:4])
    after = divergence(true, ours, found.shift)
    assert found.after == pytest.approx(after, rel=1e-9)


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused(which: int) -> None:
    (layer,) = channel_layers(network("y = Softmax<axis=-1>(a)"))
    made = Rounded(
        np.ones((1, 6, 4), np.int8), Grid(np.ones((1, 6, 1)), -1, 1), np.zeros(6), 0, 0, 0
    )
    pair = [np.zeros((2, 4)), np.zeros((2, 4))]
    pair[which][1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fitted_bias(layer, made, [(pair[0], pair[1])])


def network(end: str, extra: str = "", outputs: str = "float[2,3,6] y") -> ir.Model:
    rng = np.random.default_rng(0)
    return build(
        f"float[2,3,4] x => {outputs}",
        f"m = MatMul(x, W)\na = Add(m, b)\n{end}{extra}",
        {
            "W": rng.normal(size=(4, 6)).astype(np.float32),
            "b": rng.normal(size=6).astype(np.float32),
            "s": np.array(0.1, np.float32),
            "z": np.array(0, np.int8),
            "l": np.array(-1, np.float32),
            "h": np.array(1, np.float32),
        },
    )


# Codes of fewer than 8 bits.
CLIPPED = "c = Clip(a, l, h)\nq = QuantizeLinear(c, s, z)\nd = DequantizeLinear(q, s, z)\n"
CODED = "q = QuantizeLinear(a, s, z)\nd = DequantizeLinear(q, s, z)\n"


@pytest.mark.parametrize(
    ("end", "extra", "outputs", "expected"),
    [
        ("y = Softmax<axis=-1>(a)", "", "float[2,3,6] y", True),
        ("y = Softmax<axis=2>(a)", "", "float[2,3,6] y", True),
        (CODED + "y = Softmax<axis=-1>(d)", "", "float[2,3,6] y", True),
        (CLIPPED + "y = Softmax<axis=-1>(d)", "", "float[2,3,6] y", True),
        ("c = Clip(a, l, h)\ny = Softmax<axis=-1>(c)", "", "float[2,3,6] y", False),
        ("y = Softmax<axis=-1>(a)", "\nr = Relu(y)", "float[2,3,6] y, float[2,3,6] r", False),
        ("y = Softmax<axis=1>(a)", "", "float[2,3,6] y", False),
        ("y = Identity(a)", "", "float[2,3,6] y", False),
        ("y = Softmax<axis=-1>(a)", "\nr = Relu(a)", "float[2,3,6] y, float[2,3,6] r", False),
        ("p = Softmax<axis=-1>(a)\ny = Relu(p)", "", "float[2,3,6] y", False),
        ("p = Softmax<axis=-1>(a)", "\ny = Relu(x)", "float[2,3,4] y, float[2,3,6] p", False),
        ("y = Softmax<axis=-1>(a)", "", "float[2,3,6] y, float[2,3,6] a", False),
    ],
)
def test_which_layers_give_answers(end: str, extra: str, outputs: str, expected: bool) -> None:
    model = network(end, extra, outputs)
    for node in model.graph if "QuantizeLinear(c" in end else ():
        if node.op_type == "Clip":
            node.outputs[0].name = "a.clipped"
    (layer,) = channel_layers(model)
    assert gives_answers(layer) == expected


def test_without_a_bias_there_is_nothing_to_fit() -> None:
    model = build(
        "float[2,4] x => float[2,6] y",
        "m = MatMul(x, W)\ny = Softmax<axis=-1>(m)",
        {"W": np.ones((4, 6), np.float32)},
    )
    (layer,) = channel_layers(model)
    assert not gives_answers(layer)


def test_new_weights_get_the_bias_that_their_answers_want() -> None:
    rng = np.random.default_rng(5)
    (layer,) = channel_layers(network("y = Softmax<axis=-1>(a)"))
    codes = np.rint(4 * layer.matrix()).astype(np.int8)
    grid = Grid(np.full((1, 6, 1), 0.25), -127, 127)
    shift = rng.normal(size=6)
    made = Rounded(codes, grid, shift, 0.0, 0.0, 0.0)
    t = [rng.normal(size=(9, 4)) for _ in range(3)]
    x = [a + 0.1 * rng.normal(size=a.shape) for a in t]
    said = fitted_bias(layer, made, list(zip(x, t, strict=True)))
    assert layer.bias is not None
    true = [a @ layer.weight.astype(np.float64) + layer.bias for a in t]
    ours = [a @ (0.25 * codes[0].T) + layer.bias + shift for a in x]
    expected = fitted(true, ours)
    assert np.abs(expected.shift).max() > 0.1
    assert np.allclose(said.shift, expected.shift, atol=1e-9)
    assert said.before == pytest.approx(expected.before)


def recognizer(rng: np.random.Generator) -> ir.Model:
    """Two layers in front of a softmax; the last class is rare and seldom certain."""
    start = np.zeros(CLASSES, np.float32)
    start[-1] = -1.0
    first = rng.normal(size=(INPUTS, INPUTS)) / 2
    last = 1.5 * rng.normal(size=(INPUTS, CLASSES))
    return build(
        f"float[1,{ROWS},{INPUTS}] x => float[1,{ROWS},{CLASSES}] y",
        "m = MatMul(x, A)\na = Add(m, c)\nr = Relu(a)\n"
        "n = MatMul(r, B)\ns = Add(n, d)\ny = Softmax<axis=-1>(s)",
        {
            "A": first.astype(np.float32),
            "B": last.astype(np.float32),
            "c": np.zeros(INPUTS, np.float32),
            "d": start,
        },
    )


def inputs(rng: np.random.Generator, count: int) -> Samples:
    shape = (1, ROWS, INPUTS)
    return Samples(
        tuple({"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count))
    )


def likely(model: ir.Model, data: Samples) -> Array:
    """Sum of every class's probability over all positions."""
    found = [run(model, s)[0].astype(np.float64) for s in data.samples]
    return np.asarray(np.concatenate(found).reshape(-1, CLASSES).sum(axis=0))


def shifted(model: ir.Model, data: Samples) -> tuple[Edit, ...]:
    chosen = ShiftAdd(terms="1")
    edits = chosen.plan(model, context(list(data.samples)))
    chosen.perform(model, edits)
    UnpackShifts().call(model)
    return edits


def compensated(model: ir.Model, data: Samples) -> tuple[Edit, ...]:
    chosen = Compensate(weights=3, order="sequential")
    edits = chosen.plan(model, context(list(data.samples)))
    chosen.perform(model, edits)
    return edits


@pytest.mark.parametrize("rounded", [shifted, compensated])
def test_a_rounded_network_answers_as_often_as_before(
    rounded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the samples it was fitted to, but for the ridge and 210 positions in float32."""
    rng = np.random.default_rng(1)
    model, data = recognizer(rng), inputs(rng, 30)
    true, off = likely(model, data), {}
    for fits in (True, False):
        tried = model.clone()
        with monkeypatch.context() as patch:
            if not fits:
                patch.setattr("edgevit.passes.relay.gives_answers", lambda layer: False)
            edits = rounded(tried, data)
        said = [e.text for e in edits if isinstance(e, Remark) and "answers" in e.text]
        assert bool(said) is fits
        off[fits] = np.abs(likely(tried, data) - true).max()
        if fits:
            before, after = (
                float(t.split()[0]) for t in said[0].split("nats: ")[1].split(", ")
            )
            assert after < before
    # Positions: .52 and 4.05 of shifts, .23 and 1.75 of 3-bit codes.
    assert off[True] < off[False] / 4


@pytest.mark.parametrize("exact", [True, False])
def test_truth_has_no_quantizers(exact: bool) -> None:
    """Whatever layers before the last make good for: both kinds of walks."""
    rng = np.random.default_rng(2)
    model, data = recognizer(rng), inputs(rng, 6)
    held = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}  # type: ignore[union-attr]
    chosen = Quantize(weights=-1, activations=4, observer="minmax")
    chosen.perform(model, chosen.plan(model, context(list(data.samples))))
    seen: list[tuple[Array, Array]] = []

    def coarse(layer: ChannelLayer, found: Moments) -> Replaced:
        return np.rint(2 * layer.weight) / 2, layer.bias

    def settle(layer: ChannelLayer, pairs: Any) -> None:
        assert layer.name == "s"
        seen.extend(pairs)

    how = Relay(10_000, 0, rounded=exact)
    walk(model, list(channel_layers(model)), data, how, coarse, settle)
    assert len(seen) == len(data.samples)
    for (x, t), sample in zip(seen, data.samples, strict=True):
        true = np.maximum(sample["x"][0].astype(np.float64) @ held["A"], 0)
        assert np.abs(t - true).max() < 1e-5 * np.abs(true).max()  # 12 products in float32
        assert len(np.unique(x)) <= 16 < len(np.unique(t))


def test_a_walk_over_other_networks_settles_nothing() -> None:
    rng = np.random.default_rng(3)
    model = network("y = Identity(a)")
    data = Samples(({"x": rng.normal(size=(2, 3, 4)).astype(np.float32)},))

    def keep(layer: ChannelLayer, found: Moments) -> Replaced:
        return layer.weight, layer.bias

    def settle(layer: ChannelLayer, pairs: Any) -> None:
        raise AssertionError

    walk(model, list(channel_layers(model)), data, Relay(10, 0), keep, settle)
