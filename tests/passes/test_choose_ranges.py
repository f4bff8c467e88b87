"""The network chooses between two ways to ranges, on samples that neither has seen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.bundle import TensorInfo
from edgevit.calibration import DataSource, NpzSource
from edgevit.edits import QuantizeActivation, Remark, dump, parse
from edgevit.passes.choose_ranges import split
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context
from edgevit.quantization import fake
from edgevit.target import QuantScheme, load_target
from tests.support.graphs import GraphBuilder

Array = np.ndarray[Any, Any]
SHAPE = (64, 32)
COUNT = 64


def network(weight: Array) -> ir.Model:
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    return g.model(g.op("MatMul", x, g.const(weight, "w"), out="y"))


def context(data: DataSource) -> Context:
    scheme = QuantScheme(activations="uint8", source="a test")
    target = load_target("onnx").model_copy(update={"quantization": {"w8a8": scheme}})
    return Context(data, target, "w8a8")


def outliers() -> Array:
    """Normal numbers, and large ones in channel 0 of four samples, three held out."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (COUNT, *SHAPE)).astype(np.float32)
    x[[10, 58, 60, 62], 0, 0] = 60.0
    return x


def source(folder: Path, array: Array) -> DataSource:
    path = folder / "calibration.npz"
    np.savez(path, x=array)
    return NpzSource(path, (TensorInfo(name="x", dtype="float32", shape=SHAPE),))


def loss(x: Array, weight: Array, made: QuantizeActivation) -> float:
    """Mean divergence of the rows' softmax, written down once more."""

    def logs(values: Array) -> Array:
        y = values.astype(np.float64) @ weight
        return np.asarray(y - np.log(np.exp(y).sum(axis=-1, keepdims=True)))

    p, q = logs(x), logs(fake(x, made.params))
    return float((np.exp(p) * (p - q)).sum() / len(x))


@pytest.mark.parametrize(("matters", "expected"), [(3.0, "minmax"), (0.0, "mse")])
def test_the_better_ranges_on_held_out_samples_are_taken(
    tmp_path: Path, matters: float, expected: str
) -> None:
    """Outliers that the layer reads need the whole range; others are clipped."""
    x = outliers()
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 0.01, (32, 6)).astype(np.float32)
    weight[0] *= matters
    model, given = network(weight), context(source(tmp_path, x))
    remark, chosen = (
        e for e in Quantize().plan(model, given) if isinstance(e, (Remark, QuantizeActivation))
    )
    assert isinstance(remark, Remark)
    assert isinstance(chosen, QuantizeActivation)
    held = context(source(tmp_path, x[:-8]))  # the ranges come from the others alone
    plans = {}
    for name in ("mse", "minmax"):
        (plans[name],) = (
            e
            for e in Quantize(observer=name).plan(model, held)
            if isinstance(e, QuantizeActivation)
        )
    losses = {name: loss(x[-8:], weight, made) for name, made in plans.items()}
    assert min(losses, key=lambda name: losses[name]) == expected
    assert chosen.params.same(plans[expected].params)
    assert f"ranges: {expected};" in remark.text
    assert f"{expected} {losses[expected]:.2g}"[:-1] in remark.text


def test_few_samples_choose_nothing(tmp_path: Path) -> None:
    data = source(tmp_path, outliers()[:23])
    assert split(data) == (data, None)
    edits = Quantize().plan(network(np.ones((32, 6), np.float32)), context(data))
    assert not any(isinstance(e, Remark) for e in edits)


def test_the_choice_is_kept_and_told(tmp_path: Path) -> None:
    model, given = network(np.ones((32, 6), np.float32)), context(source(tmp_path, outliers()))
    edits = Quantize().plan(model, given)
    content = io.BytesIO()
    np.savez(content, **dump([("quantize", edits)]))  # type: ignore[arg-type]
    ((_, found),) = parse(content.getvalue())
    said = [e for e in found if isinstance(e, Remark)]
    assert said == [e for e in edits if isinstance(e, Remark)]
    outcome = Quantize().perform(model, found)
    assert [n.text for n in outcome.notes] == [e.text for e in said]
    assert len(outcome.changes) == 2
