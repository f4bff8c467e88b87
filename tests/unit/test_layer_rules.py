"""Kinds of layers, and which rule of a device file decides about one."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from edgevit.layer_rules import float_reason, intensity, kind_of, rows, rule_of, writes_codes
from edgevit.target import LayerRule, QuantScheme


def _conv(**attributes: Any) -> ir.Node:
    x = ir.val("x", ir.DataType.FLOAT, [1, 8, 12, 12])
    node = ir.node("Conv", [x, ir.val("w")], attributes)
    node.outputs[0].shape = ir.Shape([1, 32, 12, 12])
    return node


def _linear() -> ir.Node:
    node = ir.node("MatMul", [ir.val("x"), ir.val("w")])
    node.outputs[0].shape = ir.Shape([2, 50, 32])
    return node


@pytest.mark.parametrize(
    ("node", "weight", "kind"),
    [
        (_linear(), (8, 32), "linear"),
        (_conv(), (32, 8, 1, 1), "pointwise"),
        (_conv(strides=[1, 1], pads=[0] * 4, dilations=[1, 1]), (32, 8, 1, 1), "pointwise"),
        (_conv(strides=[2, 2]), (32, 8, 1, 1), "spatial"),
        (_conv(pads=[1] * 4), (32, 8, 1, 1), "spatial"),
        (_conv(strides=[4, 4]), (32, 8, 4, 4), "patches"),
        (_conv(strides=[4, 4], dilations=[2, 2]), (32, 8, 4, 4), "spatial"),
        (_conv(pads=[1] * 4), (32, 8, 3, 3), "spatial"),
        (_conv(group=8), (32, 1, 3, 3), "depthwise"),
        (_conv(group=4), (32, 2, 3, 3), "grouped"),
        (ir.node("ConvTranspose", [ir.val("x"), ir.val("w")]), (8, 32, 2, 2), "transposed"),
    ],
)
def test_kinds(node: ir.Node, weight: tuple[int, ...], kind: str) -> None:
    assert kind_of(node, weight) == kind


def test_intensity_and_rows() -> None:
    assert intensity(_conv(), (32, 8, 1, 1)) == 8 * 32 / 40
    assert intensity(_conv(), (32, 8, 3, 3)) == 72 * 32 / 104
    assert intensity(_linear(), (8, 32)) == 8 * 32 / 40
    assert (rows(_conv()), rows(_linear())) == (144, 100)


def _rule(run: Any, **conditions: Any) -> LayerRule:
    return LayerRule(name=run, run=run, source="measured so", **conditions)


def _scheme(*rules: LayerRule, **other: Any) -> QuantScheme:
    return QuantScheme(layers=rules, source="the engine", **other)


def test_the_first_rule_that_matches_decides() -> None:
    weight = (32, 8, 1, 1)  # intensity 6.4, 144 rows
    few = _rule("float", kinds=("pointwise",), intensity_below=6.4)
    many = _rule("float", kinds=("pointwise",), rows_from=145)
    both = _scheme(few, many, _rule("codes", kinds=("pointwise",), rows_from=144))
    found = rule_of(_conv(), weight, both)
    assert found is not None
    assert found.run == "codes"
    assert rule_of(_linear(), (8, 32), both) is None
    narrow = _rule("float", kinds=("pointwise",), inputs_below=8)
    assert rule_of(_conv(), weight, _scheme(narrow)) is None
    narrow = narrow.model_copy(update={"inputs_below": 9})
    assert rule_of(_conv(), weight, _scheme(narrow)) == narrow
    assert rule_of(_linear(), (8, 32), _scheme(_rule("float", inputs_below=99))) is None
    near = few.model_copy(update={"intensity_below": 6.5})
    assert rule_of(_conv(), weight, _scheme(near, many)) == near


def test_what_stays_float_says_which_rule_and_what_was_measured() -> None:
    weight = (32, 8, 1, 1)
    reason = float_reason(_conv(), weight, _scheme(_rule("float")))
    assert reason == "left float: int8 is slower on this engine: float (measured so)"
    inexact = float_reason(_conv(), weight, _scheme(_rule("float", because="less exact")))
    assert inexact == "left float: int8 is less exact on this engine: float (measured so)"
    assert float_reason(_conv(), weight, _scheme(_rule("integers"))) is None
    assert float_reason(_conv(), weight, _scheme()) is None
    assert float_reason(_conv(), weight, _scheme(operators=("MatMul",))) is not None
    grouped = _conv(group=8)
    assert float_reason(grouped, (32, 1, 3, 3), _scheme(depthwise=False)) is not None
    assert float_reason(grouped, (32, 1, 3, 3), _scheme()) is None


def test_whose_result_is_quantized() -> None:
    weight = (32, 8, 1, 1)
    assert writes_codes(_conv(), weight, _scheme(_rule("codes")))
    assert not writes_codes(_conv(), weight, _scheme(_rule("integers")))
    assert not writes_codes(_conv(), weight, _scheme())
    assert writes_codes(_conv(), weight, _scheme(outputs=("Conv",)))
    # What a pass's own option asks for is done, whatever the rule would leave float.
    assert writes_codes(_conv(), weight, _scheme(_rule("integers"), outputs=("Conv",)))
