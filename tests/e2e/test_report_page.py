"""One compile, and its page from the bundle alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.corpus.store import FIXTURES
from benchmarks.screenshot import chromium, photograph
from tests.support.pages import Page

MODEL = FIXTURES / "models" / "fashion_hybrid_ts.onnx"


def edgevit(*arguments: str) -> None:
    command = [sys.executable, "-m", "edgevit", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "hybrid.edgevit"
    edgevit("compile", str(MODEL), "--target", "iphone-npu", "--output", str(place))
    return place


@pytest.fixture(scope="module")
def place(bundle: Path) -> Path:
    made = bundle.with_name("report.html")
    edgevit("report", str(bundle), "--html", str(made))
    return made


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _names(record: dict[str, Any]) -> set[str]:
    return {n["name"] for n in record["nodes"]}


def test_the_record_agrees_with_the_certificate(bundle: Path) -> None:
    parity, record = read(bundle / "manifest.json")["parity"], read(bundle / "report.json")
    measured = [n["psnr_db"] for n in record["nodes"] if n["psnr_db"] is not None]
    assert not parity["psnr_drop"]["below_gate"]
    assert min(measured) == parity["psnr_drop"]["psnr_db"]
    ratios = {n["name"]: n["ratio"] for n in record["nodes"] if n["ratio"] is not None}
    mapped = [
        v["name"]
        for part in read(bundle / "debug_map.json")["entries"][0]["parts"]
        for v in part["values"]
    ]
    assert len(mapped) == parity["replayed"]
    # A node with several outputs has one row.
    assert set(mapped) >= set(ratios) >= {v for v in mapped if v in _names(record)}
    assert max(ratios.values()) <= 1
    # Error, limit and ratio are each rounded to three digits: half a unit of 1 %, three times.
    replayed = [w for w in parity["worst"] if w["value"] in ratios]
    assert replayed
    worst = replayed[0]
    assert max(ratios.values()) >= worst["error"] / worst["limit"] * (1 - 0.015)


def test_the_page_says_what_the_manifest_says(bundle: Path, place: Path) -> None:
    manifest, found = read(bundle / "manifest.json"), Page(place.read_text(encoding="utf-8"))
    compiled = found.sections["compiled"]
    assert manifest["source_sha256"] in compiled
    assert manifest["digest"] in compiled
    for spec in (p["spec"] for p in manifest["passes"]):
        assert spec in compiled
    for tool, version in manifest["tools"].items():
        assert f"{tool} {version}" in compiled
    for file in manifest["files"]:
        assert file["path"] in found.sections["cost"]
    for refused in (r for p in manifest["passes"] for r in p["refused"]):
        assert refused["reason"] in found.sections["refusals"]
    figure = manifest["parity"]["figures"]["psnr_db"]
    assert f"{figure['value']:.3g} dB" in found.sections["parity"]
    record = read(bundle / "report.json")
    assert "attention" in found.sections["blocks"]
    for node in record["nodes"]:
        assert node["name"] in found.sections["nodes"]


def test_the_model_is_not_needed_and_nothing_says_where_it_was_made(place: Path) -> None:
    source = place.read_text(encoding="utf-8")
    assert str(place.parent) not in source
    assert str(FIXTURES) not in source
    assert place.stat().st_size < 500_000


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_it(place: Path, dark: bool, tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("skipped: needs chromium")
    picture = tmp_path / "page.png"
    photograph(place, picture, width=1200, height=2400, dark=dark)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (2400, 1200, 3)
    # The ground of the page is white, or nearly black; text and charts cover a part of it.
    ground = pixels[5, 5]
    assert (ground > 250).all() if not dark else (ground < 40).all()
    drawn = (np.abs(pixels - ground).max(axis=-1) > 40).mean()
    assert 0.02 < drawn < 0.5
    # Colors of the charts are there: blue well above red.
    blue = (pixels[..., 2] - pixels[..., 0] > 60).sum()
    assert blue > 1000
