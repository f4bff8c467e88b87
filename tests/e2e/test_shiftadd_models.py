"""A network trained to shifts and additions, compiled for every backend and verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus.fashion import load_slice, preprocess
from benchmarks.corpus.store import FIXTURES
from edgevit import api
from edgevit.loading import load
from edgevit.runtimes.session import load as open_bundle

LONG = pytest.mark.long
MODELS = FIXTURES / "models"
TARGETS = (
    "linux-x86",
    pytest.param("onnx", marks=LONG),
    pytest.param("iphone-npu", marks=LONG),
    pytest.param("linux-x86-tvm", marks=LONG),
)
# The pass freezes thresholds that the file computes of each image.
RECIPE = """schema = 1
[budget]
max_rel = 0.5
psnr_db = 20.0
top1_agreement = 0.9
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Calibration and test images, and the recipe, as files."""
    folder = tmp_path_factory.mktemp("samples")
    images = preprocess(load_slice().images[:60])[:, None]
    np.savez(folder / "calib.npz", x=images[:40])
    np.savez(folder / "test.npz", x=images[40:])
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return {key: str(folder / key) for key in ("calib.npz", "test.npz", "recipe.toml")}


@pytest.mark.parametrize("target", TARGETS)
def test_trained_functions_compile_and_keep_their_answers(target: str, tmp_path: Path) -> None:
    source = MODELS / "shiftadd_hybrid.onnx"
    kinds = load(source).operators
    assert kinds["ai.edgevit.ShiftConv"] == 11
    assert kinds["ai.edgevit.BinaryLinearAttention"] == 2
    assert kinds["ai.edgevit.MixtureOfPrimitivesSilu"] == 2
    made = api.compile(source, target=target, output=tmp_path / "made.edgevit")
    assert made.result["coverage"]["fallback"] == []
    data = load_slice()
    assert made.path is not None
    with open_bundle(made.path, trust=True) as session:
        found = [
            int(session.run({"x": image[None]})["logits"].argmax())
            for image in preprocess(data.images[:100])
        ]
    # .895 on the 10,000 test images; three standard errors of 100.
    assert np.mean(np.array(found) == data.labels[:100]) > 0.895 - 3 * 0.031


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_thresholds_are_frozen_by_a_compile(
    target: str, samples: dict[str, str], tmp_path: Path
) -> None:
    made = api.compile(
        MODELS / "shiftadd_hybrid_plain.onnx",
        target=target,
        passes="binary-attention",
        calibration=samples["calib.npz"],
        inputs=samples["test.npz"],
        recipe=samples["recipe.toml"],
        output=tmp_path / "made.edgevit",
    )
    entry = next(p for p in made.manifest.passes if p.spec == "binary-attention")
    assert (entry.effect, entry.changed) == ("trained", 2)
    assert made.result["parity"]["top1_agreement"]["pass"]


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_mixtures_compile_and_verify_again(
    target: str, samples: dict[str, str], tmp_path: Path
) -> None:
    source = MODELS / "fashion_vit_ts.onnx"
    out = tmp_path / "made.edgevit"
    made = api.compile(
        source,
        target=target,
        passes="moe",
        calibration=samples["calib.npz"],
        inputs=samples["test.npz"],
        recipe=samples["recipe.toml"],
        output=out,
    )
    entry = next(p for p in made.manifest.passes if p.spec == "moe")
    assert (entry.effect, entry.changed) == ("calibrated", 4)
    # The plan is in the bundle: it is verified again without calibration data.
    again = api.verify(out, source, inputs=samples["test.npz"], trust=True)
    assert again["pass"]
