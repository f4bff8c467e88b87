"""Shift weights: planned, stored, and the same numbers however they are executed."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.edits import KeepFloat, QuantizeWeight, ReplaceConstant, ShiftWeight, dump, parse
from edgevit.errors import GateError, InputError, UsageError
from edgevit.passes.channel_layers import channel_layers, layer_of
from edgevit.passes.compensated_rounding import (
    Grid,
    Order,
    compensated,
    expected_error,
    nearest,
)
from edgevit.passes.coordinate_descent import descend
from edgevit.passes.shift_rounding import How, form_of, round_layer, shift_grid
from edgevit.passes.shiftadd import ShiftAdd, ShiftRound
from edgevit.passes.unpack_shifts import UnpackShifts
from edgevit.pipeline import NO_CONTEXT, Context, Pass, parse_spec
from edgevit.pipeline import build as build_pass
from edgevit.shift_codes import Packed, decode, levels
from tests.passes.harness import apply, build, f32, operators, reasons, run
from tests.passes.test_compensate import context, correlated, layer_moments, linear, second


def sampled(model: ir.Model, rng: np.random.Generator, count: int = 3) -> Context:
    shape = tuple(int(d) for d in model.graph.inputs[0].shape.numpy())  # type: ignore[union-attr]
    basis = rng.normal(size=(shape[-1], shape[-1]))
    feeds = [{"x": (rng.normal(size=shape) @ basis).astype(np.float32)} for _ in range(count)]
    return context(feeds)


def shifted(model: ir.Model, p: ShiftAdd, given: Context) -> tuple[ir.Model, ShiftWeight]:
    edits = p.plan(model, given)
    (found,) = [e for e in edits if isinstance(e, ShiftWeight)]
    p.perform(model, edits)
    return model, found


# --- rounding ------------------------------------------------------------------------------


def test_a_grid_of_levels_rounds_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    grid = Grid(np.full((1, 3, 1), 0.5), -64, 64, levels(1))
    weight = rng.normal(size=(1, 3, 50)) * 20
    every = 0.5 * levels(1)
    best = np.abs(weight[..., None] - every).min(axis=-1)
    assert np.allclose(np.abs(weight - 0.5 * nearest(weight, grid)), best)
    hessian = np.eye(50)[None]
    assert np.array_equal(
        compensated(weight, grid, Order.of(hessian, 1e-9)), nearest(weight, grid)
    )


def test_descent_never_adds_error_and_ends_where_no_single_change_helps() -> None:
    rng = np.random.default_rng(1)
    total = np.zeros(3)
    for _ in range(12):
        hessian = second(correlated(rng, 40, 5))
        weight = rng.normal(size=(1, 2, 5)) * 3
        grid = Grid(np.ones((1, 2, 1)), -4, 4, np.array([-4, -2, -1, 0, 1, 2, 4]))
        start = compensated(weight, grid, Order.of(hessian, 1e-3))
        codes = descend(weight, start, grid, hessian, 50)
        before, after = (expected_error(weight, c, grid, hessian) for c in (start, codes))
        assert np.all(after <= before + 1e-12)
        assert grid.levels is not None
        for row, at, code in itertools.product(range(2), range(5), grid.levels):
            other = codes.copy()
            other[0, row, at] = code
            changed = expected_error(weight, other, grid, hessian)
            assert changed[0, row] >= after[0, row] - 1e-9
        every = np.array(list(itertools.product(grid.levels, repeat=5)))[None]
        for row in range(2):
            one = Grid(np.ones((1, 1, 1)), -4, 4, grid.levels)
            wide = np.broadcast_to(weight[:, row : row + 1], every.shape)
            total += (
                expected_error(wide, every, one, hessian).min(),
                after[0, row],
                before[0, row],
            )
    assert total[0] <= total[1] < total[2]
    assert total[1] < 2 * total[0]


def test_descent_leaves_groups_that_see_nothing_alone() -> None:
    weight = np.random.default_rng(2).normal(size=(2, 3, 4))
    grid = Grid(np.ones((2, 3, 1)), -64, 64, levels(1))
    start = nearest(weight, grid)
    hessian = np.stack([np.eye(4), np.zeros((4, 4))])
    assert np.array_equal(descend(weight, start, grid, hessian, 3), start)


@pytest.mark.parametrize("form", ["1", "2", "3", "int4"])
def test_compensation_beats_nearest_codes_on_data(form: str) -> None:
    rng = np.random.default_rng(3)
    model = linear(rng, 48, 8)
    (layer,) = channel_layers(model)
    x = correlated(rng, 3000, 48)
    made = round_layer(layer, layer_moments(x, x), form_of(form, False, False, ""), How())
    assert made.after < 0.6 * made.before
    weight = (made.codes * made.grid.columns(48))[0].T
    off = x @ (weight - layer.weight) + made.shift
    power = np.square((x - x.mean(axis=0)) @ layer.weight).sum()
    # The moments are float32 sums of 3000 rows: a relative 1e-3 is far above their roundoff.
    assert np.isclose(np.square(off).sum() / power, made.after, rtol=1e-3)


def test_exponents_reach_the_largest_weight_of_every_channel() -> None:
    peak = np.array([[[64.0], [65.0], [1e-3], [0.0], [1e-44], [3e38]]])
    grid = shift_grid(peak, form_of("1", False, False, ""))
    scale = grid.scale.reshape(-1)
    assert np.array_equal(scale[:2], [1.0, 2.0])
    assert np.array_equal(np.log2(scale), np.rint(np.log2(scale)))
    assert scale[3] == 1.0
    assert np.all(scale.astype(np.float32) >= np.finfo(np.float32).tiny)
    assert np.all(np.isfinite(scale.astype(np.float32)))
    assert np.all(peak.reshape(-1) <= 64 * scale)


# --- planning ------------------------------------------------------------------------------


def test_the_plan_holds_codes_and_survives_storing() -> None:
    rng = np.random.default_rng(4)
    model = linear(rng)
    p = ShiftAdd(terms="2")
    edits = p.plan(model, sampled(model, rng))
    assert [type(e) for e in edits] == [ShiftWeight, ReplaceConstant]
    weight = edits[0]
    assert isinstance(weight, ShiftWeight)
    assert weight.value == "p"
    assert weight.codes.shape == (2, 12, 6)
    assert weight.signs is None
    assert np.array_equal(np.log2(weight.scale), np.rint(np.log2(weight.scale)))
    assert "2 terms, 8 bits a weight" in weight.detail
    content = dump([(str(p), edits)])
    import io

    stream = io.BytesIO()
    np.savez(stream, **content)  # type: ignore[arg-type]
    ((spec, back),) = parse(stream.getvalue())
    assert spec == str(p)
    again = ir.from_proto(ir.to_proto(model))
    p.perform(model, edits)
    p.perform(again, back)
    feeds = {"x": rng.normal(size=(1, 40, 24)).astype(np.float32)}
    assert np.array_equal(run(model, feeds)[0], run(again, feeds)[0])


def test_planning_twice_gives_the_same_codes() -> None:
    rng = np.random.default_rng(5)
    model = linear(rng)
    given = sampled(model, rng)
    first, second_ = (ShiftAdd(terms="1").plan(model, given) for _ in range(2))
    assert isinstance(first[0], ShiftWeight)
    assert isinstance(second_[0], ShiftWeight)
    assert np.array_equal(first[0].codes, second_[0].codes)


def test_layers_get_the_forms_that_options_name() -> None:
    rng = np.random.default_rng(6)
    model = build(
        "float[1,4,6,6] x => float[1,4,6,6] y",
        "a = Conv<kernel_shape=[1,1]>(x, V, c)\n"
        "b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(a, W, c)\n"
        "y = MatMul(b, M)",
        {
            "V": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
            "W": rng.normal(size=(4, 4, 3, 3)).astype(np.float32),
            "M": rng.normal(size=(6, 6)).astype(np.float32),
            "c": np.zeros(4, np.float32),
        },
    )
    edits = ShiftAdd(terms="1", conv="int8", layers="b:3").plan(model, sampled(model, rng))
    terms = {e.value: e.codes.shape[0] for e in edits if isinstance(e, ShiftWeight)}
    assert terms == {"b": 3, "y": 1}
    (kept,) = [e for e in edits if isinstance(e, QuantizeWeight)]
    assert kept.consumers == ("a",)


def test_a_budget_gives_terms_to_the_layer_that_needs_them() -> None:
    """Two equal layers, one of whose results hardly reach the output."""
    rng = np.random.default_rng(7)
    weights = {n: rng.normal(size=(24, 24)).astype(np.float32) for n in ("V", "W")}
    model = build(
        "float[1,30,24] x => float[1,30,24] y",
        "a = MatMul(x, V)\nb = MatMul(x, W)\nt = Mul(b, s)\ny = Add(a, t)",
        {**weights, "s": f32(0.01)},
    )
    p = ShiftAdd(terms="1|2|3", budget=2.0)
    edits = p.plan(model, sampled(model, rng))
    terms = {e.value: e.codes.shape[0] for e in edits if isinstance(e, ShiftWeight)}
    assert terms == {"a": 3, "b": 1}
    with pytest.raises(GateError, match="cannot be met"):
        ShiftAdd(terms="2|3", budget=1.5).plan(model, sampled(model, rng))
    loose = ShiftAdd(terms="1|2|3", measure="accuracy", budget=1e9)
    few = loose.plan(model, sampled(model, rng))
    assert {e.codes.shape[0] for e in few if isinstance(e, ShiftWeight)} == {1}


# --- execution -----------------------------------------------------------------------------

GROUPS = [(1, 1), (2, 1), (6, 1), (1, 2)]


@given(
    st.integers(1, 3), st.booleans(), st.integers(2, 17), st.integers(1, 6), st.integers(0, 99)
)
@settings(max_examples=15, deadline=None)
def test_linear_layers_compute_the_integer_sums(
    terms: int, wide: bool, inputs: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = linear(rng, inputs, outputs)
    p = ShiftRound(terms=str(terms), wide=wide)
    model, edit = shifted(model, p, NO_CONTEXT)
    q = decode(Packed(edit.codes, edit.signs, edit.inputs)).astype(np.int64)
    x = rng.integers(-8, 9, (1, 40, inputs)).astype(np.float32)
    bias = next(v for k, v in model.graph.initializers.items() if k.startswith("b"))
    assert bias.const_value is not None
    assert 8 * np.abs(q).sum(axis=0).max() < 2**24  # exact in float32
    sums = x.astype(np.int64) @ q * edit.scale.astype(np.float64)
    expected = sums.astype(np.float32) + bias.const_value.numpy()
    assert np.array_equal(run(model, {"x": x})[0], expected)
    apply(UnpackShifts(), model)
    assert np.array_equal(run(model, {"x": x})[0], expected)
    assert operators(model)["DequantizeLinear"] == (0 if wide else 1)


@pytest.mark.parametrize(("group", "stride"), GROUPS)
@pytest.mark.parametrize("wide", [False, True])
def test_convolutions_are_the_same_unpacked(group: int, stride: int, wide: bool) -> None:
    rng = np.random.default_rng(8)
    size = (9 + 2 - 3) // stride + 1
    model = build(
        f"float[1,6,9,9] x => float[1,6,{size},{size}] y",
        f"y = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[{stride},{stride}], "
        f"dilations=[1,1], group={group}>(x, W, c)",
        {
            "W": rng.normal(size=(6, 6 // group, 3, 3)).astype(np.float32),
            "c": rng.integers(-3, 4, 6).astype(np.float32),
        },
    )
    ShiftRound(terms="2", wide=wide).perform(
        model, ShiftRound(terms="2", wide=wide).plan(model, NO_CONTEXT)
    )
    assert operators(model) == {"WideShiftConv" if wide else "ShiftConv": 1}
    x = rng.integers(-4, 5, (1, 6, 9, 9)).astype(np.float32)
    (packed,) = run(model, {"x": x})
    outcome = apply(UnpackShifts(), model)
    assert np.array_equal(run(model, {"x": x})[0], packed)
    assert not model.functions
    assert "sum of |q|" in outcome.changes[0].detail


def test_a_convolution_without_bias_gets_zeros() -> None:
    rng = np.random.default_rng(9)
    model = build(
        "float[1,2,3,3] x => float[1,2,3,3] y",
        "y = Conv<kernel_shape=[1,1], pads=[0,0,0,0], strides=[1,1], dilations=[1,1], group=1>"
        "(x, W)",
        {"W": rng.normal(size=(2, 2, 1, 1)).astype(np.float32)},
    )
    p = ShiftRound(terms="3")
    p.perform(model, p.plan(model, NO_CONTEXT))
    zero = np.zeros((1, 2, 3, 3), np.float32)
    assert np.array_equal(run(model, {"x": zero})[0], zero)


def test_the_report_says_how_products_are_computed() -> None:
    rng = np.random.default_rng(10)
    constants = {
        "W": rng.normal(size=(16, 4)).astype(np.float32),
        "s": f32(0.1),
        "z": np.asarray(128, np.uint8),
    }
    body = "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\ny = MatMul(d, W)"
    said = {}
    for name, p in (("narrow", ShiftRound()), ("wide", ShiftRound(wide=True))):
        model = build("float[2,16] x => float[2,4] y", body, constants)
        outcome = p.perform(model, p.plan(model, NO_CONTEXT))
        assert "256 bytes of float32 weights" in outcome.notes[0].text
        said[name] = UnpackShifts().call(model).changes[0].detail
    assert "int8 codes on 8-bit activations: sums within" in said["narrow"]
    assert "float32 products within the rounding of sums" in said["wide"]


# --- bad input -----------------------------------------------------------------------------


def test_layers_that_cannot_be_shifted_say_why() -> None:
    rng = np.random.default_rng(11)
    bad = rng.normal(size=(8, 8)).astype(np.float32)
    bad[2, 3] = np.nan
    model = build(
        "float[1,8,8] x => float[1,8,8] y",
        "a = MatMul(x, W)\nb = MatMul(a, W)\nc = MatMul(b, x)\nd = MatMul(c, N)\n"
        "y = MatMul(d, E)",
        {
            "W": rng.normal(size=(8, 8)).astype(np.float32),
            "N": bad,
            "E": rng.normal(size=(8, 8)).astype(np.float32),
        },
    )
    p = ShiftRound(exclude="y")
    outcome = p.perform(model, p.plan(model, NO_CONTEXT))
    assert not outcome.modified
    said = {r.node: r.reason for r in outcome.refusals}
    assert "shared with another layer" in said["a"]
    assert "shared with another layer" in said["b"]
    assert "computed, not constant" in said["c"]
    assert "not finite" in said["d"]
    assert said["y"] == "excluded by 'y'"


@pytest.mark.parametrize("terms", ["1", "2", "3"])
def test_zero_denormal_and_huge_channels_are_right(terms: str) -> None:
    rng = np.random.default_rng(12)
    model = linear(rng, 16, 5)
    weight = rng.normal(size=(16, 5))
    scales = [1.0, 0.0, 1e-42, 1e-20, 1e30]
    model.graph.initializers["W"].const_value = ir.tensor((weight * scales).astype(np.float32))
    p = ShiftRound(terms=terms)
    model, edit = shifted(model, p, NO_CONTEXT)
    q = decode(Packed(edit.codes, edit.signs, edit.inputs))
    assert np.all(edit.scale >= np.finfo(np.float32).tiny)
    assert not q[:, 1].any()
    assert not q[:, 2].any()  # below every scale that kernels divide by: rounds to zero
    true = (weight * scales).astype(np.float32)
    for at in (0, 3, 4):
        off = np.abs(true[:, at] - q[:, at] * edit.scale[at])
        assert (
            off.max() <= {"1": 0.35, "2": 0.12, "3": 0.04}[terms] * np.abs(true[:, at]).max()
        )
    (y,) = run(model, {"x": np.full((1, 40, 16), 1e-3, np.float32)})
    assert np.isfinite(y).all()


def test_data_zero_and_dead_channels_are_right_with_compensation() -> None:
    rng = np.random.default_rng(13)
    model = linear(rng, 16, 3)
    weight = rng.normal(size=(16, 3)).astype(np.float32)
    weight[:, 1] = 0
    model.graph.initializers["W"].const_value = ir.tensor(weight)
    feeds = [{"x": np.zeros((1, 40, 16), np.float32)} for _ in range(2)]
    model, edit = shifted(model, ShiftAdd(terms="2"), context(feeds))
    q = decode(Packed(edit.codes, edit.signs, edit.inputs))
    assert not q[:, 1].any()
    assert np.abs(q * edit.scale - weight).max() < 0.2 * np.abs(weight).max()


def test_sums_beyond_the_accumulator_are_refused() -> None:
    model = linear(np.random.default_rng(14), 45_000, 1)
    model.graph.initializers["W"].const_value = ir.tensor(np.ones((45_000, 1), np.float32))
    p = ShiftRound(terms="1")
    outcome = p.perform(model, p.plan(model, NO_CONTEXT))
    assert "beyond int32 accumulators" in reasons(outcome)
    assert not outcome.modified


def test_missing_calibration_says_what_to_give() -> None:
    model = linear(np.random.default_rng(15))
    with pytest.raises(UsageError, match="needs calibration data"):
        ShiftAdd().plan(model, Context(None, None, "w8a8"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"terms": "4"}, "'4' is no form"),
        ({"terms": "int9"}, "'int9' is no form"),
        ({"terms": "0"}, "no form"),
        ({"conv": "shift"}, "no form"),
        ({"scale": "any"}, "scale is 'any'"),
        ({"measure": "time"}, "measure is 'time'"),
        ({"terms": "1|2"}, "need a budget"),
        ({"budget": 1.5}, "need a budget"),
        ({"sweeps": -1}, "sweeps is not negative"),
        ({"damping": 0.0}, "damping"),
        ({"damping": float("nan")}, "damping"),
        ({"damping": float("inf")}, "damping"),
        ({"ridge": float("nan")}, "ridge"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], said: str) -> None:
    rng = np.random.default_rng(16)
    model = linear(rng)
    with pytest.raises(UsageError, match=said.replace("|", "\\|")):
        ShiftAdd(**options).plan(model, sampled(model, rng))  # type: ignore[arg-type]


def test_a_form_for_no_layer_is_said() -> None:
    rng = np.random.default_rng(17)
    model = build(
        "float[3,16] x => float[3,8] y",
        "h = Relu(x)\n y = MatMul(h, W)",
        {"W": rng.normal(size=(16, 8)).astype(np.float32)},
    )
    p = ShiftRound(terms="1", layers="y*:2;h:3")
    outcome = p.perform(model, p.plan(model, NO_CONTEXT))
    said = [n.text for n in outcome.notes if "called" in n.text]
    assert said == ["no layer called 'h' gets codes: its form is not used"]


def test_a_form_for_a_name_that_is_not_there_is_refused() -> None:
    model = linear(np.random.default_rng(17))
    with pytest.raises(UsageError, match="layers is 'quantized\\*', and no layer"):
        ShiftRound(terms="1", layers="p*:2;quantized*:3").plan(model, NO_CONTEXT)


def test_a_name_that_is_written_out_names_its_layer() -> None:
    """Exporters' names hold what patterns read otherwise."""
    model = linear(np.random.default_rng(17))
    (node,) = (n for n in model.graph if n.op_type == "MatMul")
    node.name = "blocks[0]/a|b"
    p = ShiftRound(terms="1", layers="blocks[0]/a|b:3")
    edits = p.plan(model, NO_CONTEXT)
    (made,) = (e for e in edits if isinstance(e, ShiftWeight))
    assert made.codes.shape[0] == 3


