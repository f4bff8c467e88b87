"""Allocation of bits against brute force; losses of single layers against the whole graph."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import KeepFloat, QuantizeActivation, QuantizeWeight
from edgevit.errors import GateError, UsageError
from edgevit.passes.allocate_bits import Option, allocate
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.channel_layers import channel_layers
from edgevit.passes.layer_losses import LayerEdits, by_layer, layer_losses, layer_output
from edgevit.passes.mixed_precision import MixedPrecision
from edgevit.passes.output_weights import output_loss
from edgevit.passes.quantize import Quantize
from edgevit.passes.quantize_selectively import QuantizeSelectively, sensitivity
from edgevit.pipeline import Context
from edgevit.target import Figure, Target
from tests.passes.harness import Array, build, run
from tests.passes.test_channel_folds import Samples, quick
from tests.passes.test_compensate import scheme


def options(rng: np.random.Generator, layers: int) -> dict[str, list[Option]]:
    found = {}
    for index in range(layers):
        size = float(rng.integers(1, 20))
        worth = float(rng.uniform(0.1, 5))
        found[f"l{index}"] = [Option(b, size * b, worth * 4.0**-b) for b in (2, 4, 6, 8)]
    return found


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_allocation_is_near_the_best(share: float) -> None:
    rng = np.random.default_rng(int(share * 10))
    given = options(rng, 5)
    budget = share * sum(mine[-1].cost for mine in given.values())
    chosen = allocate(given, budget, "bytes")
    assert sum(o.cost for o in chosen.values()) <= budget
    every = [c for c in itertools.product(*given.values()) if sum(o.cost for o in c) <= budget]
    best = min(sum(o.loss for o in c) for c in every)
    worst = max(sum(o.loss for o in c) for c in every)
    found = sum(o.loss for o in chosen.values())
    # greedy ends within one step of the hull: far nearer to the best than to the worst
    assert found - best < 0.1 * (worst - best)


def test_a_budget_out_of_reach_names_what_is_reachable() -> None:
    given = options(np.random.default_rng(1), 3)
    least = sum(mine[0].cost for mine in given.values())
    with pytest.raises(GateError, match=f"best reachable is {least:.4g} bytes"):
        allocate(given, least - 1, "bytes")
    assert {o.bits for o in allocate(given, least, "bytes").values()} == {2}


def small(rng: np.random.Generator) -> ir.Model:
    return build(
        "float[1,3,8,8] x => float[1,5] y",
        """a = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], dilations=[1,1],
                group=1>(x, W, c)
        r = Relu(a)
        m = ReduceMean<keepdims=0>(r, axes)
        p = MatMul(m, V)
        y = Add(p, b)""",
        {
            "W": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
            "c": rng.normal(size=6).astype(np.float32),
            "axes": np.array([2, 3], np.int64),
            "V": rng.normal(size=(6, 5)).astype(np.float32),
            "b": rng.normal(size=5).astype(np.float32),
        },
    )


def feeds(rng: np.random.Generator, count: int) -> Samples:
    return Samples(
        tuple({"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count))
    )


def values(model: ir.Model, samples: Samples, values: list[str]) -> list[dict[str, Array]]:
    inner = [v for v in values if v != "x"]
    found = quick(model, samples, inner) if inner else [{} for _ in samples]
    return [{**f, **s} for f, s in zip(found, samples, strict=True)]


def context(rng: np.random.Generator, bits: int = 0) -> Context:
    narrow = {"weight_bits": bits, "activation_bits": bits} if bits else {}
    return Context(feeds(rng, 3), scheme(**narrow), "test")


def test_the_loss_of_a_layer_is_what_the_graph_shows() -> None:
    rng = np.random.default_rng(2)
    model = small(rng)
    ctx = context(rng, 4)
    layers = list(channel_layers(model))
    parts = by_layer(Quantize().plan(model, ctx), layers)
    names = [str(o.name) for n in model.graph for o in n.outputs]
    seen = [
        {**f, **s}
        for f, s in zip(quick(model, ctx.data(""), names), ctx.data(""), strict=True)
    ]
    for layer in layers:
        edits = parts[layer.name]
        copy = model.clone()
        apply(copy, [e for e in (edits.weight, edits.activation) if e is not None], "test")
        pairs = [(run(model, s)[0], run(copy, s)[0]) for s in ctx.data("")]
        expected = float(np.mean([output_loss(t, o) for t, o in pairs]))
        none, found = layer_losses(model, layer, [LayerEdits(None, None), edits], seen)
        assert np.isclose(found.divergence, expected, rtol=1e-3)
        assert none.divergence < 1e-6 < found.divergence
        assert none.sqnr_db > 100 > found.sqnr_db
        y = layer_output(layer, seen[0][str(layer.x.name)], LayerEdits(None, None))
        assert np.allclose(y, seen[0][layer.name], atol=1e-5)


def test_channels_that_matter_get_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curvature as gradients give it, by channel: one channel that matters decides."""
    monkeypatch.setattr("edgevit.passes.mixed_precision.stream", values)
    rng = np.random.default_rng(7)
    model, ctx = small(rng), context(rng)
    p = MixedPrecision(bits="3|8", budget=0.92, rank="relevance", curvature="gradient")
    heavy = {}
    for name, layer in (("W", 6), ("V", 5)):
        worth = {"a": np.zeros(6), "y": np.zeros(5)}
        worth["a" if name == "W" else "y"][layer - 1] = 1.0
        monkeypatch.setattr(
            "edgevit.passes.mixed_precision.gradient_curvatures", lambda *_, w=worth: w
        )
        weights = [e for e in p.plan(model, ctx) if isinstance(e, QuantizeWeight)]
        heavy[name] = {e.value: e.params.high for e in weights}
    # the other layer's loss is zero at every width: it takes the cheapest
    assert heavy == {"W": {"W": 127, "V": 3}, "V": {"W": 3, "V": 127}}


