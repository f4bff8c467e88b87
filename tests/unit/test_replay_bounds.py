"""What the bounds of a replay start from."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.backend import Arithmetic
from edgevit.replay import settled
from edgevit.roundoff import roundoff
from edgevit.tolerance import bounds
from tests.passes.harness import build


def _folded() -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A linear layer that took in a factor: the product is no value of the source."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(256, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    model = build(
        "float[8,256] x => float[8,4] y",
        "p = MatMul(x, w)\n y = Add(p, b)",
        {"w": weight, "b": bias},
    )
    x = rng.normal(size=(8, 256)).astype(np.float32)
    values = {"x": x, "p": x @ weight, "y": x @ weight + bias}
    return model, values


def test_only_source_values_end_an_error_in_float32() -> None:
    cut, source = frozenset({"p", "y"}), frozenset({"y"})
    assert settled(cut, source, Arithmetic()) == {"y"}
    assert settled(cut, source, Arithmetic("float16", "float16")) == cut


def test_the_error_of_an_unshared_product_reaches_the_sum() -> None:
    model, values = _folded()
    unit = roundoff("float32")
    every = bounds(model, values, frozenset({"p", "y"}), unit)
    shared = bounds(model, values, frozenset({"y"}), unit)
    assert shared["p"] == every["p"]
    assert np.isclose(shared["y"], every["y"] + every["p"], rtol=1e-12)
    # Still far from what a dropped bias would do.
    assert shared["y"] < 1e-2 * np.abs(values["y"] - values["p"]).max()


def test_ties_are_those_of_what_a_reader_is_fed() -> None:
    """A cut value is fed from the source, while its reference is computed from codes."""
    model = build(
        "float[4] x => int8[4] q",
        "h = HardSwish(x)\n q = QuantizeLinear(h, s, z)",
        {"s": np.array(0.5, np.float32), "z": np.array(3, np.int8)},
    )
    computed = np.array([1.0, 2.0, 3.0, 4.0], np.float32)  # on the grid: no tie is near
    tie = np.array([1.0, 2.25, 3.0, 4.0], np.float32)
    codes = np.round(computed / 0.5).astype(np.int8) + np.int8(3)
    values = {"x": computed, "h": computed, "q": codes}
    cut, unit = frozenset({"x", "h", "q"}), roundoff("float32")
    assert bounds(model, values, cut, unit)["q"] == 0
    assert bounds(model, values, cut, unit, {"h": tie})["q"] == 1
    assert bounds(model, {**values, "h": tie}, cut, unit, {"h": computed})["q"] == 0
