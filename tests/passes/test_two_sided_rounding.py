"""Output channels that make good for each other: closed forms, and never more error."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.edits import QuantizeWeight, Remark, ShiftWeight
from edgevit.errors import Availability, BackendMissingError, UsageError
from edgevit.passes.bridge_weights import _axis
from edgevit.passes.channel_layers import channel_layers
from edgevit.passes.compensate import Compensate, CorrectBias
from edgevit.passes.compensated_rounding import Grid, Order, compensated, damped
from edgevit.passes.coordinate_descent import descend
from edgevit.passes.output_weights import Probe, probabilities
from edgevit.passes.reconstruct_weights import normal_equations, ridge_of
from edgevit.passes.second_moments import Moments
from edgevit.passes.shift_rounding import How, form_of, round_layer
from edgevit.passes.shiftadd import ShiftAdd, ShiftRound
from edgevit.passes.two_sided_rounding import joint_error, rounded_together
from edgevit.shift_codes import Packed, decode
from tests.passes.harness import Array, build
from tests.passes.test_bridge_quant import FIXTURES, images
from tests.passes.test_compensate import context, correlated, layer_moments, linear, second
from tests.passes.test_gradient_weights import blob, known
from tests.support import torch_worker

RTOL, ATOL = 1e-11, 1e-13


def few_directions(rng: np.random.Generator, outputs: int, rank: int) -> Array:
    """G of outputs of which a few combinations decide."""
    basis = rng.normal(size=(rank, outputs))
    return np.asarray(basis.T @ basis)


def inputs_of(hessian: Array) -> tuple[Order, Array]:
    return Order.of(hessian[None], 1e-9), hessian


def one_by_one(weight: Array, grid: Grid, hessian: Array) -> Array:
    order = Order.of(hessian[None], 1e-9)
    return descend(weight, compensated(weight, grid, order), grid, hessian[None], 1)


def test_outputs_that_do_not_depend_on_each_other_are_rounded_one_by_one() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 40, 12)) * 3
    hessian = second(correlated(rng, 400, 12))[0]
    grid = Grid(np.ones((1, 40, 1)), -7, 7)
    worth = np.diag(rng.uniform(0.5, 2, 40))
    alone = one_by_one(weight, grid, hessian)
    start = np.zeros_like(alone)
    assert np.array_equal(
        rounded_together(weight, start, grid, inputs_of(hessian), worth), alone
    )


@pytest.mark.parametrize("outputs", [2, 48, 60])
def test_what_follows_answers_a_block_as_well_as_it_can(outputs: int) -> None:
    """With fine grids behind the first block the error left is the Schur complement's.

    The others' best answer to ``E_b`` leaves ``tr(S E_b H E_b^T)``,
    ``S = G_bb - G_bl G_ll^-1 G_lb``; grids of 1e-6 add no more than that times its weight.
    """
    rng = np.random.default_rng(outputs)
    block = -(-outputs // 24)
    weight = rng.normal(size=(1, outputs, 8)) * 2
    hessian = second(correlated(rng, 400, 8))[0]
    worth = few_directions(rng, outputs, outputs) / outputs + np.eye(outputs)
    # the largest on the diagonal come first: any rows, not the first ones
    first = rng.permutation(outputs)[:block]
    worth[np.ix_(first, first)] += 50 * (0.2 * np.eye(block) + 0.8)
    scale = np.full((1, outputs, 1), 1e-6)
    scale[0, first] = 1.0
    grid = Grid(scale, -(2**27), 2**27)
    start = np.zeros((1, outputs, 8))
    found = rounded_together(weight, start, grid, inputs_of(hessian), worth)
    off = weight[0] - found[0] * scale[0]
    last = np.setdiff1d(np.arange(outputs), first)
    cross = worth[np.ix_(first, last)]
    schur = worth[np.ix_(first, first)] - cross @ np.linalg.solve(
        worth[np.ix_(last, last)], cross.T
    )
    assert np.abs(off[first]).max() > 0.1
    expected = joint_error(off[first], hessian, schur)
    assert np.isclose(joint_error(off, hessian, worth), expected, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_no_layer_is_rounded_worse_together(
    outputs: int, inputs: int, rank: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(1, outputs, inputs)) * 3
    hessian = second(correlated(rng, 60, inputs))[0] + 0.01 * np.eye(inputs)
    worth = damped(few_directions(rng, outputs, rank), 0.1)
    grid = Grid(np.ones((1, outputs, 1)), -7, 7)
    alone = one_by_one(weight, grid, hessian)
    found = rounded_together(weight, alone, grid, inputs_of(hessian), worth)
    before, after = (
        joint_error(weight[0] - codes[0], hessian, worth) for codes in (alone, found)
    )
    assert after <= before
    assert found.shape == weight.shape
    assert found.dtype == grid.dtype
    assert np.abs(found).max() <= 7


def test_a_few_directions_that_decide_are_hit_much_better() -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(1, 96, 48)) * 3
    hessian = second(correlated(rng, 400, 48))[0] + 0.01 * np.eye(48)
    worth = damped(few_directions(rng, 96, 6), 0.01)
    grid = Grid(np.ones((1, 96, 1)), -7, 7)
    alone = one_by_one(weight, grid, hessian)
    found = rounded_together(weight, alone, grid, inputs_of(hessian), worth)
    before, after = (
        joint_error(weight[0] - codes[0], hessian, worth) for codes in (alone, found)
    )
    assert after < 0.2 * before


def test_gradients_that_are_all_zero_leave_outputs_alone() -> None:
    assert np.array_equal(damped(np.zeros((3, 3)), 0.1), np.eye(3))


# --- in the pass -----------------------------------------------------------------------------


def answers_off(model: ir.Model, codes: Array, worth: Array, x: Array) -> float:
    """Mean squared error of a layer's output in the metric of its worth."""
    (layer,) = channel_layers(model)
    off = (x - x.mean(axis=0)) @ (codes - layer.weight)
    return float(np.einsum("ro,op,rp->", off, worth, off)) / len(x)


