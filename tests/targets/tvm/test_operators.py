"""Every operator of the tables, as native code, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevit.targets.tvm.tables import refusal
from tests.support.graphs import feeds_for, run_reference
from tests.support.native import Result, lower, run_all
from tests.support.quantized import QuantizedBuilder
from tests.targets.litert import cases_elementwise, cases_image, cases_linear, cases_shape
from tests.targets.litert.case import Case

Array = np.ndarray[Any, Any]
EVERY: dict[str, Case] = {
    **cases_elementwise.CASES,
    **cases_image.CASES,
    **cases_linear.CASES,
    **cases_shape.CASES,
}
# One case of each kind of kernel; compiling all of them takes minutes.
BASIC = (
    "Conv 3x3",
    "MatMul",
    "LayerNormalization",
)
_POLYNOMIAL = 2.0**-20  # what vmath's functions may be off, of results near one


def _model(case: Case) -> Any:
    graph = QuantizedBuilder()
    return graph.model(*case.build(graph))


def _lowered(name: str) -> bool:
    return all(refusal(node) is None for node in _model(EVERY[name]).graph)


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


def _run(names: list[str]) -> dict[str, tuple[Result, Mapping[str, Array]]]:
    jobs, expected = [], []
    for name in names:
        model = _model(EVERY[name])
        feeds = feeds_for(model)
        expected.append(run_reference(model, feeds))
        jobs.append((lower(model), feeds))
    return dict(zip(names, zip(run_all(jobs), expected, strict=True), strict=True))


def _check(name: str, result: Result, expected: Mapping[str, Array]) -> None:
    assert result.error == "", name
    assert result.outputs.keys() == expected.keys()
    for output, reference in expected.items():
        alive = reference.dtype == bool or np.abs(reference).max() > 0
        assert alive, "a reference of zeros proves nothing"
        limit = EVERY[name].limit and max(EVERY[name].limit, _POLYNOMIAL)
        assert distance(result.outputs[output], reference) <= limit, (name, output)


if __name__ == "__main__":
    print(*EVERY, sep="\n")  # noqa: T201
