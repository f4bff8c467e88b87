"""The roofline against sums worked out by hand, and its figures against their rules."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cost_model import PRIOR, Row, calibrate, estimated, split
from benchmarks.phone_latencies import PUBLISHED, Published
from edgevit import registry
from edgevit.estimate import NEEDED, Load, estimate, faster, latency_ms, loads
from edgevit.inspection import inspect, text_of_inspection
from edgevit.target import Figure, Target, load_target, parse_target
from tests.support.graphs import GraphBuilder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
FIGURES = {
    "conv": 100.0,
    "depthwise": 10.0,
    "matmul": 50.0,
    "memory": 2.0,
    "layout": 1.0,
    "dispatch": 3.0,
    "program": 7.0,
}
UNITS = {"conv": "GFLOP/s", "depthwise": "GFLOP/s", "matmul": "GFLOP/s"}
UNITS |= {"memory": "GB/s", "layout": "GB/s", "dispatch": "us", "program": "us"}
UNITS |= {"spread": "1", "power": "W"}


def target(**changes: Any) -> Target:
    numbers = {**FIGURES, "spread": 2.0, "power": 4.0}
    figures = {
        n: Figure(value=v, unit=UNITS[n], source="test", confidence="published")
        for n, v in numbers.items()
    }
    fields: dict[str, Any] = {"name": "t", "title": "t", "backend": "onnx", "engine": "ort"}
    fields |= {"default_precision": "fp32", "precisions": ("fp32", "fp16"), "tolerance": {}}
    return Target(**{**fields, "figures": figures, **changes})


def network() -> GraphBuilder:
    """A convolution with its activation, a depthwise one, a transpose, a product, a sum."""
    g = GraphBuilder()
    x = g.input("x", (1, 4, 8, 8))
    a = g.op("Relu", g.op("Conv", x, g.const(np.ones((4, 4, 1, 1))), kernel_shape=[1, 1]))
    weight = g.const(np.ones((4, 1, 3, 3)))
    b = g.op("Conv", a, weight, kernel_shape=[3, 3], pads=[1] * 4, group=4)
    c = g.op("Reshape", g.op("Add", a, b), g.ints((1, 4, 64)))
    d = g.op("Transpose", c, perm=[0, 2, 1])
    g.op("MatMul", d, g.const(np.ones((4, 8))), out="y")
    return g


def test_what_each_operator_asks_for() -> None:
    # 256 values of 4 bytes in each activation but the last; the product writes 64 * 8.
    activation = 4 * 256
    assert loads(network().model("y")) == (
        Load("conv", 2 * 256 * 4, 2 * activation + 4 * 16),
        Load("depthwise", 2 * 256 * 9, 2 * activation + 4 * 36),
        Load("memory", 0, 3 * activation),
        Load("layout", 0, 2 * activation),
        Load("matmul", 2 * 512 * 4, 3 * activation + 4 * 32),
    )


def test_the_roof_is_arithmetic_or_memory() -> None:
    # 1e6 / 100 GFLOP/s = 10 us beside 2,000 bytes / 2 GB/s = 1 us; plus 3; plus 7 once.
    assert latency_ms([Load("conv", 10**6, 2000)], FIGURES, 1.0) == pytest.approx(0.020)
    assert latency_ms([Load("conv", 10**4, 40000)], FIGURES, 1.0) == pytest.approx(0.030)
    assert latency_ms([Load("conv", 10**4, 40000)], FIGURES, 0.5) == pytest.approx(0.020)
    assert latency_ms([Load("layout", 0, 4000)] * 2, FIGURES, 1.0) == pytest.approx(0.021)
    assert latency_ms([], FIGURES, 1.0) == pytest.approx(0.007)


def test_another_chip_computes_and_reads_faster_and_starts_as_slowly() -> None:
    one = [Load("conv", 10**6, 2000), Load("memory", 0, 4000)]
    # 10 / 2 and 2 / 4 microseconds, 3 each, 7 once.
    assert latency_ms(one, faster(FIGURES, 2.0, 4.0), 1.0) == pytest.approx(0.0185)


def test_a_range_around_the_sum_and_energy_by_power() -> None:
    model = network().model("y")
    found = estimate(model, target(), "fp32")
    mid = latency_ms(loads(model), FIGURES, 1.0)
    assert found.latency is not None
    assert found.energy is not None
    assert dataclasses.astuple(found.latency) == (mid / 2, mid, mid * 2)
    assert found.energy.mid == pytest.approx(4 * mid)
    assert found.confidence == "published"
    data = found.to_json()
    assert data["latency_ms"]["estimate"] is True
    assert data["latency_ms"]["mid"] == pytest.approx(mid, rel=5e-3)


def test_without_its_figures_there_is_no_estimate() -> None:
    model = network().model("y")
    nothing = {"latency_ms": None, "energy_mj": None}
    known = target().figures
    for name in NEEDED:
        less = {k: v for k, v in known.items() if k != name}
        assert estimate(model, target(figures=less), "fp32").to_json() == nothing
    assert estimate(model, target(), "fp16").to_json() == nothing
    no_power = {k: v for k, v in known.items() if k != "power"}
    found = estimate(model, target(figures=no_power), "fp32").to_json()
    assert found["energy_mj"] is None
    assert found["latency_ms"] is not None


@pytest.mark.parametrize(("value", "unit"), [(1.0, "TFLOP/s"), (0.0, "GFLOP/s")])
def test_a_figure_of_another_kind_is_refused(value: float, unit: str) -> None:
    wrong = Figure(value=value, unit=unit, source="s", confidence="measured")
    figures = {**target().figures, "conv": wrong}
    with pytest.raises(ValueError, match="figure 'conv': expected"):
        estimate(network().model("y"), target(figures=figures), "fp32")


def test_a_target_that_extends_another_has_its_own_figures() -> None:
    mine = parse_target({"extends": "linux-x86", "name": "mine"}, "mine.toml")
    assert load_target("linux-x86").figures
    assert mine.figures == {}


@pytest.mark.parametrize("name", ["iphone-npu", "raspberry-pi-5", "linux-x86"])
def test_devices_with_figures_estimate_a_fixture(name: str) -> None:
    device = load_target(name)
    found = inspect(FIXTURES / "fashion_hybrid_ts.onnx", {}, name)
    latency = found.to_json()["cost"]["latency_ms"]
    assert 0 < latency["low"] < latency["mid"] < latency["high"]
    assert latency["confidence"] == "estimated"
    assert "estimate, not measured: " in text_of_inspection(found, verbose=False)
    assert all(figure.source for figure in device.figures.values())


def test_a_device_without_figures_says_nothing() -> None:
    assert "android-cpu" in registry.names("targets")
    found = inspect(FIXTURES / "fashion_hybrid_ts.onnx", {}, "android-cpu")
    assert found.to_json()["cost"] == {"latency_ms": None, "energy_mj": None}
    assert "estimate" not in text_of_inspection(found, verbose=False)


def row(family: str, milliseconds: float, *found: Load) -> Row:
    return Row(Published(family, family, "A14", milliseconds, "test"), found, 1.0, 1.0)


def test_families_are_dealt_alternately_and_stay_together() -> None:
    rows = [row(f, 1.0) for f in ("c", "a", "d", "b", "a")]
    first, second = split(rows)
    assert [r.published.family for r in first] == ["c", "a", "a"]
    assert [r.published.family for r in second] == ["d", "b"]


def test_the_published_rows_are_distinct_and_fall_on_both_sides() -> None:
    keys = [(p.model, p.chip) for p in PUBLISHED]
    assert len(set(keys)) == len(keys)
    families = sorted({p.family for p in PUBLISHED})
    assert len(families[::2]) >= 3
    assert len(families[1::2]) >= 3


def test_calibration_finds_the_figures_that_made_the_latencies() -> None:
    rng = np.random.default_rng(5)
    factors = rng.uniform(0.6, 1.6, len(PRIOR))
    truth = {n: v * f for (n, v), f in zip(PRIOR.items(), factors, strict=True)}
    kinds = ("conv", "depthwise", "matmul", "memory", "layout")
    rows = []
    for index in range(12):
        flops = {
            k: int(v) for k, v in zip(kinds, rng.integers(10**8, 4 * 10**9, 5), strict=True)
        }
        some = [
            Load(k, flops[k] if k in kinds[:3] else 0, int(rng.integers(10**6, 10**8)))
            for k in kinds
            for _ in range(int(rng.integers(1, 9)))
        ]
        bare = row(f"f{index}", 1.0, *some)
        named = dataclasses.replace(bare.published, milliseconds=estimated(bare, truth))
        rows.append(dataclasses.replace(bare, published=named))
    found = calibrate(rows)
    worst = max(abs(estimated(r, found) / r.published.milliseconds - 1) for r in rows)
    before = max(abs(estimated(r, PRIOR) / r.published.milliseconds - 1) for r in rows)
    # The pull to the prior is worth errors of a tenth of the distance; here far less.
    assert worst < 0.02 < before
