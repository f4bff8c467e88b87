"""Shift recipes from the command line: compiled, verified, reported, verified again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.corpus.fashion import preprocess
from benchmarks.corpus.store import FIXTURES
from tests.support.cli import edgevit

BEFORE = "quantize{weights=-1,rules=false}"
LONG = pytest.mark.long


MODEL = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
NAME = onnx.load(MODEL).graph.input[0].name


def _garments(path: Path, start: int, count: int) -> Path:
    with np.load(FIXTURES / "data" / "fashion_test_500.npz") as data:
        images = data["images"][start : start + count]
    np.savez(path, **{NAME: preprocess(images)[:, None]})  # type: ignore[arg-type]
    return path


def _compiled(folder: Path, target: str, *options: object) -> tuple[Path, Any]:
    out = folder / "made.edgevit"
    asked = ["--target", target, "--calib", _garments(folder / "calib.npz", 0, 16)]
    asked += ["--inputs", _garments(folder / "inputs.npz", 16, 3), *options]
    ran = edgevit("compile", MODEL, *asked, "-o", out, "--json", cwd=folder)
    assert ran.code == 0, ran.err + ran.out
    return out, ran.result


def _verified(out: Path) -> None:
    inputs = out.parent / "inputs.npz"
    asked = ["verify", out, "--against", MODEL, "--inputs", inputs, "--json"]
    ran = edgevit(*asked, cwd=out.parent)
    assert ran.code == 0, ran.err + ran.out


def test_a_recipe_compiles_verifies_and_says_what_it_did(tmp_path: Path) -> None:
    out, result = _compiled(tmp_path, "onnx", "--recipe", "shift-1")
    passes = {p["spec"].split("{")[0]: p for p in result["passes"]}
    assert passes["shiftadd"]["effect"] == "calibrated"
    assert passes["unpack-shifts"]["effect"] == "exact"
    assert "layers of shifts, 1.00 terms a weight" in passes["shiftadd"]["notes"][0]["text"]
    layers = {n["node"]: n["text"] for n in passes["shiftadd"]["notes"] if n["node"]}
    assert all("1 term, 4 bits a weight, 2^e" in text for text in layers.values())
    lowered = {n["node"]: n["text"] for n in passes["unpack-shifts"]["notes"]}
    assert set(lowered) == set(layers)
    assert any("int8 codes on 8-bit activations" in text for text in lowered.values())
    assert result["parity"]["sqnr_db"]["pass"]
    _verified(out)


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        pytest.param("linux-x86", f"{BEFORE},shiftadd,sink-quantizers", marks=LONG),
        pytest.param("iphone-npu", f"{BEFORE},shiftadd", marks=LONG),
        pytest.param("onnx", f"{BEFORE},shiftadd{{wide=true}},sink-quantizers", marks=LONG),
        pytest.param(
            "onnx", f"{BEFORE},shiftadd{{terms=1|2|3,budget=1.5}},sink-quantizers", marks=LONG
        ),
        pytest.param("onnx", f"{BEFORE},shift-round{{terms=3}},sink-quantizers", marks=LONG),
    ],
)
def test_every_target_verifies(target: str, passes: str, tmp_path: Path) -> None:
    precision = ["--precision", "w8a8"]
    out, result = _compiled(tmp_path, target, *precision, "--passes", passes)
    assert result["coverage"]["fallback"] == []
    _verified(out)


def test_without_samples_nothing_is_made(tmp_path: Path) -> None:
    asked = ["--target", "onnx", "--recipe", "shift-2", "-o", tmp_path / "o.edgevit"]
    ran = edgevit("compile", MODEL, *asked, "--json", cwd=tmp_path)
    assert ran.code == 2
    assert "calib" in ran.out + ran.err
    assert not (tmp_path / "o.edgevit").exists()