@pytest.mark.parametrize("form", ["1", "2", "int4"])
@pytest.mark.parametrize("free", [False, True])
def test_a_layer_is_closer_where_it_matters(form: str, free: bool) -> None:
    rng = np.random.default_rng(5)
    model = linear(rng, 48, 32)
    (layer,) = channel_layers(model)
    x = correlated(rng, 2000, 48)
    worth = few_directions(rng, 32, 3)
    seen, shape = layer_moments(x, x), form_of(form, False, free, "")
    alone, together = (
        round_layer(layer, seen, shape, How(together=0.01), w) for w in (None, worth)
    )
    off = [
        answers_off(model, (m.codes * m.grid.columns(48))[0].T, worth, x)
        for m in (alone, together)
    ]
    assert off[1] < 0.4 * off[0]


@pytest.mark.parametrize("form", ["1", "int4"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("kind", ["zero", "diagonal", "full", "few", "one output"])
def test_no_layer_is_worse_than_one_whose_outputs_are_alone(
    form: str, free: bool, kind: str
) -> None:
    """In the very metric that is made small, against descent and fitted scales too."""
    outputs = 1 if kind == "one output" else 32
    shape = form_of(form, False, free, "")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        (layer,) = channel_layers(linear(rng, 24, outputs))
        x = correlated(rng, 500, 24)
        worth = {
            "zero": np.zeros((outputs, outputs)),
            "diagonal": np.diag(rng.uniform(0.5, 2, outputs)),
            "full": few_directions(rng, outputs, 64),
            "few": few_directions(rng, outputs, 3),
            "one output": np.ones((outputs, outputs)),
        }[kind]
        seen, how = layer_moments(x, x), How()
        alone, together = (round_layer(layer, seen, shape, how, w) for w in (None, worth))
        hessian, _ = normal_equations(seen, centered=True)
        ridged = damped(hessian[0], ridge_of(how.damping, 24, seen.rows))
        before, after = (
            joint_error(
                layer.matrix()[0] - made.codes[0] * made.grid.columns(24)[0],
                ridged,
                damped(worth, how.together),
            )
            for made in (alone, together)
        )
        assert after <= before * (1 + 1e-9)


def test_products_with_roundoff_are_taken_with_next_to_no_ridge() -> None:
    """float32 products of few rows have negative eigenvalues of their roundoff's size."""
    rng = np.random.default_rng(14)
    rows = rng.normal(size=(5, 64)).astype(np.float32)
    worth = rows.T @ rows
    assert np.linalg.eigvalsh(worth.astype(np.float64)).min() < 0
    (layer,) = channel_layers(linear(rng, 24, 64))
    x = correlated(rng, 500, 24)
    shape = form_of("1", False, False, "")
    round_layer(layer, layer_moments(x, x), shape, How(together=1e-9), worth)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
@pytest.mark.parametrize("kind", [ShiftAdd, Compensate])
def test_every_layer_has_its_own_products_and_the_pass_its_options(
    monkeypatch: pytest.MonkeyPatch, order: str, kind: type[ShiftAdd] | type[Compensate]
) -> None:
    rng = np.random.default_rng(15)
    model = build(
        "float[1,40,24] x => float[1,40,32] y",
        "a = MatMul(x, W)\nr = Relu(a)\ny = MatMul(r, V)",
        {
            "W": rng.normal(size=(24, 32)).astype(np.float32),
            "V": rng.normal(size=(32, 32)).astype(np.float32),
        },
    )
    samples = context([{"x": correlated(rng, 40, 24)[None].astype(np.float32)}] * 3)
    worth = {name: few_directions(rng, 32, 3) for name in ("a", "y")}
    asked: list[Probe] = []

    def products(model: ir.Model, layers: object, data: object, probe: Probe) -> object:
        asked.append(probe)
        return worth

    given_to: list[tuple[float, float]] = []

    def spy(matrix: Array, share: float) -> Array:
        names = [n for n, w in worth.items() if np.array_equal(w, matrix)]
        if names:
            given_to.append((names[0] == "y", share))
        return damped(matrix, share)

    monkeypatch.setattr("edgevit.passes.output_worth.gradient_products", products)
    module = "shift_rounding" if kind is ShiftAdd else "reconstruct_weights"
    monkeypatch.setattr(f"edgevit.passes.{module}.damped", spy)
    p = kind(order=order, curvature="gradient", together=0.03, probes=2)
    p.plan(model, replace(samples, seed=7))
    assert asked == [Probe(2, seed=7)]
    assert given_to == [(False, 0.03), (True, 0.03)]


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        ("y = MatMul(x, W)", 3),
        ("p = MatMul(x, W)\ny = Add(p, b)", 3),
        ("p = MatMul(x, W)\ny = Add(b, p)", 3),
        ("y = Relu(x)", 1),
        ("y = Add(x, x)", 1),
    ],
)
def test_channels_of_linear_layers_are_the_last_axis(body: str, axis: int) -> None:
    model = build(
        "float[1,4,4,4] x => float[1,4,4,4] y",
        body,
        {"W": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)},
    )
    assert _axis(model.graph.outputs[0]) == axis


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_the_plan_hands_every_layer_its_own(
    monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    rng = np.random.default_rng(6)
    model = linear(rng, 48, 32)
    samples = context([{"x": correlated(rng, 40, 48)[None].astype(np.float32)}] * 3)
    used = 2 if order == "sequential" else 3
    worth = few_directions(rng, 32, 3).astype(np.float32)
    monkeypatch.setattr(
        "edgevit.passes.output_worth.gradient_products",
        lambda model, layers, samples, probe: {layer.name: worth for layer in layers},
    )
    (x,) = {float(f["x"].sum()): f["x"][0] for f in samples.data("test")}.values()
    off = {}
    for curvature in ("none", "gradient"):
        probes = 2 if order == "sequential" else 256
        p = ShiftAdd(terms="1", order=order, curvature=curvature, together=0.01, probes=probes)
        edits = p.plan(model, samples)
        (made,) = [e for e in edits if isinstance(e, ShiftWeight)]
        packed = Packed(made.codes, made.signs, made.inputs)
        off[curvature] = answers_off(model, decode(packed) * made.scale, worth, x)
        said = [e.text for e in edits if isinstance(e, Remark)]
        assert any(f"gradients through torch, {used} samples" in text for text in said) == (
            curvature == "gradient"
        )
    assert off["gradient"] < 0.4 * off["none"]


def remarks(edits: Sequence[object]) -> str:
    return "".join(e.text for e in edits if isinstance(e, Remark))


def test_convolutions_of_several_groups_have_no_part_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(7)
    model = build(
        "float[1,8,6,6] x => float[1,8,6,6] y",
        "a = Conv<group=8,pads=[1,1,1,1]>(x, D)\ny = Conv(a, P)",
        {
            "D": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
            "P": rng.normal(size=(8, 8, 1, 1)).astype(np.float32),
        },
    )
    asked: list[str] = []

    def products(model: ir.Model, layers: list[object], *rest: object) -> dict[str, Array]:
        names = [str(layer.name) for layer in layers]  # type: ignore[attr-defined]
        asked.extend(names)
        return {name: np.eye(8, dtype=np.float32) for name in names}

    monkeypatch.setattr("edgevit.passes.output_worth.gradient_products", products)
    samples = context([{"x": rng.normal(size=(1, 8, 6, 6)).astype(np.float32)}])
    edits = ShiftAdd(terms="1", curvature="gradient").plan(model, samples)
    assert asked == ["y"]
    assert sum(isinstance(e, ShiftWeight) for e in edits) == 2
    assert "outputs of 1 of 2 layers" in "".join(
        e.text for e in edits if isinstance(e, Remark)
    )
    monkeypatch.setattr("edgevit.passes.output_worth._WIDEST", 7)
    edits = ShiftAdd(terms="1", curvature="gradient").plan(model, samples)
    assert "outputs of 0 of 2 layers" in "".join(
        e.text for e in edits if isinstance(e, Remark)
    )
    assert asked == ["y"]


def test_groups_that_are_given_products_all_the_same_round_by_themselves() -> None:
    rng = np.random.default_rng(13)
    weight = rng.normal(size=(8, 1, 3, 3)).astype(np.float32)
    model = build(
        "float[1,8,6,6] x => float[1,8,6,6] y",
        "y = Conv<group=8,pads=[1,1,1,1]>(x, D)",
        {"D": weight},
    )
    (layer,) = channel_layers(model)
    seen = Moments.empty(8, 9, True)
    x = rng.normal(size=(8, 50, 9)).astype(np.float32)
    seen.add(x, x)
    shape = form_of("1", False, False, "")
    alone, given_all = (
        round_layer(layer, seen, shape, How(), w) for w in (None, np.ones((8, 8)))
    )
    assert np.array_equal(alone.codes, given_all.codes)


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Availability("torch", False, "", "torch is not installed", "torch")
    monkeypatch.setattr("edgevit.torchgraph.interpret.probe", lambda: missing)
    rng = np.random.default_rng(8)
    model = linear(rng)
    samples = context([{"x": np.ones((1, 40, 24), np.float32)}])
    with pytest.raises(BackendMissingError, match="torch") as caught:
        ShiftAdd(curvature="gradient").plan(model, samples)
    assert caught.value.exit_code == 3
    assert "edgevit[torch]" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"curvature": "forward"}, "curvature is 'forward'"),
        ({"together": 0.0}, "together"),
        ({"together": float("nan")}, "together"),
        ({"probes": 0}, "probes"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], said: str) -> None:
    rng = np.random.default_rng(9)
    samples = context([{"x": np.ones((1, 40, 24), np.float32)}])
    with pytest.raises(UsageError, match=said):
        ShiftAdd(**options).plan(linear(rng), samples)  # type: ignore[arg-type]


