"""Each operator: what it becomes in the saved program, read back from its bytes."""

from __future__ import annotations

import pytest

from edgevit.targets.coreml.table import RULES, key
from tests.targets.coreml import cases, cases_index, cases_tensor
from tests.targets.coreml.harness import Case, lower, operations

CASES = [
    *cases.ACTIVATIONS,
    *cases.LINEAR,
    *cases.CONV,
    *cases.NORM,
    *cases_tensor.ARITHMETIC,
    *cases_tensor.REDUCE,
    *cases_tensor.SHAPE,
    *cases_index.INDEX,
    *cases_index.RESIZE,
    *cases_index.QUANT,
]


def test_every_row_of_the_tables_has_a_case() -> None:
    covered = {key(node) for case in CASES for node in case.model().graph}
    assert set(RULES) - covered == set()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_float32_program(case: Case) -> None:
    lowered = lower(case.model(), "fp32")
    found = operations(lowered)
    assert tuple(op.kind for op in found) == case.ops
    assert all("float16" not in op.dtypes for op in found)
    types = {
        name: (shape, dtype)
        for op in found
        for name, shape, dtype in zip(op.outputs, op.shapes, op.dtypes, strict=True)
    }
    for binding in (*lowered.values, *lowered.part.outputs):
        assert types[binding.artifact] == (binding.artifact_shape, binding.artifact_dtype)
        assert binding.artifact_shape == (binding.shape or (1,))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_float16_program(case: Case) -> None:
    """The same operations, all floats float16, and casts at the boundary only."""
    lowered = lower(case.model(), "fp16")
    found = operations(lowered)
    inputs = {b.artifact for b in lowered.part.inputs if b.artifact_dtype == "float32"}
    outputs = {b.artifact for b in lowered.part.outputs if b.artifact_dtype == "float32"}
    entering = [op for op in found if set(op.inputs.get("x", ())) & inputs]
    leaving = [op for op in found if set(op.outputs) & outputs]
    assert all(op.kind == "cast" for op in (*entering, *leaving))
    inner = [op for op in found if op not in entering and op not in leaving]
    assert tuple(op.kind for op in inner) == case.ops
    assert all("float32" not in op.dtypes for op in inner)


def test_native_io_is_float16_and_needs_no_cast() -> None:
    case = cases.ACTIVATIONS[0]
    lowered = lower(case.model(), "fp16", io="native")
    assert [op.kind for op in operations(lowered)] == ["relu"]
    assert lowered.part.inputs[0].artifact_dtype == "float16"
    assert lowered.part.outputs[0].artifact_dtype == "float16"
    assert lowered.part.outputs[0].dtype == "float32"
