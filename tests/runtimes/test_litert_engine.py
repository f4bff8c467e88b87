"""The LiteRT engine, in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgevit.runtimes.litert import LiteRTEngine
from tests.support.graphs import GraphBuilder
from tests.support.tflite import lower

_WORKER = Path(__file__).with_name("litert_worker.py")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    g = GraphBuilder()
    y = g.op("Add", g.input("x", (2, 3)), g.const(1.0), out="y")
    path = tmp_path / "m.tflite"
    path.write_bytes(lower(g.model(y)).files["m.tflite"])
    return path


def _child(*arguments: str) -> list[str]:
    command = [sys.executable, str(_WORKER), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.splitlines()


def test_probe_finds_the_package() -> None:
    availability = LiteRTEngine().probe()
    assert availability.ok
    assert availability.version.split(".")[0].isdigit()


def test_run_returns_owned_copies_and_checks_its_inputs(artifact: Path) -> None:
    lines = _child("run", str(artifact))
    assert lines[:3] == ["owned True", "values True", "strided True"]
    assert lines[3].startswith("InputError expected inputs ['x'], found []")
    assert lines[4].startswith("InputError expected inputs ['x'], found ['x', 'z']")
    assert lines[5].startswith("InputError input 'x': expected float32 (2, 3), found")
    assert "float64" in lines[6]
    assert lines[7].startswith("InputError this LiteRT session is closed")
    assert lines[8] == "heavy []"


def test_what_is_no_artifact_is_an_artifact_error(artifact: Path, tmp_path: Path) -> None:
    whole = artifact.read_bytes()
    broken = {
        "missing": None,
        "empty": b"",
        "text": b"not a flatbuffer, and longer than a header",
        "truncated": whole[: len(whole) // 2],
        "root": b"\xff\xff\xff\x7f" + whole[4:],
    }
    for name, content in broken.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    lines = _child("open", *(str(tmp_path / name) for name in broken), str(artifact))
    assert [line.split()[0] for line in lines] == ["ArtifactError"] * len(broken) + ["opened"]


def test_an_index_outside_of_its_axis_is_an_input_error(tmp_path: Path) -> None:
    g = GraphBuilder()
    table = g.const([[1, 2], [3, 4]])
    y = g.op("Gather", table, g.input("i", (2,), np.int64), axis=0, out="y")
    path = tmp_path / "m.tflite"
    path.write_bytes(lower(g.model(y)).files["m.tflite"])
    before, outside, after = _child("gather", str(path))
    assert (before, after) == ("rows 1.0 3.0", "rows 1.0 1.0")
    assert outside.startswith("InputError LiteRT fails on these inputs: ")
    assert "GATHER" in outside.upper()
