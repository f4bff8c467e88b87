"""Logarithmic codes of attention weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.edits import QuantizeLog
from edgevit.errors import InternalError, UsageError
from edgevit.passes.log_codes import RATES, best_rate, log_quantized, table
from edgevit.passes.log_quantize import LogQuantize
from edgevit.pipeline import Context
from tests.passes.harness import Array, build, operators, run
from tests.passes.test_bridge_quant import values
from tests.passes.test_channel_folds import Samples


def softmax(rng: np.random.Generator, rows: int = 60, columns: int = 40) -> Array:
    scores = np.exp(3 * rng.normal(size=(rows, columns)))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float32)


def even(x: Array, bits: int) -> Array:
    steps = 2**bits - 1
    return np.asarray(np.round(x * steps) / steps)


@pytest.mark.parametrize("rate", [1.0, 0.5, 30 / 37])
def test_codes_are_nearest_in_the_logarithm(rate: float) -> None:
    rng = np.random.default_rng(0)
    x = softmax(rng)
    found = log_quantized(x, 4, rate)
    kept = found > 0
    steps = np.abs(np.log2(x[kept]) - np.log2(found[kept]))
    assert steps.max() <= rate / 2 + 1e-5
    assert set(np.unique(found)) <= set(table(4, rate))
    # what became zero is smaller than half a step below the smallest code
    assert x[~kept].max() <= 2.0 ** (-rate * 14.5) * (1 + 1e-5)
    assert np.array_equal(log_quantized(np.zeros(3, np.float32), 4, rate), np.zeros(3))


def test_logarithmic_codes_beat_even_ones_where_papers_say() -> None:
    rng = np.random.default_rng(1)
    x, v = softmax(rng), rng.normal(size=(40, 8)).astype(np.float32)
    true = x @ v
    errors = {
        "adalog": np.square(log_quantized(x, 3, best_rate(x, v, 3)) @ v - true).mean(),
        "log2": np.square(log_quantized(x, 3, 1.0) @ v - true).mean(),
        "even": np.square(even(x, 3) @ v - true).mean(),
    }
    assert errors["adalog"] <= errors["log2"] < 1.5 * errors["even"]
    assert best_rate(x, v, 3) in RATES


def attention(mask: bool) -> ir.Model:
    extra = ", M" if mask else ""
    return build(
        "float[1,2,5,4] q, float[1,2,7,4] k, float[1,2,7,3] v => float[1,2,5,3] z",
        f"y = Attention<scale=0.7>(q, k, v{extra})\nz = Neg(y)",
        {"M": np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)},
    )


def feeds(rng: np.random.Generator) -> dict[str, Array]:
    shapes = {"q": (1, 2, 5, 4), "k": (1, 2, 7, 4), "v": (1, 2, 7, 3)}
    return {n: (2 * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}


def reference(f: dict[str, Array], mask: Array, bits: int, rate: float) -> Array:
    s = 0.7 * f["q"] @ f["k"].swapaxes(2, 3) + mask
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    p = (p / p.sum(axis=-1, keepdims=True)).astype(np.float32)
    return np.asarray(-(log_quantized(p, bits, rate) @ f["v"]))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("kind", "rate"), [("log2", 1.0), ("log-sqrt2", 0.5)])
def test_an_attention_runs_as_a_function_of_standard_operators(
    kind: str, rate: float, mask: bool
) -> None:
    rng = np.random.default_rng(2)
    model = attention(mask)
    added = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32) * mask
    p = LogQuantize(kind=kind, bits=4)
    plan = p.plan(model, Context(None, None, "fp32"))
    assert plan == (QuantizeLog("y", 4, rate),)
    outcome = p.perform(model, plan)
    assert "float" in outcome.changes[0].detail
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert operators(model)["LogQuantize"] == 1
    f = feeds(rng)
    found, expected = run(model, f)[0], reference(f, added, 4, rate)
    # a weight may fall on the other side of a tie: most are equal, a mutant's are not
    assert np.mean(np.isclose(found, expected, atol=1e-5)) > 0.9
    wrong = reference(f, added, 4, rate * 1.3)
    assert np.mean(np.isclose(found, wrong, atol=1e-5)) < 0.5


def test_adalog_chooses_from_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.passes.log_quantize.stream", values)
    rng = np.random.default_rng(3)
    samples = Samples(tuple(feeds(rng) for _ in range(3)))
    model = attention(True)
    (edit,) = LogQuantize(bits=3).plan(model, Context(samples, None, "fp32"))
    assert isinstance(edit, QuantizeLog)
    assert edit.rate in RATES
    assert operators(model)["Attention"] == 1  # planning changes nothing


def test_a_softmax_that_stands_alone() -> None:
    model = build(
        "float[2,4] s, float[4,3] v => float[2,3] y",
        "p = Softmax<axis=1>(s)\ny = MatMul(p, v)",
    )
    p = LogQuantize(kind="log2")
    assert p.perform(model, p.plan(model, Context(None, None, "fp32"))).modified
    assert list(operators(model)) == ["Softmax", "LogQuantize", "MatMul"]
    head = build("float[2,4] s => float[2,4] y", "y = Softmax<axis=1>(s)")
    assert p.plan(head, Context(None, None, "fp32")) == ()


def test_bad_options_and_plans() -> None:
    with pytest.raises(UsageError, match="log9"):
        LogQuantize(kind="log9").plan(attention(False), Context(None, None, "fp32"))
    with pytest.raises(InternalError, match="nowhere"):
        LogQuantize().perform(attention(False), (QuantizeLog("nowhere", 4, 1.0),))
