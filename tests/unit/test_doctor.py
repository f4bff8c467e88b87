"""What a machine can do, with and without the libraries behind a backend."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

from edgevit import registry
from edgevit.doctor import diagnose
from edgevit.errors import Availability


def _row(name: str) -> dict[str, Any]:
    (row,) = (r for r in diagnose() if r["name"] == name)
    return row


def test_here_everything_lowers_and_runs() -> None:
    rows = diagnose()
    assert [r["name"] for r in rows] == list(registry.names("backends"))
    for row in rows:
        assert row["can_lower"] is True, row
        assert row["can_run"] is True, row
        assert row["version"]
        assert row["extra"] == ""


def test_versions_are_those_installed() -> None:
    assert _row("litert")["version"] == importlib.metadata.version("ai-edge-litert")


@pytest.mark.parametrize(
    ("backend", "distribution", "extra"),
    [("litert", "ai-edge-litert", "litert"), ("onnx", "onnxruntime", "ort")],
)
def test_a_missing_engine_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, backend: str, distribution: str, extra: str
) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == distribution:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    row = _row(backend)
    assert row["can_run"] is False
    assert distribution in row["reason"]
    assert row["extra"] == extra


def test_a_backend_whose_import_fails_is_a_row_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = registry.load

    def broken(kind: registry.Kind, name: str) -> Any:
        if (kind, name) == ("backends", "litert"):
            raise ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers")
        return load(kind, name)

    monkeypatch.setattr(registry, "load", broken)
    row = _row("litert")
    assert row["can_lower"] is False
    assert "flatbuffers is not installed" in row["reason"]
    assert _row("onnx")["can_lower"] is True


def test_an_absent_library_raises_when_it_is_required() -> None:
    from edgevit.errors import BackendMissingError

    missing = Availability("litert", False, "", "ai-edge-litert is not installed", "litert")
    with pytest.raises(BackendMissingError, match="ai-edge-litert is not installed") as caught:
        missing.require()
    assert caught.value.exit_code == 3
    assert "edgevit[litert]" in caught.value.hint


def test_asking_loads_no_engine() -> None:
    code = (
        "import sys; from edgevit.doctor import diagnose; diagnose(); "
        "heavy = {'onnxruntime', 'ai_edge_litert', 'coremltools'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
