"""Sweeps that are killed, and sweeps on a cluster of other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgevit import api
from edgevit.progress import SilentProgress
from edgevit.studies import parse_axes
from edgevit.sweep import Sweep, finished, sweep, tasks_of, text_of_sweep
from tests.support.cli import FIXTURES, PREPROCESS, edgevit

pytestmark = pytest.mark.long

DATA = FIXTURES / "data" / "fashion_test_500.npz"
GRID = ["photons=30,100,1000", "adc-bits=6,8", "shift=0,0.3"]
SAMPLES = 128
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("optical") / "vit.edgevit"
    api.compile(
        FIXTURES / "models" / "fashion_vit_ts.onnx",
        target="optical-4f:plane=256x256",
        preprocess=PREPROCESS,
        verify=False,
        output=out,
    )
    return out


def asked(bundle: Path, out: Path, **more: Any) -> Sweep:
    return Sweep(bundle, parse_axes(GRID), out, data=DATA, count=SAMPLES, **more)


def arguments(bundle: Path, out: Path) -> list[str]:
    grid = [word for text in GRID for word in ("--grid", text)]
    samples = ["--data", str(DATA), "--samples", str(SAMPLES)]
    return ["sweep", str(bundle), *grid, *samples, "-o", str(out), "--json"]


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sweep without any interruption."""
    out = tmp_path_factory.mktemp("whole") / "r.jsonl"
    return sweep(asked(bundle, out), SilentProgress())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_killed_half_way_nothing_is_lost(
    bundle: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "r.jsonl"
    tasks = len(tasks_of(asked(bundle, out)))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgevit", *arguments(bundle, out)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if out.exists() and out.read_text(encoding="utf-8").count("\n") >= tasks // 2:
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = finished(out)
    assert tasks // 2 <= len(kept) < tasks
    again = edgevit(*arguments(bundle, out), cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.result["resumed"] == len(kept)
    assert again.result["rows"] == whole["rows"]
    assert len(finished(out)) == tasks


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A scheduler and workers in processes of their own, on 127.0.0.1."""
    where = folder / "scheduler.json"
    commands = [
        ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
         "--no-dashboard", "--scheduler-file", str(where)],
        *[["distributed.cli.dask_worker", "--scheduler-file", str(where), "--nthreads", "1",
           "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--name", f"w{i}"]
          for i in range(workers)],
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )
            for command in commands
        ]
        try:
            yield _address(where)
        finally:
            # A worker that is asked to end waits for its scheduler.
            for process in started:
                process.kill()
                process.wait()


def _address(where: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if where.exists():
            return str(json.loads(where.read_text(encoding="utf-8"))["address"])
        time.sleep(0.05)
    raise AssertionError(f"no scheduler wrote {where}")


def test_two_processes_over_loopback_find_the_same(
    bundle: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    from distributed import Client

    with cluster(tmp_path, workers=2) as address:
        assert address.startswith("tcp://127.0.0.1:")
        with Client(address) as client:
            client.wait_for_workers(2, timeout=PATIENCE_S)
            processes = set(client.run(os.getpid).values())
        assert len(processes) == 2
        assert os.getpid() not in processes
        what = asked(bundle, tmp_path / "r.jsonl", scheduler=address)
        found = sweep(what, SilentProgress())
    assert found["rows"] == whole["rows"]


def test_the_front_starts_with_what_is_hypothetical(bundle: Path, tmp_path: Path) -> None:
    setups = ("catalogue-1080p-60", "hypothetical-4k-2mhz")
    what = asked(bundle, tmp_path / "r.jsonl", setups=setups)
    found = sweep(what, SilentProgress())
    points = found["front"]["points"]
    assert len(points) == 2 * len(found["rows"])
    assert any(p["optimal"] for p in points)
    text = text_of_sweep(found)
    assert "not verified" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("hypothetical")
    assert "sign factor, mask writes, read-out and link" in text