def test_nearest_codes_take_no_gradients() -> None:
    rng = np.random.default_rng(10)
    samples = context([{"x": np.ones((1, 40, 24), np.float32)}])
    with pytest.raises(UsageError, match="gradients need calibration data"):
        ShiftRound(curvature="gradient").plan(linear(rng), samples)
    with pytest.raises(UsageError, match="nearest codes take no gradients"):
        CorrectBias(curvature="gradient").plan(linear(rng), samples)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
@pytest.mark.parametrize("widen", [0.0, 2.0])
def test_plain_integers_are_rounded_together_too(
    monkeypatch: pytest.MonkeyPatch, order: str, widen: float
) -> None:
    rng = np.random.default_rng(12)
    model = linear(rng, 48, 32)
    samples = context([{"x": correlated(rng, 40, 48)[None].astype(np.float32)}])
    worth = few_directions(rng, 32, 3).astype(np.float32)
    monkeypatch.setattr(
        "edgevit.passes.output_worth.gradient_products",
        lambda model, layers, samples, probe: {layer.name: worth for layer in layers},
    )
    x = next(iter(samples.data("test")))["x"][0]
    off = {}
    for curvature in ("none", "gradient"):
        p = Compensate(weights=4, order=order, widen=widen, curvature=curvature, together=0.01)
        edits = p.plan(model, samples)
        (made,) = [e for e in edits if isinstance(e, QuantizeWeight)]
        assert made.params.high == (127 if widen else 7)
        assert made.codes is not None
        off[curvature] = answers_off(model, made.codes * made.params.scale, worth, x)
        said = [e.text for e in edits if isinstance(e, Remark)]
        assert any("gradients through torch, 1 samples" in text for text in said) == (
            curvature == "gradient"
        )
    assert off["gradient"] < 0.4 * off["none"]


