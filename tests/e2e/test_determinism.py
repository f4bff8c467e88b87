"""Two compiles of one model, in processes that differ in everything that must not matter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.corpus.store import FIXTURES

MODEL = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
NAME = "model.edgevit"
TARGETS = ("onnx", "raspberry-pi-5", "iphone-npu", "linux-x86:backend=tvm")


def compile_in(folder: Path, target: str, hash_seed: str) -> dict[str, bytes]:
    """The files of a bundle made in ``folder``, with its own hash seed and TMPDIR."""
    (folder / "tmp").mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "TMPDIR": str(folder / "tmp"),
    }
    command = [sys.executable, "-m", "edgevit", "compile", str(MODEL)]
    done = subprocess.run(
        [*command, "--target", target, "--output", NAME, "--quiet"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    root = folder / NAME
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("target", TARGETS)
def test_two_processes_write_the_same_bytes(target: str, tmp_path: Path) -> None:
    first = compile_in(tmp_path / "first", target, "1")
    second = compile_in(tmp_path / "another" / "second", target, "2")
    assert {"manifest.json", "selfcheck.npz"} < set(first)
    assert list(first) == list(second)
    differ = [path for path, content in first.items() if content != second[path]]
    assert differ == []


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_in_a_bundle_says_where_it_was_made(target: str, tmp_path: Path) -> None:
    found = compile_in(tmp_path, target, "3")
    traces = [str(tmp_path).encode(), os.fsencode(Path.home()), b"edgevit-staging"]
    said = [(path, trace) for path, data in found.items() for trace in traces if trace in data]
    assert said == []
