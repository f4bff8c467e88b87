"""The engine: which way a package runs, and that the part's names are its names."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgevit.bundle import Binding, Part
from edgevit.errors import ArtifactError, InputError
from edgevit.registry import load
from edgevit.runtimes.coreml import CoreMLEngine, Evaluator, NativeModel
from edgevit.runtimes.mil.evaluate import _blaming
from edgevit.runtimes.mil.spec import Array
from edgevit.runtimes.mil.step import IndicesError
from tests.support.mil import built

Feeds = Mapping[str, Array]


def _saved(body: Callable[[Any, Any], Any], inputs: Feeds, folder: Path) -> Path:
    model, _ = built(body, inputs)
    path = folder / "m.mlpackage"
    (path / "Data").mkdir(parents=True)
    (path / "Data" / "m.mlmodel").write_bytes(model)
    (path / "Manifest.json").write_text(
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "m.mlmodel"}}}'
    )
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """``big = 8192 x; y = softmax(big)``, in float16."""

    def body(mb: Any, v: Any) -> Any:
        return mb.softmax(x=mb.mul(x=v["x"], y=np.float16(8192), name="big"), name="y")

    return _saved(body, {"x": np.zeros((1, 4), np.float16)}, tmp_path)


def _part(inputs: str = "x", outputs: str = "y") -> Part:
    def binding(name: str) -> Binding:
        return Binding(name, name, "float32", (1, 4), "float16", (1, 4))

    return Part("coreml", "m.mlpackage", (binding(inputs),), (binding(outputs),))


def test_the_registry_names_the_engine() -> None:
    assert load("engines", "coreml") is CoreMLEngine


def test_off_macos_the_evaluator_runs_the_package(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert CoreMLEngine().probe().ok
    with CoreMLEngine().open(package, _part(), threads=1) as executor:
        assert isinstance(executor, Evaluator)
        x = np.array([[0, 1, 2, 5]], np.float16)
        y = executor.run({"x": x})["y"]
        assert y.dtype == np.float16
        assert np.array_equal(y, np.array([[0, 0, 0, 1]]))
        assert executor.large == {"big": 40960.0}
        executor.run({"x": x / 8})
        assert executor.large == {}
        assert executor.run({"x": x}, "float16")["y"][0, 3] == 1


@pytest.mark.parametrize("part", [_part(inputs="image"), _part(outputs="logits")])
def test_a_package_of_other_names_is_refused(part: Part, package: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected .* to have the"):
        CoreMLEngine().open(package, part, threads=None)


class _FakeModel:
    """``coremltools.models.MLModel`` as far as the engine uses it."""

    def __init__(self, path: str, compute_units: str) -> None:
        if "missing" in path:
            raise RuntimeError("no such model")
        self.opened = (path, compute_units)

    def get_spec(self) -> Any:
        names = {"input": [SimpleNamespace(name="x")], "output": [SimpleNamespace(name="y")]}
        return SimpleNamespace(description=SimpleNamespace(**names))

    def predict(self, feeds: dict[str, Array]) -> dict[str, Array]:
        if feeds["x"].shape != (1, 4):
            raise RuntimeError("shape")
        return {"y": feeds["x"] + 1, "more": feeds["x"]}


@pytest.fixture
def fake_coreml(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        ComputeUnit=SimpleNamespace(CPU_AND_NE="CPU_AND_NE"),
        models=SimpleNamespace(MLModel=_FakeModel),
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(importlib, "import_module", lambda name: fake)


@pytest.mark.usefixtures("fake_coreml")
def test_on_macos_core_ml_runs_the_package(tmp_path: Path) -> None:
    with CoreMLEngine().open(tmp_path / "m.mlpackage", _part(), threads=None) as executor:
        assert isinstance(executor, NativeModel)
        got = executor.run({"x": np.zeros((1, 4), np.float16)})
        assert set(got) == {"y"}
        assert np.array_equal(got["y"], np.ones((1, 4)))
        with pytest.raises(InputError, match="Core ML refuses the inputs"):
            executor.run({"x": np.zeros((2, 4), np.float16)})


@pytest.mark.usefixtures("fake_coreml")
def test_what_core_ml_cannot_load_is_a_corrupt_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot load"):
        CoreMLEngine().open(tmp_path / "missing.mlpackage", _part(), threads=None)


def test_the_evaluator_loads_no_compiler_and_no_coremltools() -> None:
    heavy = ("onnx", "onnx_ir", "onnxruntime", "networkx", "coremltools", "google.protobuf")
    code = (
        "import sys; import edgevit.runtimes.coreml;"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_a_fed_index_outside_of_its_axis_is_an_input_error(tmp_path: Path) -> None:
    def body(mb: Any, v: Any) -> Any:
        table = np.array([1, 2], np.float16)
        return mb.gather(x=table, indices=v["i"], axis=0, validate_indices=False, name="y")

    package = _saved(body, {"i": np.zeros(2, np.int32)}, tmp_path)
    executor = Evaluator(package)
    assert executor.run({"i": np.array([1, 0], np.int32)})["y"].tolist() == [2, 1]
    with pytest.raises(InputError, match=r"'y'.*within \[0, 2\), found 0 to 7"):
        executor.run({"i": np.array([0, 7], np.int32)})


def test_a_constant_index_outside_of_its_axis_is_the_artifacts_fault() -> None:
    step: Any = SimpleNamespace(arguments={"x": ("x",), "indices": ("c",)})
    with pytest.raises(ArtifactError, match="far"), _blaming(step, {"c"}):
        raise IndicesError("far")
    with pytest.raises(InputError, match="far"), _blaming(step, {"other"}):
        raise IndicesError("far")
