"""Every operator of the tables, in the interpreter, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgevit.targets.litert.tables import OPS, key
from tests.support.graphs import feeds_for, run_reference
from tests.support.quantized import QuantizedBuilder
from tests.support.tflite import Result, lower, run_all
from tests.targets.litert import (
    cases_elementwise,
    cases_image,
    cases_linear,
    cases_quantized,
    cases_shape,
)
from tests.targets.litert.case import Case

Array = np.ndarray[Any, Any]
CASES: dict[str, Case] = {
    **cases_elementwise.CASES,
    **cases_image.CASES,
    **cases_linear.CASES,
    **cases_quantized.CASES,
    **cases_shape.CASES,
}


def distance(found: Array, expected: Array) -> float:
    """max|y - r| / max|r|; infinite if NaNs, shapes or dtypes differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if expected.dtype == bool:
        return float((found != expected).any())
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(expected)
    scale = float(np.abs(expected[finite]).max(initial=0)) or 1.0
    difference = np.abs(found.astype(np.float64) - expected)[finite]
    return float(difference.max(initial=0)) / scale


@pytest.fixture(scope="module")
def runs() -> Mapping[str, tuple[Result, Mapping[str, Array]]]:
    """All cases, lowered here and run in one child process."""
    jobs, expected = [], []
    for case in CASES.values():
        graph = QuantizedBuilder()
        model = graph.model(*case.build(graph))
        feeds = feeds_for(model)
        expected.append(run_reference(model, feeds))
        jobs.append((lower(model), feeds))
    results = run_all(jobs)
    return dict(zip(CASES, zip(results, expected, strict=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_onnxruntime(
    name: str, runs: Mapping[str, tuple[Result, Mapping[str, Array]]]
) -> None:
    result, expected = runs[name]
    assert result.error == ""
    assert result.outputs.keys() == expected.keys()
    for output, reference in expected.items():
        alive = reference.dtype == bool or np.abs(reference).max() > 0
        assert alive, "a reference of zeros proves nothing"
        assert distance(result.outputs[output], reference) <= CASES[name].limit


def test_every_operator_of_the_tables_has_a_case() -> None:
    seen = set()
    for case in CASES.values():
        graph = QuantizedBuilder()
        seen |= {key(node) for node in graph.model(*case.build(graph)).graph}
    assert seen >= OPS.keys()


@pytest.mark.parametrize(
    "mutant",
    [
        lambda y: y * np.float32(1.01),
        lambda y: y[::-1],
        lambda y: y.astype(np.float64),
        lambda y: np.where(np.arange(y.size).reshape(y.shape) == 3, np.nan, y),
        lambda y: y.T,
    ],
)
def test_distance_rejects_wrong_results(mutant: Any) -> None:
    y = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    worst = max(case.limit for case in CASES.values())
    assert distance(y, y) == 0
    assert distance(mutant(y), y) > worst
