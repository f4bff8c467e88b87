"""Quantizer and dequantizer side by side in front of linear layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.targets.onnx.adjacent_quantizers import adjacent_quantizers
from tests.support.graphs import feeds_for, run_reference
from tests.support.quantized import QuantizedBuilder

CODES = (0.05, 3)


def _network(
    moves: int = 1, *, second: str = "", layer: bool = True, weight: bool = True
) -> ir.Model:
    """``MatMul(dq(move(q(x))), w)``; ``second``: what else is read, and by whom."""
    g = QuantizedBuilder()
    codes = g.quantize(g.input("x", (1, 6, 4)), CODES, out="codes")
    outputs = []
    if second == "codes":
        outputs.append(g.dequantize(codes, CODES, out="others"))
    moved = g.op("Transpose", codes, perm=[0, 2, 1], out="turned")
    if moves == 2:
        moved = g.op("Reshape", moved, g.const([2, 2, 6], dtype=np.int64), out="shaped")
    numbers = g.dequantize(moved, CODES, out="numbers")
    if second == "numbers":
        outputs.append(g.op("Relu", numbers, out="others"))
    if not layer:
        return g.model(g.op("Relu", numbers, out="y"))
    other = g.stored((6, 5), 1) if weight else g.const(np.ones((6, 5)))
    return g.model(g.op("MatMul", numbers, other, out="y"), *outputs)


def _kinds(model: ir.Model) -> list[str]:
    stored = set(model.graph.initializers.values())
    return [n.op_type for n in model.graph if n.inputs[0] not in stored]


@pytest.mark.parametrize("moves", [1, 2])
def test_movements_go_in_front_of_the_quantizer(moves: int) -> None:
    model = _network(moves)
    feeds = feeds_for(model)
    before = run_reference(model, feeds)["y"]
    adjacent_quantizers(model)
    moved = ["Transpose", "Reshape"][:moves]
    assert _kinds(model) == [*moved, "QuantizeLinear", "DequantizeLinear", "MatMul"]
    # The codes are the very same: they are only rounded after they were moved.
    np.testing.assert_array_equal(run_reference(model, feeds)["y"], before)
    (quantizer,) = (n for n in model.graph if n.op_type == "QuantizeLinear")
    assert [u.node.op_type for u in quantizer.outputs[0].uses()] == ["DequantizeLinear"]
    assert quantizer.outputs[0].name == ("shaped" if moves == 2 else "turned")


@pytest.mark.parametrize(
    "model",
    [
        lambda: _network(second="codes"),
        lambda: _network(second="numbers"),
        lambda: _network(layer=False),
        lambda: _network(weight=False),
    ],
    ids=["codes read by others", "numbers read by others", "no layer", "float weight"],
)
def test_what_is_left_alone(model: Callable[[], ir.Model]) -> None:
    made = model()
    before = _kinds(made)
    adjacent_quantizers(made)
    assert _kinds(made) == before
