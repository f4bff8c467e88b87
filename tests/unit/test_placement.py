"""Placement: the first rule that matches decides, and says why."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgevit.placement import place
from edgevit.target import PlacementRule, Target, load_target

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


def one(op: str, shape: list[int], out: list[int], *constants: ir.Value) -> ir.Model:
    x = ir.val("x", ir.DataType.FLOAT, shape)
    y = ir.val("y", ir.DataType.FLOAT, out)
    node = ir.node(op, [x, *constants], outputs=[y])
    return ir.Model(ir.Graph([x], [y], nodes=[node], name="g"), ir_version=11)


@pytest.mark.parametrize(
    ("op", "shape", "unit", "rule"),
    [
        ("TopK", [1, 64], "CPU", "leavers: gather, tile, top-k"),
        ("Gather", [1, 8, 64], "CPU", "leavers: gather, tile, top-k"),
        ("GatherElements", [1, 8, 64], "CPU", "leavers: gather, tile, top-k"),
        ("Tile", [1, 8, 64], "CPU", "leavers: gather, tile, top-k"),
        ("ArgMax", [1, 64], "CPU", "booleans and 32-bit integers"),
        ("Where", [1, 64], "CPU", "comparison, selection, cast"),
        # The same operator on both sides of the highest rank that the engine takes.
        ("Transpose", [1, 2, 2, 2, 2, 64], "CPU", "rank above 5"),
        ("Transpose", [1, 2, 2, 2, 64], "ANE", "elementwise, shapes, reductions"),
        ("Conv", [1, 8, 4, 64], "ANE", "convolution"),
        ("Attention", [1, 2, 4, 64], "ANE", "matrix products and attention"),
        ("LayerNormalization", [1, 4, 64], "ANE", "layer norm as one operation"),
        ("NonZero", [1, 64], None, ""),
    ],
)
def test_known_leavers_of_the_neural_engine(
    op: str, shape: list[int], unit: str | None, rule: str
) -> None:
    (found,) = place(one(op, shape, shape), load_target("iphone-npu"))
    assert (found.unit, found.rule) == (unit, rule)
    assert bool(found.source) == (unit is not None)


@pytest.mark.parametrize(
    ("last", "padding"),
    # 32 numbers of float16 are 64 bytes: 1 becomes 32, 49 becomes 64, 197 becomes 224.
    [(32, 1.0), (64, 1.0), (1, 32.0), (49, 1.306), (197, 1.137)],
)
def test_an_unaligned_last_axis_stays_and_is_padded(last: int, padding: float) -> None:
    device = load_target("iphone-npu")
    (found,) = place(one("MatMul", [1, 8, last], [1, 8, last]), device)
    assert (found.unit, found.padding) == ("ANE", padding)
    (left,) = place(one("Gather", [1, 8, last], [1, 8, last]), device)
    assert (left.unit, left.padding) == ("CPU", 1.0)


def test_a_float32_program_leaves_the_neural_engine() -> None:
    device, conv = load_target("iphone-npu"), one("Conv", [1, 8, 4, 64], [1, 8, 4, 64])
    (wide,) = place(conv, device, "fp32")
    assert (wide.unit, wide.rule, wide.confidence) == ("GPU", "float32 program", "published")
    (half,) = place(conv, device, "fp16")
    assert (half.unit, half.rule) == ("ANE", "convolution")
    assert place(conv, device) == (half,)  # the device's own precision


def test_what_is_padded_is_the_tensor_that_was_lowered() -> None:
    device, product = load_target("iphone-npu"), one("MatMul", [1, 197, 192], [1, 197, 192])
    (own,) = place(product, device)
    (moved,) = place(product, device, "fp16", {"y": (1, 192, 1, 197)})
    assert (own.padding, moved.padding) == (1.0, 1.137)