def test_a_form_needs_a_name() -> None:
    model = linear(np.random.default_rng(17))
    with pytest.raises(UsageError, match="layers is ''"):
        ShiftRound(terms="1", layers=":3").plan(model, NO_CONTEXT)


def test_choices_without_data_are_refused() -> None:
    model = linear(np.random.default_rng(17))
    with pytest.raises(UsageError, match="measured on calibration data"):
        ShiftRound(terms="1|2", budget=1.5).plan(model, NO_CONTEXT)


def test_damaged_codes_do_not_run() -> None:
    rng = np.random.default_rng(18)
    model = linear(rng)
    p = ShiftRound(terms="2")
    edit, *_ = [e for e in p.plan(model, NO_CONTEXT) if isinstance(e, ShiftWeight)]
    broken = ShiftWeight("p", np.full_like(edit.codes, 0x77), None, edit.scale, edit.inputs)
    with pytest.raises(InputError, match="is 128, beyond 127"):
        p.perform(model, [broken])


def test_what_is_coded_already_stays() -> None:
    model = linear(np.random.default_rng(19))
    p = ShiftRound(terms="1")
    p.perform(model, p.plan(model, NO_CONTEXT))
    assert [e for e in p.plan(model, NO_CONTEXT) if not isinstance(e, KeepFloat)] == []
    again = p.perform(model, p.plan(model, NO_CONTEXT))
    assert not again.modified


