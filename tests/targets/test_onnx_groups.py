"""Where a replay may cut a quantized graph: only at the borders of integer groups."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.backend import LowerOptions
from edgevit.target import load_target
from edgevit.targets.onnx.groups import feed_codes, inside_integer_group, requantized
from edgevit.targets.onnx.lower import OnnxBackend
from tests.support.graphs import run_reference
from tests.support.quantized import QuantizedBuilder


def _network(output: bool, second_reader: bool = False) -> ir.Model:
    """``relu(dq(q(x)) w + b)``, with or without a quantizer behind, then a sum with ``x``."""
    g = QuantizedBuilder()
    x = g.input("x", (1, 4, 6))
    data = g.pair(x, (0.05, 3), name="data")
    product = g.op("MatMul", data, g.stored((6, 6), 1), out="product")
    biased = g.op("Add", product, g.const(np.ones(6)), out="biased")
    clamped = g.op("Relu", biased, out="clamped")
    behind = g.pair(clamped, (0.1, -128), name="result") if output else clamped
    total = g.op("Add", x, behind, out="total")
    outputs = [total]
    if second_reader:
        outputs.append(g.op("Softmax", product, axis=2, out="soft"))
    return g.model(*outputs)


def _inside(model: ir.Model) -> set[str]:
    computed = (
        o
        for node in model.graph
        for o in node.outputs
        if not (node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer())  # type: ignore[union-attr]
    )
    return {str(v.name) for v in computed if inside_integer_group(v)}


def test_a_float_result_ends_the_group_behind_its_clamp() -> None:
    found = _inside(_network(output=False))
    assert found == {"data.quantized", "data.dequantized", "product", "biased"}


def test_an_output_quantizer_belongs_to_the_group() -> None:
    found = _inside(_network(output=True))
    inside = {"data.quantized", "data.dequantized", "product", "biased", "clamped"}
    assert found == {*inside, "result.quantized"}


def test_a_value_that_others_read_is_no_inner_one() -> None:
    found = _inside(_network(output=True, second_reader=True))
    assert "product" not in found
    assert {"data.quantized", "data.dequantized"} <= found


def test_layers_on_numbers_are_no_group() -> None:
    g = QuantizedBuilder()
    x = g.input("x", (1, 4, 6))
    y = g.op("Add", g.op("MatMul", x, g.stored((6, 6), 1), out="p"), g.const(np.ones(6)))
    assert _inside(g.model(y)) == set()


def _cut(mutant: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A fed border and what its readers get in place of it."""
    model = _network(output=True)
    border = next(n for n in model.graph if n.outputs[0].name == "result.dequantized")
    cut = ir.val("cut", ir.DataType.FLOAT, [1, 4, 6])
    fed, made = requantized(cut, border)
    model.graph.inputs.append(cut)
    model.graph.insert_after(border, made)
    model.graph.outputs.clear()
    model.graph.outputs.append(fed)
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (1, 4, 6))
    numbers = ((codes + 128) * np.float32(0.1) + mutant).astype(np.float32)
    x = rng.normal(0, 1, (1, 4, 6)).astype(np.float32)
    return numbers, run_reference(model, {"x": x, "cut": numbers})[str(fed.name)]


def test_what_readers_get_is_what_was_fed() -> None:
    numbers, found = _cut()
    np.testing.assert_array_equal(found, numbers)
    # Numbers that are no codes are not passed on as they are: the feed has to be exact.
    numbers, found = _cut(mutant=0.03)
    assert np.any(found != numbers)


@pytest.mark.parametrize("fed", [True, False])
def test_readers_of_codes_read_the_fed_ones(fed: bool) -> None:
    g = QuantizedBuilder()
    codes = g.quantize(g.input("x", (1, 2, 5, 5)), (0.05, 3), out="codes")
    data = g.dequantize(codes, (0.05, 3), out="data")
    weight = g.const(np.ones((3, 2, 1, 1)), dtype=np.int8)
    total = g.op("ConvInteger", codes, weight, out="total")
    model = g.model(data, total)
    border = next(n for n in model.graph if n.outputs[0].name == "data")
    cut = ir.val("cut", ir.DataType.FLOAT, [1, 2, 5, 5])
    made = requantized(cut, border)[1] if fed else []
    feed_codes(border, made)
    reader = next(n for n in model.graph if n.op_type == "ConvInteger")
    expected = "cut.codes" if fed else "codes"
    assert reader.inputs[0] is not None
    assert reader.inputs[0].name == expected
    assert border.inputs[0] is not None
    assert border.inputs[0].name == "codes"


def test_a_border_whose_codes_a_layer_moved_is_no_mapped_value() -> None:
    """A pointwise convolution is a product of moved codes: nobody reads the numbers."""
    g = QuantizedBuilder()
    data = g.pair(g.input("x", (1, 4, 6, 6)), (0.05, 3), name="data")
    inner = g.op("Conv", data, g.stored((4, 4, 3, 3), 0), pads=[1, 1, 1, 1], out="inner")
    behind = g.pair(g.op("Relu", inner, out="clamped"), (0.1, -128), name="result")
    model = g.model(g.op("Conv", behind, g.stored((5, 4, 1, 1), 0), out="y"))
    backend, target = OnnxBackend(), load_target("onnx:cpu=vnni")
    lowered = backend.lower(model, target, LowerOptions("w8a8", "source", "m"))
    assert [b.name for b in lowered.values] == ["y"]
    cut = backend.replay(lowered)
    assert [b.name for b in cut.values] == ["y"]
