"""Float16 programs: what is rounded, what is named, what may be fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.runtimes.mil.evaluate import Evaluation, evaluate
from edgevit.runtimes.mil.spec import Array, Program
from tests.support import mil_cases_math
from tests.support.mil import Case, build, built, read_back, value_inference

H = np.float16


def _program(body: Any, inputs: dict[str, Array], folder: Path) -> Program:
    return read_back(*built(body, inputs), folder)


def _halved(value: Any) -> Any:
    """Float32 tensors and numbers as float16; all else as it is."""
    if isinstance(value, tuple):
        return tuple(_halved(v) for v in value)
    if isinstance(value, np.ndarray | np.float32) and value.dtype == np.float32:
        return value.astype(H)
    return value


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_widened(v) for v in value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype == H:
        return value.astype(np.float32)
    return value


_SKIPPED = {"cast", "quantize", "dequantize", "fill", "fill_like", "range_1d", "argsort"}
_CASES = [
    case
    for case in mil_cases_math.CASES
    if case.checked_by == "value_inference"
    and case.op not in _SKIPPED
    and not (case.op in ("log", "rsqrt") and not case.constants)  # epsilon is 0 in float16
]


@pytest.mark.parametrize("case", _CASES, ids=[f"{c.op}-{i}" for i, c in enumerate(_CASES)])
def test_reads_float16_and_writes_float16(case: Case, tmp_path: Path) -> None:
    """The result is the float32 result on the rounded arguments, rounded once."""
    tensors = {k: _halved(v) for k, v in case.tensors.items()}
    constants = {k: _halved(v) for k, v in case.constants.items()}
    program, feeds = build(Case(case.op, tensors, constants, opset=case.opset), tmp_path)
    got = evaluate(program, feeds).outputs
    wide = Case(
        case.op,
        {k: _widened(v) for k, v in tensors.items()},
        {k: _widened(v) for k, v in constants.items()},
        opset=case.opset,
    )
    for a, b in zip(got.values(), value_inference(wide), strict=True):
        if a.dtype != H:
            assert np.array_equal(a, b)
            continue
        # one rounding to float16 of a float32 result that is itself off by a few ULPs
        close = np.abs(a.astype(float) - b) <= 2.0**-11 * 1.001 * np.abs(b) + 2.0**-25
        scale = case.terms * 2.0**-23 * float(np.abs(b).max(initial=0.0))
        assert np.all(close | (np.abs(a.astype(float) - b) <= 2.0**-10 * np.abs(b) + scale))


def _chain(mb: Any, v: Any) -> Any:
    y = mb.mul(x=v["x"], y=H(3.0), name="tripled")
    return mb.sub(x=y, y=v["x"], name="doubled")


def test_every_operator_rounds_its_result(tmp_path: Path) -> None:
    x = np.array([1.0 + 2.0**-10, 5.5], H)
    got = evaluate(_program(_chain, {"x": x}, tmp_path), {"x": x}).outputs["doubled"]
    tripled = (x.astype(np.float32) * 3).astype(H)  # 3 + 3 * 2^-10 is not a float16
    want = (tripled.astype(np.float32) - x).astype(H)
    assert np.array_equal(got, want)
    assert got[0] != 2 * x[0]


def _products(mb: Any, v: Any) -> Any:
    weight = np.full((1, 64), 0.5, H)
    return mb.linear(x=v["x"], weight=weight, bias=np.zeros(1, H), name="sum")


def test_products_sum_in_float32_unless_asked_otherwise(tmp_path: Path) -> None:
    # 2048 * 0.5 = 1024, and 63 terms of 2^-5 * 0.5: 0.25 a block, lost beside 1024 (spacing 1)
    x = np.full((1, 64), 2.0**-5, H)
    x[0, 0] = 2048
    program = _program(_products, {"x": x}, tmp_path)
    exact = 1024 + 63 * 2.0**-6
    assert evaluate(program, {"x": x}).outputs["sum"][0, 0] == H(exact) == 1025
    assert evaluate(program, {"x": x}, "float16").outputs["sum"][0, 0] == 1024


def test_large_intermediates_are_named(tmp_path: Path) -> None:
    def body(mb: Any, v: Any) -> Any:
        big = mb.mul(x=v["x"], y=H(8192), name="big")
        huge = mb.mul(x=big, y=H(-2), name="huge")
        small = mb.real_div(x=big, y=H(8192), name="small")
        return [small, mb.sigmoid(x=huge, name="bounded")]

    x = np.array([1.0, 4.5], H)
    result = evaluate(_program(body, {"x": x}, tmp_path), {"x": x})
    assert result.large == {"big": 36864.0, "huge": np.inf}
    at_limit = evaluate(_program(body, {"x": x}, tmp_path), {"x": np.array([1.0, 2.0], H)})
    assert at_limit.large == {}


def test_nan_is_named(tmp_path: Path) -> None:
    def body(mb: Any, v: Any) -> Any:
        return mb.sqrt(x=v["x"], name="root")

    x = np.array([-1.0, 4.0], H)
    result = evaluate(_program(body, {"x": x}, tmp_path), {"x": x})
    assert np.isnan(result.large["root"])


def test_intermediates_can_be_kept(tmp_path: Path) -> None:
    x = np.array([1.5], H)
    result = evaluate(_program(_chain, {"x": x}, tmp_path), {"x": x}, keep=["tripled"])
    assert result.kept["tripled"].dtype == H
    assert result.kept["tripled"][0] == 4.5


def _run(x: Array, feeds: dict[str, Array], folder: Path) -> Evaluation:
    return evaluate(_program(_chain, {"x": x}, folder), feeds)


def test_exact_feeds_are_cast(tmp_path: Path) -> None:
    x = np.array([1.5, -2.0], H)
    for dtype in (np.float64, np.float32):
        got = _run(x, {"x": x.astype(dtype)}, tmp_path).outputs["doubled"]
        assert got.dtype == H
        assert np.array_equal(got, 2 * x)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.array([0.1, 1.0])}, "does not represent"),
        ({"x": np.array([1e9, 1.0])}, "does not represent"),
        ({"x": np.array([1.0], H)}, "shape"),
        ({"x": np.array(["a", "b"])}, "float16"),
        ({"y": np.array([1.0, 2.0], H)}, "inputs"),
        ({}, "inputs"),
    ],
)
def test_other_feeds_are_refused(
    feeds: dict[str, Array], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        _run(np.zeros(2, H), feeds, tmp_path)


def test_a_function_of_many_mixed_inputs_and_outputs(tmp_path: Path) -> None:
    """The form of a replay artifact: every value an input, every result an output."""

    def body(mb: Any, v: Any) -> Any:
        total = mb.add(x=v["half"], y=v["other"], name="total")
        wide = mb.cast(x=v["half"], dtype="fp32", name="wide")
        product = mb.mul(x=wide, y=v["full"], name="product")
        taken = mb.gather(x=v["full"], indices=v["index"], axis=0, name="taken")
        return [total, product, taken]

    feeds: dict[str, Array] = {
        "half": np.array([1.0, 2.0], H),
        "other": np.array([0.5, 0.25], H),
        "full": np.array([0.1, 0.2], np.float32),
        "index": np.array([1, 1, 0], np.int32),
    }
    program = _program(body, feeds, tmp_path)
    got = evaluate(program, {**feeds, "index": feeds["index"].astype(np.int64)}).outputs
    assert {name: str(v.dtype) for name, v in got.items()} == {
        "total": "float16",
        "product": "float32",
        "taken": "float32",
    }
    assert np.array_equal(got["total"], np.array([1.5, 2.25], H))
    assert np.array_equal(got["taken"], feeds["full"][[1, 1, 0]])
    assert np.array_equal(got["product"], feeds["half"].astype(np.float32) * feeds["full"])