# --- gradients, where torch is ---------------------------------------------------------------


def matrix(model: ir.Model, feeds: dict[str, Array], axis: int = 2, mutant: str = "") -> Array:
    draws = {"count": 64, "dtype": "float64"}
    found = ask_products(model, feeds, {"v": axis}, draws, mutant)
    return found["v"]


def ask_products(
    model: ir.Model,
    feeds: dict[str, Array],
    axes: dict[str, int],
    draws: dict[str, object],
    mutant: str = "",
) -> dict[str, Array]:
    made: dict[str, Array] = torch_worker.ask(
        "products", model=blob(model), axes=axes, samples=[feeds], draws=draws, mutant=mutant
    )
    return made


def expected_matrix(feeds: dict[str, Array], a: Array) -> Array:
    """Mean over rows of ``diag(d) A (diag p - p p^T) A^T diag(d)``."""
    wide = a.astype(np.float64)
    hidden = np.tanh(-feeds["x"][0].astype(np.float64))
    slope, p = 1 - hidden**2, probabilities(hidden @ wide)
    total = np.zeros((6, 6))
    for d, q in zip(slope, p, strict=True):
        total += np.outer(d, d) * (wide @ (np.diag(q) - np.outer(q, q)) @ wide.T)
    return total / len(slope)


