"""Placement: the first rule that matches decides, and says why."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.placement import place
from edgevit.target import PlacementRule, Target

RULES = (
    PlacementRule(
        name="high-rank", unit="CPU", min_rank=5, source="s1", confidence="published"
    ),
    PlacementRule(name="mm", unit="ANE", ops=("MatMul",), source="s2", confidence="measured"),
    PlacementRule(name="act", unit="GPU", ops=("Relu",), source="s3", confidence="estimated"),
)


def target(rules: tuple[PlacementRule, ...]) -> Target:
    return Target(
        name="t",
        title="t",
        backend="onnx",
        engine="ort",
        default_precision="fp32",
        precisions=("fp32",),
        tolerance={},
        placement=rules,
    )


def model(op: str, rank: int) -> ir.Model:
    x = ir.val("x", ir.DataType.FLOAT, [2] * rank)
    y = ir.val("y", ir.DataType.FLOAT, [2] * rank)
    node = ir.node(op, [x], outputs=[y])
    return ir.Model(ir.Graph([x], [y], nodes=[node], name="g"), ir_version=11)


def test_rule_is_named_with_source_and_confidence() -> None:
    (found,) = place(model("MatMul", 4), target(RULES))
    assert (found.node, found.op, found.unit) == ("y", "MatMul", "ANE")
    assert (found.rule, found.source, found.confidence) == ("mm", "s2", "measured")


def test_first_match_decides() -> None:
    (found,) = place(model("MatMul", 5), target(RULES))
    assert (found.unit, found.rule) == ("CPU", "high-rank")
    (other,) = place(model("MatMul", 5), target(RULES[::-1]))
    assert (other.unit, other.rule) == ("ANE", "mm")


def test_no_rule_matches() -> None:
    (found,) = place(model("Exp", 4), target(RULES))
    assert (found.unit, found.rule, found.confidence) == (None, "", "none")


def test_a_device_of_one_unit_has_no_placement() -> None:
    assert place(model("MatMul", 4), target(())) == ()
