"""The committed fixture models are what their README says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from benchmarks.corpus.store import FIXTURES, ROOT

MODELS = FIXTURES / "models"
SIZES = {"hybrid": 81_098, "vit": 139_018}
# Measured on the 500 committed images by benchmarks.fixture_accuracy.
SLICE_ACCURACY = {"hybrid": 0.92, "vit": 0.89}


@pytest.fixture(scope="module")
def accuracies() -> dict[str, float]:
    """Accuracy by file name, measured in a child process."""
    command = [sys.executable, "-m", "benchmarks.fixture_accuracy", "--slice"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    models = json.loads(done.stdout)["models"]
    return {name: figures["accuracy"] for name, figures in models.items()}


@pytest.mark.parametrize("network", SIZES)
@pytest.mark.parametrize(("exporter", "opset"), [("ts", 17), ("dynamo", 18)])
def test_interface(network: str, exporter: str, opset: int) -> None:
    model = onnx.load(MODELS / f"fashion_{network}_{exporter}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    (feed,), (fetch,) = model.graph.input, model.graph.output
    assert (feed.name, fetch.name) == ("x", "logits")
    assert [d.dim_value for d in feed.type.tensor_type.shape.dim] == [1, 1, 28, 28]
    assert [d.dim_value for d in fetch.type.tensor_type.shape.dim] == [1, 10]


@pytest.mark.parametrize("network", SIZES)
@pytest.mark.parametrize("exporter", ["ts", "dynamo"])
def test_weights_are_inside_and_as_many_as_trained(network: str, exporter: str) -> None:
    model = onnx.load(MODELS / f"fashion_{network}_{exporter}.onnx", load_external_data=False)
    tensors = model.graph.initializer
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in tensors)
    floats = [t for t in tensors if t.data_type == onnx.TensorProto.FLOAT]
    count = sum(int(np.prod(tensor.dims)) for tensor in floats)
    # Exporters fold batch norms, share equal tensors and add small constants: within 2 %.
    assert abs(count - SIZES[network]) <= 0.02 * SIZES[network]


@pytest.mark.parametrize("path", sorted(MODELS.glob("fashion_*.onnx")), ids=lambda p: p.name)
def test_files_tell_nothing_of_the_machine(path: Path) -> None:
    data = path.read_bytes()
    for trace in (b"stack_trace", b"site-packages", b"/home/", b"/root/", b"/work/"):
        assert trace not in data


@pytest.mark.parametrize("network", SIZES)
@pytest.mark.parametrize("exporter", ["ts", "dynamo"])
def test_accuracy_on_the_slice(
    accuracies: dict[str, float], network: str, exporter: str
) -> None:
    measured = accuracies[f"fashion_{network}_{exporter}.onnx"]
    # One image of 500 may change sides where another CPU rounds otherwise.
    assert abs(measured - SLICE_ACCURACY[network]) <= 1.001 / 500


def test_each_example_image_has_a_label() -> None:
    folder = ROOT / "examples" / "images"
    labels = json.loads((folder / "labels.json").read_text())
    assert {path.name for path in folder.glob("*.png")} == labels.keys()
    for name, text in labels.items():
        assert text.strip() == text
        with Image.open(folder / name) as image:
            # Wider than high, and within the recognizers' 48 x 320 without squeezing.
            assert 1 < image.width / image.height <= 320 / 48