@pytest.mark.parametrize(
    "p",
    [
        ShiftAdd(),
        ShiftAdd(terms="1|2|3", budget=1.5, conv="int8", layers="a*:3;b:1"),
        ShiftRound(wide=True, scale="free"),
    ],
)
def test_specs_parse_back(p: Pass) -> None:
    name, options = parse_spec(str(p))
    assert name == p.name
    assert build_pass(type(p), options) == p


def test_layers_without_bias_keep_having_none() -> None:
    rng = np.random.default_rng(20)
    model = build(
        "float[1,9,8] x => float[1,9,4] y",
        "y = MatMul(x, W)",
        {"W": rng.normal(size=(8, 4)).astype(np.float32)},
    )
    edits = ShiftAdd(terms="1").plan(model, sampled(model, rng))
    assert [type(e) for e in edits] == [ShiftWeight]
    node = next(iter(model.graph))
    assert layer_of(node) is not None


def test_free_scales_are_no_powers_of_two_and_fit_better() -> None:
    rng = np.random.default_rng(21)
    model = linear(rng, 64, 16)
    (layer,) = channel_layers(model)
    x = correlated(rng, 2000, 64)
    seen = layer_moments(x, x)
    power, free = (
        round_layer(layer, seen, form_of("1", False, f, ""), How()) for f in (False, True)
    )
    assert np.array_equal(np.log2(power.scale), np.rint(np.log2(power.scale)))
    assert not np.array_equal(np.log2(free.scale), np.rint(np.log2(free.scale)))
    assert free.after < power.after