@pytest.mark.long
@pytest.mark.parametrize("ends_in_softmax", [False, True])
def test_products_of_gradients_are_the_closed_form(ends_in_softmax: bool) -> None:
    model, feeds, a, diagonal = known(3, ends_in_softmax)
    found = matrix(model, feeds)
    assert np.allclose(found, expected_matrix(feeds, a), rtol=RTOL, atol=ATOL)
    assert np.allclose(np.diag(found), diagonal, rtol=RTOL, atol=ATOL)


@pytest.mark.long
@pytest.mark.parametrize("mutant", ["best answer", "not held", "unsigned", "products summed"])
def test_mutants_of_products_are_rejected(mutant: str) -> None:
    model, feeds, a, _ = known(3, False)
    made = matrix(model, feeds, mutant=mutant)
    right = expected_matrix(feeds, a)
    assert made.shape != right.shape or not np.allclose(made, right, rtol=0.05)


@pytest.mark.long
def test_channels_of_an_image_are_its_first_axis() -> None:
    rng = np.random.default_rng(11)
    model = build(
        "float[1,3,2,2] x => float[1,5] y",
        "v = Neg(x)\nf = Reshape(v, S)\ny = MatMul(f, A)",
        {
            "A": rng.normal(size=(12, 5)).astype(np.float32),
            "S": np.array([1, 12], np.int64),
        },
    )
    x = rng.normal(size=(1, 3, 2, 2)).astype(np.float32)
    a = next(layer for layer in channel_layers(model)).weight.astype(np.float64)
    p = probabilities(-x.reshape(1, 12).astype(np.float64) @ a)[0]
    every = a @ (np.diag(p) - np.outer(p, p)) @ a.T
    parts = every.reshape(3, 4, 3, 4)
    found = matrix(model, {"x": x}, axis=1)
    assert np.allclose(found, np.einsum("cada->cd", parts) / 4, rtol=RTOL, atol=ATOL)


