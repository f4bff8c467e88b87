"""Register tiles as data: every one computes the same, and bundles hold those they used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.targets.tvm.kernels.arithmetic import integer
from edgevit.targets.tvm.kernels.epilogue import Epilogue
from edgevit.targets.tvm.kernels.gemm import Gemm, layout
from edgevit.targets.tvm.kernels.tile import tile_rows
from edgevit.targets.tvm.machine import MACHINES, native
from edgevit.targets.tvm.tiles import Tile, candidates, name_of, parse_tiles, with_tile
from tests.support.cli import FIXTURES, edgevit
from tests.support.native import kernels

MODEL = FIXTURES / "models" / "fashion_vit_ts.onnx"
TARGET = "linux-x86:backend=tvm"


def _gemm() -> Gemm:
    kind = integer(native())
    return Gemm(23, 16, layout(83, native()), 16, 83, Epilogue(scale=True), kind)


def _operands(gemm: Gemm) -> list[np.ndarray[Any, Any]]:
    """Codes, panels of the tile's width, offsets, scales, result."""
    rng = np.random.default_rng(2)
    kind = gemm.arithmetic
    low = 0 if kind.left == "uint8" else -100
    weights = rng.integers(-100, 100, (16, 83)).astype(np.int8)
    grouped = weights.reshape(-1, kind.group, 83).transpose(0, 2, 1)
    a = rng.integers(low, 100, 23 * 16).astype(kind.left)
    zeros, ones = np.zeros(83, np.int32), np.ones(83, np.float32)
    return [a, gemm.columns.pack(grouped), zeros, ones, np.full(23 * 83, np.nan, np.float32)]


def test_every_tile_computes_the_same() -> None:
    own = _gemm()
    every = [own, *(with_tile(own, t) for t in candidates(own, native()))]
    jobs = [(gemm, _operands(gemm)) for gemm in every]
    kernels(native(), jobs)
    assert len(every) > 6
    assert all(np.array_equal(job[1][-1], jobs[0][1][-1]) for job in jobs)
    assert np.isfinite(jobs[0][1][-1]).all()


def test_tiles_fit_into_registers() -> None:
    for machine in MACHINES.values():
        gemm = Gemm(99, 8, layout(512, machine), 8, 512)
        for tile in candidates(gemm, machine):
            assert tile.rows <= tile_rows(machine, tile.vectors)
            assert (tile.vectors, tile.rows) != (gemm.columns.height, gemm.tile)
        assert name_of(gemm) == "gemm 99x512x8 float32"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "expected a tuning file of schema 1"),
        ({"machine": "cortex-a76"}, "was measured on cortex-a76"),
        ({"products": {"gemm 1x1x1 float32": {"tile": [99, 1]}}}, "not a tuning file"),
        ({"products": {"gemm 1x1x1 float32": {}}}, "not a tuning file"),
        ({"products": 3}, "not a tuning file"),
    ],
)
def test_damaged_files_are_refused(change: dict[str, Any], said: str) -> None:
    data = {"schema": 1, "machine": native().name, "products": {}, **change}
    with pytest.raises(InputError, match=said):
        parse_tiles(data, native(), "file")


def test_choices_are_an_input(tmp_path: Path) -> None:
    """What a file chooses is in the plan; the same file makes the same bytes."""
    tile = Tile(2, 3)
    product = {"tile": [tile.vectors, tile.rows], "ratio": [0.9, 0.9, 0.9], "tried": 1}
    name = "gemm 50x192x64 float32"
    data = {"schema": 1, "machine": native().name, "products": {name: product}}
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(data))
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        out = tmp_path / folder / "vit.edgevit"
        command = ["compile", MODEL, "--target", TARGET, "-o", out, "--no-verify"]
        command += ["--tuning", file]
        ran = edgevit(*command, cwd=tmp_path)
        assert ran.code == 0, ran.err
        made.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert made[0] == made[1]
    assert json.loads(made[0]["model.plan.json"])["tiles"] == {name: [2, 3]}


def test_tuning_measures_and_keeps(tmp_path: Path) -> None:
    """One tile of each product; what is in the file is not measured again."""
    out, file = tmp_path / "vit.edgevit", tmp_path / "kept.json"
    command = ["compile", MODEL, "--target", TARGET, "-o", out, "--no-verify"]
    ran = edgevit(*command, "--tune", "1", "--tuning", file, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "tune" in ran.err
    first = json.loads(file.read_text())
    assert first["machine"] == native().name
    assert len(first["products"]) >= 4
    for one in first["products"].values():
        assert one["tried"] <= 1
        assert bool(one["tile"]) == (one["ratio"][2] < 1)
    ran = edgevit(*command, "--overwrite", "--tune", "9", "--tuning", file, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert json.loads(file.read_text()) == first


def test_what_cannot_be_tuned_says_so(tmp_path: Path) -> None:
    ran = edgevit("compile", MODEL, "--target", "onnx", "--tune", "3", cwd=tmp_path)
    assert ran.code == 2
    assert "nothing to tune" in ran.err
    ran = edgevit("compile", MODEL, "--target", TARGET, "--tune", "0", cwd=tmp_path)
    assert ran.code == 2
    assert "at least 1" in ran.err
