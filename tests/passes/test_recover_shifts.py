"""Trained sums of shifts are known by their numbers, and by nothing less than equality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.inlining import inline_unknown, recover_shifts, store_shifts
from edgevit.loading import load
from edgevit.model import constant
from edgevit.passes.check_canonical import check_canonical
from edgevit.passes.moe import Moe
from edgevit.passes.order import canonicalize
from edgevit.passes.recover_shifts import RecoverShifts
from edgevit.passes.store_shifts import StoreShifts, matrix_of
from edgevit.passes.unpack_shifts import decoded
from edgevit.quantizers import stored as dequantized
from edgevit.shift_codes import decode, fewest, levels, on_grid
from edgevit.target import load_target
from tests.passes.test_moe import CONTEXT, perceptrons
from tests.support.trained_shifts import Trained

Array = np.ndarray[Any, Any]
NATIVE = load_target("linux-x86-tvm")


def canonical(made: Trained, folder: Path) -> ir.Model:
    path = folder / "trained.onnx"
    onnx.save(made.proto(), path)
    model = load(path).model
    canonicalize(model)
    return model


def weights(model: ir.Model) -> dict[str, Array]:
    """Layer -> its weight [K, N] as float32 numbers, however it is stored."""
    found = {}
    for node in model.graph:
        name, held = (
            str(node.outputs[0].name),
            node.inputs[1] if len(node.inputs) > 1 else None,
        )
        if name not in ("patches", "first", "second"):
            continue
        held = node.inputs[1]
        shifts = decoded(node) if node.domain else None
        if shifts is not None:
            scale = constant(node.inputs[3 if shifts[0].wide else 2])
            found[name] = np.asarray(decode(shifts[0]) * scale, np.float32)
            continue
        codes = dequantized(held)
        array = constant(held) if codes is None else codes.numbers()
        assert array is not None
        found[name] = matrix_of(array, node.op_type == "Conv")
    return found


def called(model: ir.Model) -> dict[str, str]:
    """Result -> function."""
    return {str(n.outputs[0].name): n.op_type for n in model.graph if n.domain}


@given(
    st.integers(1, 3),
    st.booleans(),
    st.lists(st.integers(-102, 60), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_sums_of_shifts_are_found_exactly(
    terms: int, wide: bool, exponents: list[int], seed: int
) -> None:
    q = np.random.default_rng(seed).choice(levels(terms, wide), (7, len(exponents)))
    weight = np.ldexp(q.astype(np.float64), exponents).astype(np.float32)
    found = on_grid(weight)
    assert found is not None
    # Another power of two may divide a column: the numbers are what must be equal, as float64.
    assert np.array_equal(found[0] * found[1].astype(np.float64), weight)
    assert fewest(found[0], 3, wide) in range(1, terms + 1)


@pytest.mark.parametrize("towards", [np.inf, -np.inf])
def test_the_next_float_is_no_sum(towards: float) -> None:
    weight = np.float32(2.0) ** np.arange(-3, 3, dtype=np.float32)[:, None]
    weight[2] = np.nextafter(weight[2], np.float32(towards))
    assert on_grid(weight) is None


@pytest.mark.parametrize(
    "weight", [[[2.0**-103]], [[np.inf]], [[np.nan]], [[1.0], [2.0**-15]]], ids=str
)
def test_what_kernels_cannot_hold_is_no_sum(weight: list[list[float]]) -> None:
    assert on_grid(np.array(weight, np.float32)) is None


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(("terms", "wide"), [(1, False), (2, False), (1, True), (3, True)])
def test_functions_of_a_file_survive(
    terms: int, wide: bool, folded: bool, tmp_path: Path
) -> None:
    model = canonical(Trained(terms, wide, folded), tmp_path)
    before = weights(model)
    StoreShifts()(model)
    RecoverShifts()(model)
    pre = "Wide" if wide else ""
    assert called(model) == {
        "patches": f"{pre}ShiftConv",
        "first": f"{pre}ShiftLinear",
        "second": f"{pre}ShiftLinear",
    }
    assert not check_canonical(model)
    names = {v.name for n in model.graph for v in n.inputs if v is not None}
    assert set(model.graph.initializers) <= names  # what was replaced is gone
    after = weights(model)
    assert set(after) == set(before) == {"patches", "first", "second"}
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_codes_are_never_larger_unless_asked_for(terms: int, tmp_path: Path) -> None:
    model = canonical(Trained(terms), tmp_path)
    assert RecoverShifts()(model).modified == (terms < 3)
    again = canonical(Trained(terms), tmp_path)
    assert RecoverShifts(larger=True)(again).modified


def _changed(model: ir.Model, what: str) -> None:
    """Make layer ``first`` one that is nearly of shifts."""
    (layer,) = (n for n in model.graph if n.outputs[0].name == "first")
    maker = layer.inputs[1].producer() if layer.inputs[1] is not None else None
    assert maker is not None
    codes, scale = (v for v in maker.inputs[:2] if v is not None)
    assert codes.const_value is not None
    assert scale.const_value is not None
    q, s = codes.const_value.numpy().copy(), scale.const_value.numpy().copy()
    if what == "integer":
        q[1, 2] = 11  # 8 + 2 + 1
    elif what == "scale":
        s[3] = np.nextafter(s[3], np.float32(1))
    elif what == "zeros":
        q[:] = 0
    codes.const_value, scale.const_value = ir.tensor(q), ir.tensor(s)
    if what == "zero point":
        given = ir.tensor(np.ones(len(s), np.int8))
        value = ir.val("zero", ir.DataType.INT8, [len(s)], const_value=given)
        model.graph.register_initializer(value)
        inputs = [codes, scale, value]
        new = ir.node("DequantizeLinear", inputs, {"axis": 1}, name="with_zero")
        new.outputs[0].name, new.outputs[0].shape = "with_zero", maker.outputs[0].shape
        new.outputs[0].dtype = ir.DataType.FLOAT
        model.graph.insert_before(layer, new)
        layer.replace_input_with(1, new.outputs[0])


@pytest.mark.parametrize("what", ["integer", "scale", "zeros", "zero point"])
def test_what_is_nearly_one_stays(what: str, tmp_path: Path) -> None:
    model = canonical(Trained(2), tmp_path)
    _changed(model, what)
    RecoverShifts()(model)
    assert set(called(model)) == {"patches", "second"}


def test_a_shared_weight_is_refused_by_name(tmp_path: Path) -> None:
    model = canonical(Trained(), tmp_path)
    first = next(n for n in model.graph if n.outputs[0].name == "first")
    twin = ir.node("MatMul", list(first.inputs), name="twin")
    twin.outputs[0].name, twin.outputs[0].shape = "twin", first.outputs[0].shape
    twin.outputs[0].dtype = ir.DataType.FLOAT
    model.graph.insert_after(first, twin)
    outcome = RecoverShifts().call(model)
    assert {r.node for r in outcome.refusals} == {"first", "twin"}
    assert all("shared" in r.reason for r in outcome.refusals)


def test_floats_without_shifts_are_left_alone(tmp_path: Path) -> None:
    model = canonical(Trained(folded=True, off=1), tmp_path)
    outcome = StoreShifts().call(model)
    assert [c.node for c in outcome.changes] == ["patches"]
    assert not StoreShifts()(model).modified


def test_the_shift_expert_of_a_mixture_keeps_its_kernel() -> None:
    """No backend has a kernel of whole mixtures: they are inlined, their shifts recovered."""
    model, mixture = perceptrons(count=1), Moe(share=0.5)
    mixture.perform(model, mixture.plan(model, CONTEXT))
    assert [k for k in called(model).values() if k.startswith("MixtureOfPrimitives")]
    store_shifts(model, NATIVE, "fp32")
    inline_unknown(model, NATIVE, "fp32")
    (record,) = recover_shifts(model, NATIVE, "fp32")
    assert len(record.changes) == 2
    assert sorted(called(model).values()) == ["ShiftLinear", "ShiftLinear"]
    assert not check_canonical(model)
