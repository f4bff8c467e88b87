"""What folds of channel scales gain, and that the functions of trained models stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.corpus.store import CACHE
from benchmarks.zoo_tasks import upscale
from edgevit.edits import FoldChannels
from edgevit.loading import load
from edgevit.passes.fold_norm_scales import FoldNormScales
from edgevit.passes.order import canonicalize
from edgevit.passes.smooth_quant import SmoothQuant
from edgevit.pipeline import CalibratedPass, Context
from tests.passes.harness import Array, run
from tests.passes.test_channel_folds import (
    FIXTURES,
    IDENTITY,
    Samples,
    changed,
    context,
    norm_and_two_readers,
    off,
    perform,
    quick,
)


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.passes.fold_gains.stream", quick)


@pytest.mark.usefixtures("in_worker")
@pytest.mark.parametrize("p", [FoldNormScales(bits=6), SmoothQuant()], ids=str)
def test_gains_are_those_of_the_quantized_layers(p: CalibratedPass) -> None:
    """Against the layers as ONNX Runtime computes them, inputs rounded by hand."""
    rng = np.random.default_rng(10)
    model = norm_and_two_readers(rng)
    ctx = context(model, rng)
    bits = 6 if isinstance(p, FoldNormScales) else 8
    before = _noise(model, ctx, bits)
    edits = p.plan(model, ctx)
    outcome = p.perform(model, edits)
    after = _noise(model, ctx, bits)
    expected = 10 * np.log10(np.array(before) / np.array(after))
    assert [note.node for note in outcome.notes] == ["y", "z"]
    found = [note.gain_db for note in outcome.notes]
    # float32 rows against float32 rows: few roundings are tipped over a tie
    assert np.allclose(np.array(found, np.float64), expected, atol=0.1)
    assert np.abs(expected).max() > 1


def _noise(model: ir.Model, ctx: Context, bits: int) -> list[float]:
    """Squared error at ``y`` and ``z`` when what they read is rounded to its own range."""
    norm = next(n for n in model.graph if "Norm" in n.op_type).outputs[0]
    readers = [n for n in model.graph if n.op_type == "MatMul"]
    copy = model.clone()
    copy.graph.outputs.append(
        next(o for n in copy.graph for o in n.outputs if o.name == norm.name)
    )
    rows = np.concatenate([run(copy, f)[-1].reshape(-1, 8) for f in ctx.data("test")])
    low, high = min(rows.min(), 0.0), max(rows.max(), 0.0)
    step = np.float32((high - low) / (2**bits - 1))
    zero = np.rint(-low / step)
    off = (np.clip(np.rint(rows / step) + zero, 0, 2**bits - 1) - zero) * step - rows
    return [
        float(np.square(off @ reader.inputs[1].const_value.numpy()).sum())  # type: ignore[union-attr]
        for reader in readers
    ]


# EfficientFormerV2 has batch norms only: changes are explicit there, and of the second pass.
BOTH = ("mobilevit_xxs", "mobilevitv2_050", "pvt_v2_b0", "deit_tiny_patch16_224")
TRAINED = [
    *((name, p) for name in BOTH for p in (FoldNormScales(), SmoothQuant())),
    ("efficientformerv2_s0", SmoothQuant(explicit=True)),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "p"), TRAINED, ids=str)
def test_the_function_of_trained_models_stays(name: str, p: CalibratedPass) -> None:
    """Of the logits, on garments that the model knows: 1e-5 of the largest."""
    model = load(CACHE / "trained" / f"{name}_fashion.onnx", {}).model
    canonicalize(model)
    size = model.graph.inputs[0].shape
    assert size is not None
    feeds = garments(str(model.graph.inputs[0].name), int(size.numpy()[2]), 6)
    before = [run(model, f)[0] for f in feeds[4:]]
    edits = perform(p, model, Context(Samples(tuple(feeds[:4])), None, "w8a8"))
    assert len(edits) >= 4
    after = [run(model, f)[0] for f in feeds[4:]]
    assert off(after, before) <= IDENTITY


def garments(name: str, size: int, count: int) -> list[dict[str, Array]]:
    with np.load(FIXTURES.parent / "data" / "fashion_test_500.npz") as data:
        return [{name: upscale(image, (size, size))} for image in data["images"][:count]]


@pytest.mark.usefixtures("in_worker")
def test_outliers_of_a_channel_do_not_stretch_it() -> None:
    """One element of 400 is 40 times the others: its channel keeps the step of its peers."""
    rng = np.random.default_rng(11)
    model = norm_and_two_readers(rng, 16)
    feeds = [{"x": rng.normal(size=(2, 5, 16)).astype(np.float32)} for _ in range(40)]
    feeds[3]["x"][0, 0] = 0.0
    feeds[3]["x"][0, 0, 5] = 1.0  # normalized: 3.9, and -0.26 for the rest
    steps = {}
    for percentile in (100.0, 99.0):
        p = FoldNormScales(percentile=percentile)
        (edit,) = p.plan(model, Context(Samples(tuple(feeds)), None, "w8a8"))
        assert isinstance(edit, FoldChannels)
        steps[percentile] = edit.scale
    assert steps[99.0][5] / steps[99.0].mean() < steps[100.0][5] / steps[100.0].mean()
    assert changed(model, FoldNormScales(percentile=99.0), 11)[0] <= IDENTITY
