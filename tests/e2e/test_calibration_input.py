"""Calibration data that nobody can calibrate on: what is said, and how the command ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.support.cli import edgevit
from tests.support.graphs import GraphBuilder

SHAPE = (1, 3, 6, 5)
W8A8 = ("--target", "onnx", "--precision", "w8a8")
PREPROCESS = ("--preprocess", "resize=6x5,mean=.485/.456/.406,std=.229/.224/.225")


def _model(folder: Path) -> Path:
    """``relu(conv(x))`` into a linear layer."""
    rng = np.random.default_rng(0)
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    y = g.op("Relu", g.op("Conv", x, g.const(rng.normal(0, 0.3, (8, 3, 3, 3)))))
    rows = g.op("Reshape", y, g.ints([1, 8 * 4 * 3]))
    z = g.op("MatMul", rows, g.const(rng.normal(0, 0.1, (96, 4))), out="logits")
    path = folder / "model.onnx"
    onnx.save(g.proto([z]), path)
    return path


def _samples(count: int = 6) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.normal(0, 1, (count, *SHAPE)).astype(np.float32)


def _nan() -> np.ndarray[Any, Any]:
    data = _samples()
    data[1, 0, 2, 1, 1] = np.nan
    return data


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (_samples().transpose(0, 1, 3, 4, 2), "(1, 3, 6, 5), found float32 (1, 6, 5, 3)",
         "channels first or last"),
        (_samples()[:, 0], "found float32 (3, 6, 5)", "array[:, None]"),
        (_samples()[..., :4], "found float32 (1, 3, 6, 4)", "full shape"),
        (_samples().astype(np.float64), "found float64", "full shape"),
        (_nan(), "calibration sample 1: input 'x' has NaN", "leave the sample out"),
        (_samples(1), "expected at least two samples, found one", "--inputs"),
        (_samples(0), "positive sample counts", ""),
    ],
    ids=["layout", "batch", "shape", "dtype", "nan", "single", "none"],
)  # fmt: skip
def test_arrays(
    data: np.ndarray[Any, Any], message: str, hint: str, call: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "c.npz", x=data)
    ran = call("compile", _model(tmp_path), *W8A8, "--calib", "c.npz", "--json")
    assert ran.code == 2
    assert message in ran.error["message"]
    assert hint in ran.error["hint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "model.onnx"]


def test_an_empty_folder(call: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("no image")
    options = (*W8A8, *PREPROCESS, "--calib", "images", "--json")
    ran = call("compile", _model(tmp_path), *options)
    assert ran.code == 2
    assert "expected image files, found none" in ran.error["message"]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_cannot_be_read(content: bytes, call: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (9, 9), (60 * i, 20, 90)).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(content)
    ran = call("compile", _model(tmp_path), *W8A8, *PREPROCESS, "--calib", "images", "--json")
    assert ran.code == 2
    assert "1.png: expected an image" in ran.error["message"]


def test_a_mismatch_is_a_warning_of_the_report(tmp_path: Path) -> None:
    """Raw pixels for a model whose recorded preprocessing normalizes them."""
    rng = np.random.default_rng(2)
    data = rng.integers(0, 256, (6, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "c.npz", x=data)
    model, options = _model(tmp_path), (*W8A8, *PREPROCESS, "--calib", "c.npz")
    ran = edgevit("compile", model, *options, "-o", "m.edgevit", cwd=tmp_path)
    assert ran.code == 0, ran.err
    (line,) = (x for x in ran.out.splitlines() if x.startswith("warning: "))
    assert "input 'x' holds values from 0 to 255" in line
    assert "prepared in another way" in line
    assert ran.out.splitlines()[-1].startswith("PASS")


@pytest.mark.parametrize("kind", ["constant", "negative"])
def test_odd_samples_still_make_a_sound_artifact(kind: str, tmp_path: Path) -> None:
    data = -np.abs(_samples()) - 1 if kind == "negative" else np.full_like(_samples(), 0.5)
    np.savez(tmp_path / "c.npz", x=data)
    options = (*W8A8, "--calib", "c.npz", "-o", "m.edgevit", "--json")
    ran = edgevit("compile", _model(tmp_path), *options, cwd=tmp_path)
    assert ran.code == 0, ran.err + ran.out
    assert len(ran.result["warnings"]) == (kind == "constant")
    assert ran.result["verification"]["first_divergent"] is None
    figure = ran.result["parity"]["sqnr_db"]
    assert figure.get("exact") or figure["value"] > 25


def test_a_budget_that_cannot_be_met_names_what_can(call: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=_samples())
    passes = "mixed-precision{bits=4|8,budget=0.4,samples=2}"
    options = (*W8A8, "--calib", "c.npz", "--passes", passes, "--json")
    ran = call("compile", _model(tmp_path), *options)
    assert ran.code == 1
    # The linear layer's 96 * 4 numbers, in bytes, at 4 bits half of them; the convolution of 3
    # channels stays float on this engine (a rule of the device file).
    assert "a budget of 153.6 bytes cannot be met" in ran.error["message"]
    assert "best reachable is 192 bytes" in ran.error["message"]
    assert "raise the budget" in ran.error["hint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "model.onnx"]
