"""300 damaged model files: each is refused with a message, or taken; nothing else happens.

One child process serves them all, so that a crash or a hang of native code is an answer too.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.mutate import MUTATIONS, mutate

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "tests" / "fixtures" / "models").glob("fashion_*.onnx"))
# A healthy file takes 0.1 s; the first answer includes the imports.
LIMIT_S = 60.0
# A compile that verifies starts some five processes.
COMPILE_LIMIT_S = 300.0


class Child:
    """The worker, restarted by nobody: the first crash or hang is the finding."""

    def __init__(self, log: Path, targets: tuple[str, ...]) -> None:
        self._log = log
        self._limit_s = COMPILE_LIMIT_S if "--compile" in targets else LIMIT_S
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.mutation_worker", *targets],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )

    def ask(self, path: Path) -> dict[str, str]:
        """The worker's answer; ``crashed`` or ``hung`` if there is none."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{path}\n")
        stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._limit_s):
                return {"outcome": "hung", "detail": f"no answer within {self._limit_s} s"}
        line = stdout.readline()
        if not line:
            return {"outcome": "crashed", "detail": self._log.read_text()[-2000:]}
        answer: dict[str, str] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def child(tmp_path: Path, *targets: str) -> Iterator[Child]:
    worker = Child(tmp_path / "stderr.txt", targets)
    try:
        yield worker
    finally:
        worker.close()


def serve(folder: Path, seed: int, count: int, *targets: str) -> dict[str, int]:
    """Ask about ``count`` damaged files; returns how often each good answer came.

    Files that load and canonicalize are lowered for ``targets`` too; with ``--compile`` ahead
    of them each file is compiled and verified for one.

    Raises:
        AssertionError: The first answer that is none of ``ok``, ``failed`` and ``refused``.
    """
    contents = [path.read_bytes() for path in MODELS]
    counted = {"ok": 0, "failed": 0, "refused": 0}
    path = folder / "mutated.onnx"
    with child(folder, *targets) as worker:
        for index in range(count):
            rng = np.random.default_rng([seed, index])
            name, damaged = mutate(contents[index % len(contents)], rng)
            path.write_bytes(damaged)
            answer = worker.ask(path)
            where = f"seed {seed}, file {index} ({name}): {answer['detail']}"
            assert answer["outcome"] in counted, where
            counted[answer["outcome"]] += 1
    return counted


def test_300_damaged_files(tmp_path: Path) -> None:
    counted = serve(tmp_path, 20240, 300, "onnx", "raspberry-pi-5")
    # Most damage must be noticed, and some (a flipped weight bit) is a valid model again.
    assert counted["refused"] > 200
    assert counted["ok"] > 5


@pytest.mark.long
def test_5000_more(tmp_path: Path) -> None:
    counted = serve(tmp_path, 20241, 5000, "onnx", "raspberry-pi-5", "iphone-npu")
    assert counted["refused"] > 3000


@pytest.mark.long
def test_1000_compiled(tmp_path: Path) -> None:
    """The whole way, verification included: exit 0, 1 or 2, and nothing left behind."""
    folder = tmp_path / "served"
    folder.mkdir()
    counted = serve(folder, 20242, 1000, "--compile", "onnx", "linux-x86", "iphone-npu")
    assert counted["refused"] > 600
    assert counted["ok"] > 15


def test_undamaged_files_are_taken(tmp_path: Path) -> None:
    with child(tmp_path, "onnx") as worker:
        for path in MODELS:
            assert worker.ask(path) == {"outcome": "ok", "detail": ""}, path.name


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_each_mutation_does_damage(name: str) -> None:
    """A mutation that changes nothing would make the test above say nothing."""
    content = MODELS[0].read_bytes()
    changed = 0
    for index in range(20):
        try:
            changed += MUTATIONS[name](content, np.random.default_rng(index)) != content
        except ValueError:
            continue  # nothing of this kind in the model
    assert changed >= 3
