"""ONNX's own node tests of the canonical operators, through each backend.

A case is loaded, canonicalized, lowered and run; its outputs are held against those that ONNX
states. What a backend refuses is listed in ``onnx_backend_refusals.toml`` with the reason:
a case that is listed and passes, or is refused for another reason, fails here too. Some cases
ONNX Runtime itself computes otherwise than ONNX states; a bundle follows it, and they are
listed there as well.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.node_cases import (
    TARGETS,
    Outcome,
    at_common_opset,
    case_names,
    cases_of,
    judge,
    run_cases,
)

REFUSALS = Path(__file__).with_name("onnx_backend_refusals.toml")
# One case each of what transformers are made of.
BASIC = (
    "Add/test_add_bcast",
    "AveragePool/test_averagepool_2d_pads",
    "Conv/test_conv_with_strides_padding",
    "ConvTranspose/test_convtranspose_pads",
    "DepthToSpace/test_depthtospace_crd_mode_example",
    "Gather/test_gather_1",
    "Gelu/test_gelu_default_1",
    "InstanceNormalization/test_instancenorm_example",
    "MatMul/test_matmul_4d",
    "MaxPool/test_maxpool_2d_strides",
    "Pad/test_constant_pad",
    "ReduceMean/test_reduce_mean_keepdims_example",
    "Slice/test_slice",
    "Softmax/test_softmax_axis_2",
    "Transpose/test_transpose_all_permutations_4",
)


@dataclass(frozen=True)
class Listed:
    """What is expected of a case: an outcome, and part of what it says."""

    reason: str
    outcome: str = "refused"


def listed() -> dict[str, Listed]:
    """``BACKEND:OPERATOR/CASE`` -> what is expected of it."""
    found: dict[str, Listed] = {}
    tables = tomllib.loads(REFUSALS.read_text(encoding="utf-8"))
    for outcome in ("refused", "deviates"):
        for entry in tables[outcome]:
            for backend in entry["backends"]:
                for case in entry["cases"]:
                    name = f"{backend}:{case}"
                    assert name not in found, f"{name} is listed twice"
                    found[name] = Listed(entry["reason"], outcome)
    return found


def surprises(found: Mapping[str, Outcome], known: Mapping[str, Listed]) -> list[str]:
    """What is neither passed nor refused as listed, one line each."""
    lines = []
    for name, outcome in found.items():
        expected = known.get(name)
        if expected is None and outcome.outcome == "pass":
            continue
        same = expected is not None and expected.outcome == outcome.outcome
        if same and expected is not None and expected.reason in outcome.detail:
            continue
        lines.append(f"{name}: {outcome.outcome} {outcome.detail}")
    return lines


def _names(cases: Sequence[str], backends: Sequence[str]) -> list[str]:
    return [f"{backend}:{case}" for backend in backends for case in cases]


def test_basic_cases_pass_on_every_backend() -> None:
    found = run_cases(_names(BASIC, list(TARGETS)))
    assert len(found) == len(BASIC) * len(TARGETS)
    assert surprises(found, {}) == []


@pytest.mark.long
@pytest.mark.parametrize("backend", TARGETS)
def test_every_case_passes_or_is_refused_as_listed(backend: str) -> None:
    names = _names(case_names(), [backend])
    assert len(names) > 700
    known = {name: entry for name, entry in listed().items() if name.startswith(f"{backend}:")}
    assert set(known) <= set(names)
    assert surprises(run_cases(names), known) == []


@dataclass(frozen=True)
class _Limits:
    rtol: float = 1e-3
    atol: float = 1e-7


def _judged(y: Any, r: Any) -> str:
    return judge(_Limits(), [np.asarray(y)], [np.asarray(r)]).outcome


def test_a_wrong_output_is_wrong() -> None:
    r = np.array([1.0, 2.0], np.float32)
    assert _judged(r, r) == "pass"
    assert _judged(r * np.float32(1.002), r) == "wrong"
    assert _judged(r.astype(np.float64), r) == "wrong"
    assert _judged(r[None], r) == "wrong"
    assert _judged(np.array([1.0, np.nan], np.float32), r) == "wrong"


def test_an_unlisted_refusal_and_a_listed_pass_are_surprises() -> None:
    known = {"coreml:Add/a": Listed("rank 6")}
    assert surprises({"coreml:Add/a": Outcome("refused", "has rank 6 of 5")}, known) == []
    assert surprises({"coreml:Add/a": Outcome("refused", "another")}, known)
    assert surprises({"coreml:Add/a": Outcome("pass", "")}, known)
    assert surprises({"coreml:Add/a": Outcome("deviates", "has rank 6 of 5")}, known)
    assert surprises({"coreml:Add/b": Outcome("deviates", "off by 1")}, known)
    assert surprises({"coreml:Add/b": Outcome("refused", "has rank 6 of 5")}, known)
    assert surprises({"coreml:Add/b": Outcome("crashed", "")}, known)


def test_cases_run_at_the_operator_set_that_says_the_same() -> None:
    since = {"And": 7, "Gelu": 20, "DequantizeLinear": 28}
    names = {
        "And": "test_and2d",
        "Gelu": "test_gelu_default_1",
        "DequantizeLinear": "test_dequantizelinear",
    }
    found = {op: cases_of(op)[name].model for op, name in names.items()}
    assert {op: m.opset_import[0].version for op, m in found.items()} == since
    moved = {op: at_common_opset(m).opset_import[0].version for op, m in found.items()}
    assert moved == {"And": 11, "Gelu": 20, "DequantizeLinear": 23}
    # What set 23 does not know stays where it is, to be refused by name.
    window = cases_of("Attention")["test_attention_local_window"].model
    assert at_common_opset(window).opset_import[0].version == window.opset_import[0].version
