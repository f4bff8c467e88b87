"""Channels are smoothed only where codes put the network far off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import Edit, FoldChannels, QuantizeActivation, Remark
from edgevit.errors import UsageError
from edgevit.passes import smooth_quant
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.codes_loss import codes_loss
from edgevit.passes.quantize import Quantize
from edgevit.passes.smooth_quant import SmoothQuant
from edgevit.pipeline import Context
from edgevit.target import QuantScheme, load_target
from tests.passes.harness import Array, run
from tests.passes.test_costly_inputs import network, source

SMOOTH = SmoothQuant(alpha=1.0, explicit=True, far=0.05)


def context(folder: Path, count: int = 64) -> Context:
    scheme = QuantScheme(activations="int8", scheme="symmetric", source="a test")
    target = load_target("onnx")
    target = target.model_copy(update={"quantization": {"w8a8": scheme}, "layers": ()})
    return Context(source(folder, count), target, "w8a8")


def said(edits: tuple[Edit, ...]) -> str:
    (text,) = (e.text for e in edits if isinstance(e, Remark))
    return text


def test_a_network_that_is_far_off_is_changed(tmp_path: Path) -> None:
    """One channel is 1,000 times the others, which are zero in its codes."""
    given = context(tmp_path)
    edits = SMOOTH.plan(network(1000.0), given)
    assert [e.layer for e in edits if isinstance(e, FoldChannels)] == ["y"]
    off = "activations in codes are "
    assert said(edits).startswith(off)
    before, after = (float(part.split()[0]) for part in said(edits)[len(off) :].split(", "))
    assert after < before / 100
    assert before > 0.05
    # What it says is what the quantized networks do.
    assert before == pytest.approx(_loss(network(1000.0), given), rel=1e-2)
    changed = network(1000.0)
    outcome = SMOOTH.perform(changed, edits)
    assert outcome.modified
    assert said(edits) in [note.text for note in outcome.notes]
    assert after == pytest.approx(_loss(changed, given), rel=1e-2)
    x = {"x": np.random.default_rng(0).normal(0, 1, (1, 4, 8)).astype(np.float32)}
    assert np.allclose(run(network(1000.0), x)[0], run(changed, x)[0], atol=1e-4)


def _loss(model: ir.Model, given: Context) -> float:
    """By the definition: softmax of the rows, divergence, mean over the last 8 samples."""
    plan = Quantize(weights=-1).plan(model, given)
    codes = model.clone()
    apply(codes, [e for e in plan if isinstance(e, QuantizeActivation)], "quantize")
    assert given.samples is not None
    losses = []
    for feeds in list(given.samples)[-8:]:
        p, q = (_softmax(run(m, feeds)[0].astype(np.float64)) for m in (model, codes))
        losses.append(float((p * (np.log(p) - np.log(q))).sum()))
    return float(np.mean(losses))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def test_a_network_that_is_hardly_off_stays(tmp_path: Path) -> None:
    model = network(1.0)
    edits = SMOOTH.plan(model, context(tmp_path))
    assert said(edits).startswith("channels as they are: activations in codes are ")
    assert not SMOOTH.perform(model, edits).modified
    assert SmoothQuant(alpha=1.0, explicit=True, least=0.0).plan(model, context(tmp_path))


def test_the_bound_decides(tmp_path: Path) -> None:
    given = context(tmp_path)
    loss = codes_loss(network(1000.0), given, "a test")
    assert loss is not None
    for far, count in ((loss * 1.01, 0), (loss * 0.99, 1)):
        edits = SmoothQuant(alpha=1.0, explicit=True, far=far).plan(network(1000.0), given)
        assert sum(isinstance(e, FoldChannels) for e in edits) == count


def test_a_change_that_helps_nothing_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([1.0, 1.0])
    monkeypatch.setattr(smooth_quant, "codes_loss", lambda *_: next(found))
    edits = SMOOTH.plan(network(1000.0), context(tmp_path))
    assert said(edits) == (
        "channels as they are: activations in codes are 1 nats off on samples kept out, "
        "1 with channels smoothed"
    )
    assert len(edits) == 1


def test_too_few_samples_are_said(tmp_path: Path) -> None:
    edits = SMOOTH.plan(network(1000.0), context(tmp_path, 8))
    assert "too few samples" in said(edits)
    assert len(edits) == 1


def test_nats_are_not_negative(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="far expects nats"):
        SmoothQuant(far=-1.0).plan(network(1.0), context(tmp_path))


def test_scales_may_be_shifts(tmp_path: Path) -> None:
    given = context(tmp_path)
    plain, shifts = (
        SmoothQuant(alpha=1.0, explicit=True, powers=powers).plan(network(1000.0), given)
        for powers in (False, True)
    )
    (free,), (power,) = (
        [e for e in p if isinstance(e, FoldChannels)] for p in (plain, shifts)
    )
    logs = np.log2(power.scale)
    assert np.array_equal(logs, np.rint(logs))
    assert np.abs(logs - np.log2(free.scale)).max() <= 0.5
    assert len(set(logs)) > 1


def test_scales_are_judged_on_samples_that_they_have_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are kept have seen all."""
    seen, real = [], SmoothQuant._changes

    def spy(self: SmoothQuant, model: ir.Model, given: Context) -> tuple[FoldChannels, ...]:
        assert given.samples is not None
        seen.append(len(given.samples))
        return real(self, model, given)

    monkeypatch.setattr(SmoothQuant, "_changes", spy)
    SMOOTH.plan(network(1000.0), context(tmp_path))
    assert seen == [56, 64]
