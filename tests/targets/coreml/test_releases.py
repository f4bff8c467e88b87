"""iOS 16, 17 and 18: specification version, operators of each, and what a release lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.backend import LowerOptions
from edgevit.errors import UnsupportedModelError, UsageError
from edgevit.target import load_target
from edgevit.targets.coreml.lower import CoreMLBackend
from tests.targets.coreml.harness import Array, Case, lower, operations, spec_of
from tests.targets.coreml.test_ane import block
from tests.targets.coreml.test_numbers import NUMERIC, U16, excess, float32_limit, run
from tests.targets.coreml.test_numbers import expected as expected  # the oracle's fixture


def _since(case: Case) -> int:
    """The release that a case needs: only quantized tensors need more than the lowest."""
    nodes = list(case.model().graph)
    device, backend = load_target("iphone-npu:os=16"), CoreMLBackend()
    refused = [backend.unsupported(node, device, "fp32") for node in nodes]
    return 17 if any(refused) else 16


LOWEST = [case for case in NUMERIC if _since(case) == 16]


def test_only_quantized_tensors_need_more_than_the_lowest_release() -> None:
    newer = [case for case in NUMERIC if case not in LOWEST]
    kinds = [{node.op_type for node in case.model().graph} for case in newer]
    assert kinds
    assert all("QuantizeLinear" in ops for ops in kinds)


@pytest.mark.parametrize("case", LOWEST, ids=lambda c: c.name)
def test_ios16(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    """Numbers beside a float16 tensor are float16 there: each is rounded once more."""
    for precision, steps in (("fp32", 0.0), ("fp16", case.roundings + 1)):
        lowered = lower(case.model(), precision, overrides="os=16")
        found = run(lowered, case.feeds(), tmp_path / precision)
        for name, reference in expected[case.name].items():
            limit = steps * U16 * 1.01 + float32_limit(case)
            assert excess(found[name], reference, limit) <= 1


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_ios18(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    lowered = lower(case.model(), "fp32", overrides="os=18,layout=plain")
    found = run(lowered, case.feeds(), tmp_path)
    for name, reference in expected[case.name].items():
        assert excess(found[name], reference, float32_limit(case)) <= 1


@pytest.mark.parametrize(("release", "version"), [("16", 7), ("17", 8), ("18", 9)])
@pytest.mark.parametrize("layout", ["ane", "plain"])
def test_the_specification_says_the_release(release: str, version: int, layout: str) -> None:
    over = f"os={release},layout={layout}"
    spec = spec_of(lower(block().model(), "fp16", overrides=over))
    assert spec.specificationVersion == version
    assert spec.mlProgram.functions["main"].opset == f"CoreML{version - 1}"
    notes = spec.description.metadata.userDefined
    assert notes["ai.edgevit.deployment_target"] == f"iOS{release}"


def test_attention_is_one_operation_from_ios_18_on() -> None:
    kinds = {
        release: [
            op.kind
            for op in operations(
                lower(block().model(), "fp16", overrides=f"os={release},layout=plain")
            )
        ]
        for release in ("17", "18")
    }
    assert "scaled_dot_product_attention" not in kinds["17"]
    assert kinds["18"].count("scaled_dot_product_attention") == 1
    assert "softmax" not in kinds["18"]


def test_a_quantized_tensor_is_refused_before_ios_17() -> None:
    case = next(c for c in NUMERIC if c not in LOWEST)
    with pytest.raises(UnsupportedModelError, match="exists from iOS 17 on; choose os=17"):
        lower(case.model(), "fp32", overrides="os=16")
    lower(case.model(), "fp32", overrides="os=17")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="os='15' is not possible"):
        load_target("iphone-npu:os=15")
    device = load_target("iphone-npu")
    odd = device.model_copy(update={"options": {"os": "17", "layout": "nhwc"}})
    with pytest.raises(UsageError, match="layout='nhwc' is unknown"):
        CoreMLBackend().lower(block().model(), odd, _options())


def _options() -> LowerOptions:
    return LowerOptions("fp32", "source", "m")