@pytest.mark.parametrize("rank", ["greedy", "relevance"])
def test_widths_meet_the_budget(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setattr("edgevit.passes.mixed_precision.stream", values)
    rng = np.random.default_rng(3)
    model = small(rng)
    ctx = context(rng)
    p = MixedPrecision(bits="3|8", budget=0.6, rank=rank, samples=2)
    plan = p.plan(model, ctx)
    weights = [e for e in plan if isinstance(e, QuantizeWeight)]
    assert sorted(e.params.high for e in weights) in ([3, 127], [3, 3])
    inputs = [e for e in plan if isinstance(e, QuantizeActivation)]
    assert len(inputs) == 2
    sizes = {"W": 162, "V": 30}
    used = sum(sizes[e.value] * {3: 3, 127: 8}[e.params.high] for e in weights)
    assert used <= 0.6 * 8 * sum(sizes.values())
    assert p.perform(model, plan).modified
    assert np.isfinite(run(model, next(iter(ctx.data(""))))[0]).all()


def _cost(measure: str, layer: str, bits: int) -> float:
    """By hand: W is [6, 3, 3, 3] at 4 x 4 positions of an 8 x 8 image, V is [6, 5]."""
    size, macs = {"W": (162, 162 * 16), "V": (30, 30)}[layer]
    if measure == "bytes":
        return size * bits / 8
    if measure == "bit-operations":
        return macs * bits * bits
    # read, written, weights and bias; 1 GB/s is one byte a nanosecond
    numbers = {"W": 192 + 96 + 162 + 6, "V": 6 + 5 + 30}[layer]
    return max(4 * numbers * bits / 32, 2 * macs / 1e6) / 1e6 + 1e-6


@pytest.mark.parametrize("measure", ["bytes", "bit-operations", "latency"])
def test_every_kind_of_budget_is_met(monkeypatch: pytest.MonkeyPatch, measure: str) -> None:
    monkeypatch.setattr("edgevit.passes.mixed_precision.stream", values)
    rng = np.random.default_rng(6)
    ctx = context(rng)
    ctx = replace(ctx, target=_slow_memory(ctx.target))
    p = MixedPrecision(bits="3|5|8", measure=measure, budget=0.55, samples=2)
    plan = p.plan(small(rng), ctx)
    bits = {
        e.value: {3: 3, 15: 5, 127: 8}[e.params.high]
        for e in plan
        if isinstance(e, QuantizeWeight)
    }
    widest = sum(_cost(measure, layer, 8) for layer in bits)
    used = sum(_cost(measure, layer, b) for layer, b in bits.items())
    assert set(bits) == {"W", "V"}
    assert used <= 0.55 * widest
    # no layer could be wider by itself
    for layer, b in bits.items():
        for wider in (5, 8):
            more = used - _cost(measure, layer, b) + _cost(measure, layer, wider)
            assert wider <= b or more > 0.55 * widest
    least = sum(_cost(measure, layer, 3) for layer in bits) / widest
    unit = {"bytes": "bytes", "bit-operations": "bit operations", "latency": "ms"}[measure]
    tight = replace(p, budget=0.9 * least)
    with pytest.raises(
        GateError, match=re.escape(f"best reachable is {least * widest:.4g} {unit}")
    ):
        tight.plan(small(rng), ctx)


def _slow_memory(target: Target | None) -> Target:
    """1 GB/s, arithmetic for nothing, 1 ns to dispatch: widths decide."""
    assert target is not None
    given = dict.fromkeys(("conv", "depthwise", "matmul"), 1e6)
    given |= {"memory": 1.0, "layout": 1.0, "dispatch": 1e-3, "program": 0.0, "spread": 1.0}
    figures = {
        name: Figure(value=value, unit="", source="made up", confidence="estimated")
        for name, value in given.items()
    }
    return target.model_copy(update={"figures": figures})


def test_the_worst_layer_stays_float(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.passes.quantize_selectively.stream", values)
    rng = np.random.default_rng(5)
    model = small(rng)
    ctx = context(rng, 3)
    judged = sensitivity(model, Quantize().plan(model, ctx), ctx, 2)
    worst = min(judged, key=lambda name: judged[name].sqnr_db)
    p = QuantizeSelectively(keep=1, least_db=60.0, samples=2)
    plan = p.plan(model, ctx)
    kept = [e for e in plan if isinstance(e, KeepFloat)]
    assert kept[0].reason == f"the same without measuring: quantize{{exclude={worst}}}"
    assert len([e for e in plan if isinstance(e, QuantizeWeight)]) == len(judged) - 1
    again = Quantize(exclude=worst).plan(model, ctx)
    names = {e.value for e in again if isinstance(e, QuantizeWeight)}
    assert names == {e.value for e in plan if isinstance(e, QuantizeWeight)}
    outcome = p.perform(model, plan)
    assert any("dB at the output" in r.reason for r in outcome.refusals)
    easy = QuantizeSelectively(keep=1, least_db=-60.0, samples=2).plan(small(rng), ctx)
    assert not any(isinstance(e, KeepFloat) for e in easy)


def test_options_are_checked() -> None:
    rng = np.random.default_rng(4)
    for p in (
        MixedPrecision(bits="4|x"),
        MixedPrecision(bits="9"),
        MixedPrecision(measure="joules"),
        MixedPrecision(rank="chance"),
        MixedPrecision(curvature="guess"),
    ):
        with pytest.raises(UsageError):
            p.plan(small(rng), context(rng))