@pytest.mark.long
def test_products_of_all_samples_are_averaged() -> None:
    model, feeds, a, _ = known(3, False)
    other = {"x": feeds["x"] * 0.5}
    found = torch_worker.ask(
        "products", model=blob(model), axes={"v": 2}, samples=[feeds, other],
        draws={"count": 64, "dtype": "float64"},
    )["v"]  # fmt: skip
    expected = (expected_matrix(feeds, a) + expected_matrix(other, a)) / 2
    assert np.allclose(found, expected, rtol=RTOL, atol=ATOL)


@pytest.mark.long
def test_images_of_bytes_have_gradients_behind_their_cast() -> None:
    rng = np.random.default_rng(16)
    a = rng.normal(size=(6, 5)).astype(np.float32)
    model = build(
        "uint8[1,3,6] x => float[1,3,5] y",
        "f = Cast<to=1>(x)\nv = Neg(f)\ny = MatMul(v, A)",
        {"A": a},
    )
    x = rng.integers(0, 3, size=(1, 3, 6)).astype(np.uint8)
    wide = a.astype(np.float64)
    p = probabilities(-x[0].astype(np.float64) @ wide)
    inner = [wide @ (np.diag(q) - np.outer(q, q)) @ wide.T for q in p]
    found = ask_products(model, {"x": x}, {"v": 2}, {"count": 64})["v"]  # casts say float32
    # float32 sums of five terms
    assert np.allclose(found, np.mean(inner, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_an_output_that_nothing_moves_has_none() -> None:
    model = build(
        "float[1,3,6] x => float[1,3,6] y, float[1,3,6] v",
        "v = Neg(x)\ny = Identity(C)",
        {"C": np.ones((1, 3, 6), np.float32)},
    )
    assert not matrix(model, {"x": np.ones((1, 3, 6), np.float32)}).any()


@pytest.mark.long
def test_answers_that_are_no_scores_are_refused() -> None:
    model = build(
        "float[1,3,6] x => int64[1,3] y", "v = Neg(x)\ny = ArgMax<axis=2,keepdims=0>(v)", {}
    )
    with pytest.raises(AssertionError, match=r"UnsupportedModelError: .* holds int64"):
        matrix(model, {"x": np.ones((1, 3, 6), np.float32)})


@pytest.mark.long
def test_a_compile_says_that_outputs_answer_each_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=np.stack([f["x"] for f in images(10)]))
    model = FIXTURES / "models" / "fashion_vit_ts.onnx"
    done = subprocess.run(
        [str(torch_worker.PYTHON), "-m", "edgevit", "compile", str(model), "--target", "onnx",
         "--recipe", "shift-1-together", "--calib", "calib.npz", "--json",
         "-o", "out.edgevit"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(torch_worker.ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["result"]["passes"]
    (mine,) = [p for p in found if p["spec"].startswith("shiftadd")]
    assert "gradients through torch, 8 samples" in json.dumps(mine)
