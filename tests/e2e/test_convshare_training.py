"""The training example: two tiny steps of it, measured and exported, where torch is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus.fashion import locate
from benchmarks.corpus.store import CorpusError
from edgevit.loading import load

REPO = Path(__file__).resolve().parents[2]
PYTHON = REPO / ".venv-torch" / "bin" / "python"
MODULE = "examples.convshare_training"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [str(PYTHON), "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-torch (`make models`)")
@pytest.mark.parametrize("kind", ["valid", "same"])
def test_two_steps_are_trained_measured_and_exported(kind: str, tmp_path: Path) -> None:
    try:
        locate()
    except CorpusError as e:
        pytest.skip(str(e))
    count = ["--images", "600", "--epochs", "1", "--device", "cpu"]
    run(f"{MODULE}.train", "--kind", kind, *count, "--out", str(tmp_path))
    record = json.loads((tmp_path / f"{kind}-0.json").read_text(encoding="utf-8"))
    assert record["test_images"] == 600
    # Two steps of 256 images: less sure of a wrong class than no answer at all (log 10).
    assert 0 < record["loss"][0] < 4
    for figure in ("accuracy", "fixed", "uniform", "entropy", "variation"):
        assert 0 <= record[figure] <= 1, figure
    said = run(f"{MODULE}.export", str(tmp_path / f"{kind}-0.npz"))
    assert said == ""
    source = load(tmp_path / f"{kind}-0.onnx")
    assert source.operators["ai.edgevit.SharedConv"] == 16
    weights = np.load(tmp_path / f"{kind}-0.npz")
    assert sum(weights[k].size for k in weights.files) == record["parameters"]


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-torch (`make models`)")
@pytest.mark.parametrize("kind", ["valid", "same"])
def test_training_multiplies_by_what_is_exported(kind: str) -> None:
    """The Toeplitz matrix of training against the convolutions of the export."""
    code = (
        "import torch; from examples.convshare_training.network import ConvShareViT;"
        f"torch.manual_seed(0); n = ConvShareViT('{kind}').eval();"
        "x = torch.randn(3, 1, 28, 28); a = n(x); n.as_convolutions(); b = n(x);"
        "print(float((a - b).abs().max() / a.abs().max()))"
    )
    done = subprocess.run(
        [str(PYTHON), "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
    )
    assert float(done.stdout) < 1e-5
