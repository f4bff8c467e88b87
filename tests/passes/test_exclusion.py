"""Layers that passes are told to leave alone."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgevit.errors import UsageError
from edgevit.passes.bridge_quant import BridgeQuant
from edgevit.passes.compensate import Compensate
from edgevit.passes.exclusion import check_excluded, excluded
from edgevit.passes.quantizable import quantizable
from edgevit.passes.quantize import Quantize
from edgevit.passes.shiftadd import ShiftAdd
from edgevit.pipeline import CalibratedPass
from tests.passes.test_quantize import context, network


def renamed(name: str) -> ir.Model:
    model = network()
    next(n for n in model.graph if n.op_type == "MatMul").name = name
    return model


@pytest.mark.parametrize("made", [Quantize, BridgeQuant, Compensate, ShiftAdd])
def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_names(
    made: type[CalibratedPass],
) -> None:
    rule = made(exclude="stages/m1|stages/m3")  # type: ignore[call-arg]
    with pytest.raises(UsageError) as e:
        rule.plan(renamed("stages/m1"), context(None))
    assert "exclude is 'stages/m3'" in str(e.value)
    assert rule.name in str(e.value)
    assert "stages/m1" in (e.value.hint or "")


def test_patterns_and_names_of_nodes_that_are_there_pass() -> None:
    check_excluded(renamed("stages/m1"), "stages/*|m2", "quantize")
    check_excluded(network(), "", "quantize")


def test_brackets_of_a_name_that_is_written_out_are_no_pattern() -> None:
    model = renamed("blocks[0]/qkv")
    check_excluded(model, "blocks[0]/qkv", "quantize")
    layers = {str(q.node.name): q for q in quantizable(model)}
    assert excluded(layers.pop("blocks[0]/qkv"), "blocks[0]/qkv") == "blocks[0]/qkv"
    assert [excluded(q, "blocks[0]/qkv") for q in layers.values()] == [None] * len(layers)
