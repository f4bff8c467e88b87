"""Every operator against an oracle that is not ours."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil import prepare as prepare_module
from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.evaluate import evaluate
from edgevit.runtimes.mil.ops.table import OPERATORS
from edgevit.runtimes.mil.spec import Array
from tests.support import mil_cases_image, mil_cases_layout, mil_cases_math
from tests.support.mil import build, value_inference
from tests.support.onnx_oracle import run_all

CASES = [*mil_cases_math.CASES, *mil_cases_layout.CASES, *mil_cases_image.CASES]
ULP = 2.0**-23
_IDS = [f"{case.op}-{i}" for i, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Array]:
    """ONNX Runtime's result for each case that it checks, by place in ``CASES``."""
    wanted = [i for i, case in enumerate(CASES) if case.onnx is not None]
    jobs = []
    for i in wanted:
        operator = CASES[i].onnx
        assert operator is not None
        feeds = {n: v for n, v in CASES[i].tensors.items() if not isinstance(v, tuple)}
        jobs.append((operator, feeds))
    return dict(zip(wanted, run_all(jobs, tmp_path_factory.mktemp("ort")), strict=True))


def oracle(i: int, runtime: dict[int, Array]) -> tuple[Array, ...]:
    case = CASES[i]
    if case.expected is not None:
        return case.expected if isinstance(case.expected, tuple) else (case.expected,)
    return (runtime[i],) if case.onnx is not None else value_inference(case)


def difference(got: Array, want: Array) -> float:
    """Largest difference in ULPs of the largest magnitude expected."""
    assert got.shape == want.shape
    a, b = got.astype(np.float64), want.astype(np.float64)
    scale = float(np.abs(b).max(initial=0.0)) * ULP
    worst = float(np.abs(a - b).max(initial=0.0))
    assert np.isfinite(worst)
    return 0.0 if worst == 0 else worst / max(scale, 1e-45)


@pytest.mark.parametrize("i", range(len(CASES)), ids=_IDS)
def test_agrees_with_its_oracle(i: int, runtime: dict[int, Array], tmp_path: Path) -> None:
    case = CASES[i]
    program, feeds = build(case, tmp_path)
    outputs = evaluate(program, feeds).outputs
    expected = oracle(i, runtime)
    assert len(outputs) == len(expected)
    for got, want in zip(outputs.values(), expected, strict=True):
        assert difference(got, np.asarray(want)) <= case.terms


def _variant(kernel: Kernel, **changed: Any) -> Kernel:
    """The kernel with some arguments replaced, or dropped where the replacement is None."""

    def mutant(ctx: Context, **arguments: Any) -> Any:
        merged = {**arguments, **changed}
        return kernel(ctx, **{k: v for k, v in merged.items() if v is not None})

    mutant.__signature__ = inspect.signature(kernel)  # type: ignore[attr-defined]
    return mutant


MUTANTS: list[tuple[str, dict[str, Any]]] = [
    ("conv", {"bias": None}),
    ("conv", {"strides": None}),
    ("conv", {"dilations": None}),
    ("conv_transpose", {"pad": None}),
    ("linear", {"bias": None}),
    ("matmul", {"transpose_y": None}),
    ("gelu", {"mode": "TANH_APPROXIMATION"}),
    ("softmax", {"axis": np.int32(2)}),
    ("layer_norm", {"epsilon": np.float32(1e-4)}),
    ("layer_norm", {"gamma": None}),
    ("batch_norm", {"beta": None}),
    ("avg_pool", {"exclude_padding_from_average": None}),
    ("max_pool", {"ceil_mode": None}),
    ("resize_bilinear", {"sampling_mode": "DEFAULT"}),
    ("concat", {"interleave": None}),
    ("slice_by_index", {"stride": None}),
    ("gather", {"axis": np.int32(0)}),
    ("scatter_nd", {"mode": "update"}),
    ("reduce_mean", {"keep_dims": None}),
    ("topk", {"ascending": None}),
    ("quantize", {"zero_point": None}),
    ("dequantize", {"zero_point": None}),
    ("pad", {"mode": "constant"}),
    ("reshape", {"shape": np.array([-1])}),
]


@pytest.mark.parametrize(("op", "changed"), MUTANTS)
def test_a_faulty_operator_is_rejected(
    op: str,
    changed: dict[str, Any],
    runtime: dict[int, Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {**OPERATORS, op: _variant(OPERATORS[op], **changed)}
    monkeypatch.setattr(prepare_module, "OPERATORS", table)
    rejected = 0
    for i, case in enumerate(CASES):
        if case.op != op:
            continue
        program, feeds = build(case, tmp_path)
        try:
            outputs = evaluate(program, feeds).outputs.values()
        except ArtifactError:
            rejected += 1  # the declared shape already tells
            continue
        expected = oracle(i, runtime)
        pairs = zip(outputs, expected, strict=True)
        rejected += any(difference(got, np.asarray(want)) > case.terms for got, want in pairs)
    assert rejected


def test_every_operator_is_checked() -> None:
    checked = {case.op for case in CASES}
    assert checked == set(OPERATORS)
