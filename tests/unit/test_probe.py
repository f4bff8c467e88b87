"""A backend can lower only if all that it imports is installed."""

from __future__ import annotations

import importlib.metadata

import pytest

from edgevit.backend import Backend
from edgevit.targets.coreml.lower import CoreMLBackend
from edgevit.targets.litert.lower import LiteRTBackend
from edgevit.targets.onnx.lower import OnnxBackend

CASES: list[tuple[Backend, str]] = [
    (LiteRTBackend(), "ai-edge-litert"),
    (CoreMLBackend(), "coremltools"),
    (OnnxBackend(), "onnx"),
]


def _installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return f"1 {name}"

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(("backend", "own"), CASES)
def test_a_backend_needs_the_graph_package_too(
    backend: Backend, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(monkeypatch, own, "onnx-ir")
    assert (backend.probe().ok, backend.probe().version) == (True, f"1 {own}")
    _installed(monkeypatch, own)
    assert backend.probe().reason == "onnx-ir is not installed"
    assert backend.probe().extra == "compile"
    _installed(monkeypatch, "onnx-ir")
    assert backend.probe().reason == f"{own} is not installed"
