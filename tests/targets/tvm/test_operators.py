"""Every operator of the tables, as native code, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm import ops_shift
from edgevit.targets.tvm.tables import OPS, key, refusal
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
# One case of each kind of kernel and of view; compiling all of them takes minutes.
BASIC = (
    "argmax",
    "attention-computed-kt",
    "average-pool-inside-1",
    "chain",
    "concat-1",
    "conv-depthwise",
    "conv-groups",
    "conv-odd-pads",
    "conv-transpose-uneven",
    "depth-to-space-crd",
    "gather-table-1",
    "gelu",
    "group-norm-image",
    "layer-norm-rank-3",
    "linear-0-Relu-bias",
    "matmul-transposed-right",
    "max-pool-1",
    "pad-reflect",
    "reduce-mean-1",
    "resize-cubic-half_pixel-0",
    "scatter-nd",
    "slice-2",
    "softmax-1",
    "split-uneven",
    "tile",
    "where",
)
# Listed so that a refusal is a decision: anything else must be lowered.
REFUSED = {
    "clip-int64": "only float32",
    "reduce-int64": "only float32",
    "topk": "only the last is lowered",
    **{f"{kind}-pool-ceil-{i}": "ceil_mode" for kind in ("max", "average") for i in range(4)},
}
_POLYNOMIAL = 2.0**-20  # what vmath's functions may be off, of results near one


def _model(case: Case) -> Any:
    graph = QuantizedBuilder()
    return graph.model(*case.build(graph))


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


def test_operators_equal_onnxruntime() -> None:
    for name, (result, expected) in _run(list(BASIC)).items():
        _check(name, result, expected)


@pytest.mark.long
def test_every_case_equals_onnxruntime() -> None:
    for name, (result, expected) in _run([n for n in EVERY if n not in REFUSED]).items():
        _check(name, result, expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    reasons = [refusal(node) for node in _model(EVERY[name]).graph]
    assert any(r is not None and REFUSED[name] in r for r in reasons)


def test_every_operator_of_the_tables_has_a_case() -> None:
    """Quantizers have theirs in test_native_code.py, shifts in test_shift_layers.py."""
    seen = {key(node) for case in EVERY.values() for node in _model(case).graph}
    elsewhere = {"QuantizeLinear", "DequantizeLinear", *ops_shift.OPS}
    assert seen >= OPS.keys() - elsewhere


@pytest.mark.parametrize(
    "mutant",
    [
        lambda y: y * np.float32(1.01),
        lambda y: y[::-1],
        lambda y: y.astype(np.float64),
        lambda y: np.where(np.arange(y.size).reshape(y.shape) == 3, np.nan, y),
    ],
)
def test_a_wrong_result_is_noticed(mutant: Any) -> None:
    y = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    assert distance(y, y) == 0
    assert distance(mutant(y), y) > _POLYNOMIAL
