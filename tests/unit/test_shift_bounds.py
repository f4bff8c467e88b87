"""Tolerances of shift layers hold for float32 arithmetic, and see faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.passes.functions import DOMAIN, VERSION, ensure_function
from edgevit.roundoff import Roundoff
from edgevit.shift_codes import encode, levels
from edgevit.tolerance import bounds
from tests.support.graphs import run_reference

Array = np.ndarray[Any, Any]
FLOAT32 = Roundoff(storage=2.0**-24, compute=2.0**-24)
COARSE = Roundoff(storage=2.0**-14, compute=2.0**-24)
CASES = [(conv, wide) for conv in (False, True) for wide in (False, True)]


def constant(name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.val(name, ir.DataType.from_numpy(array.dtype), array.shape, const_value=tensor)


def layer(conv: bool, wide: bool, seed: int = 0) -> tuple[ir.Model, Array, Array]:
    """A model of one layer behind a sign change, its input, and the exact result."""
    rng = np.random.default_rng(seed)
    shape = (5, 6, 3, 3) if conv else (5, 48)
    q = rng.choice(levels(2, wide), shape)
    packed = encode(q.reshape(5, -1).T, 2, wide)
    scale = (2.0 ** rng.integers(-9, 0, 5)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    x = rng.standard_normal((1, 6, 7, 7) if conv else (4, 48)).astype(np.float32)
    every = (packed.codes, packed.signs, scale, bias if conv else None)
    held = [constant(f"c{i}", a) for i, a in enumerate(every) if a is not None]
    given, h = (ir.val(n, ir.DataType.FLOAT, list(x.shape)) for n in ("x", "h"))
    attributes: dict[str, Any] = {"inputs": packed.inputs}
    if conv:
        attributes |= {"weight_shape": shape, "kernel_shape": (3, 3), "group": 1}
        attributes |= {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    name = ("Wide" if wide else "") + ("ShiftConv" if conv else "ShiftLinear")
    weight = q.astype(np.float64) * scale.reshape(5, *[1] * (len(shape) - 1))
    exact = convolved(x, weight, bias) if conv else x.astype(np.float64) @ weight.T
    y = ir.val("y", ir.DataType.FLOAT, list(exact.shape))
    attrs = ir.convenience.convert_attributes(attributes)
    nodes = [
        ir.Node("", "Neg", [given], outputs=[h]),
        ir.Node(DOMAIN, name, [h, *held], attrs, outputs=[y]),
    ]
    imports = {"": 23, DOMAIN: VERSION}
    graph = ir.Graph(
        [given], [y], nodes=nodes, initializers=held, opset_imports=imports, name="g"
    )
    model = ir.Model(graph, ir_version=10)
    ensure_function(model, name)
    return model, -x, exact


def convolved(x: Array, weight: Array, bias: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x[0].astype(np.float64), (3, 3), (1, 2))
    made = np.tensordot(weight, windows, axes=([1, 2, 3], [0, 3, 4]))
    return made[None] + bias[:, None, None]


def limit(
    model: ir.Model, x: Array, exact: Array, cut: frozenset[str], unit: Roundoff
) -> float:
    return bounds(model, {"x": x, "h": -x, "y": exact}, cut, unit)["y"]


@pytest.mark.parametrize(("conv", "wide"), CASES)
def test_float32_stays_within_the_bound(conv: bool, wide: bool) -> None:
    for seed in range(3):
        model, x, exact = layer(conv, wide, seed)
        onnx.checker.check_model(ir.to_proto(model))
        found = run_reference(model, {"x": x})["y"]
        bound = limit(model, x, exact, frozenset({"h", "y"}), FLOAT32)
        assert 0 < np.abs(found - exact).max() <= bound


@pytest.mark.parametrize(("conv", "wide"), CASES)
def test_the_bound_sees_a_thousandth(conv: bool, wide: bool) -> None:
    model, x, exact = layer(conv, wide)
    bound = limit(model, x, exact, frozenset({"h", "y"}), FLOAT32)
    assert bound < 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize(("conv", "wide"), CASES)
def test_an_error_carried_in_stays_within_the_bound(conv: bool, wide: bool) -> None:
    model, x, exact = layer(conv, wide)
    bound = limit(model, x, exact, frozenset({"y"}), COARSE)
    rng = np.random.default_rng(5)
    step = 2 * COARSE.storage * np.abs(x).max()
    moved = x + (step * rng.choice([-1, 1], x.shape)).astype(np.float32)
    found = run_reference(model, {"x": moved})["y"]
    assert np.abs(found - exact).max() <= bound
    assert bound > limit(model, x, exact, frozenset({"h", "y"}), COARSE)
