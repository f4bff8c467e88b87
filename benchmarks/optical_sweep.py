"""A sweep of 200 devices x 256 images of the ViT fixture, timed from start to end.

python -m benchmarks.optical_sweep [--workers 2] [--picture OUT.png] [--keep FOLDER]
    [--kill | --loopback]

Runs ``edgevit sweep`` on a local Dask cluster, as anybody would, with the costs of three
set-ups; the picture is accuracy against latency and energy. ``--kill``: all of its processes
get SIGKILL half-way, then it is resumed. ``--loopback``: on a scheduler and workers that run
in processes of their own on 127.0.0.1. Both are compared, task by task, with the undisturbed
sweep if the folder holds one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.corpus.fashion import PREPROCESS, SLICE
from benchmarks.optical_exactness import find
from benchmarks.plot import Axis, Curve, Panel, draw_panels

GRID = (
    "photons=10,30,100,1000,10000",
    "adc-bits=6,8,10,12",
    "mask-bits=0,8",
    "shift=0,0.1,0.2,0.3,0.4",
)
# Of 64 images each.
TASKS = 200 * 256 // 64
SETUPS = ("catalogue-1080p-60", "catalogue-dmd-23k", "hypothetical-4k-2mhz")
EDGEVIT = (sys.executable, "-m", "edgevit")


WHOLE = "sweep.jsonl"


def command(folder: Path, file: str, more: Sequence[str]) -> list[str]:
    """The sweep as it is typed; makes the bundle if the folder has none."""
    bundle = folder / "vit.edgevit"
    if not bundle.exists():
        made = ["compile", str(find("fashion_vit_ts")), "--target", "optical-4f", "-q"]
        made += ["--preprocess", PREPROCESS, "--no-verify", "-o", str(bundle)]
        subprocess.run([*EDGEVIT, *made], check=True)
    grid = [word for text in GRID for word in ("--grid", text)]
    asked = ["sweep", str(bundle), *grid, "--data", str(SLICE), "--samples", "256"]
    asked += ["-o", str(folder / file), "--json", "--setup", ",".join(SETUPS)]
    return [*EDGEVIT, *asked, *more]


def swept(asked: Sequence[str]) -> tuple[dict[str, Any], float, float]:
    """The sweep's answer, its wall seconds and the CPU seconds of its processes."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result, seconds, spent


def killed(asked: Sequence[str], file: Path, tasks: int) -> None:
    """Start the sweep, and end it without warning when half of the tasks are done."""
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, start_new_session=True)
    while not file.exists() or file.read_bytes().count(b"\n") < tasks // 2:
        if process.poll() is not None:
            raise SystemExit("the sweep ended before it was killed")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def loopback(folder: Path, workers: int) -> Iterator[list[str]]:
    """A scheduler and workers on 127.0.0.1; the options that lead a sweep there."""
    where = folder / "scheduler.json"
    where.unlink(missing_ok=True)
    at = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(where)]
    scheduler = ["distributed.cli.dask_scheduler", "--port", "0", *at]
    worker = ["distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *at]
    with (folder / "cluster.log").open("w") as log:
        started = [
            subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log)
            for words in (scheduler, *([worker] * workers))
        ]
        try:
            while not where.exists():
                time.sleep(0.05)
            address = json.loads(where.read_text(encoding="utf-8"))["address"]
            yield ["--scheduler", str(address)]
        finally:
            # A worker that is asked to end waits for its scheduler.
            for process in started:
                process.kill()
                process.wait()


def counts(file: Path) -> dict[str, tuple[int, int]]:
    """Right answers and samples of every task in a file of results."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["key"]: (row["right"], row["samples"]) for row in rows}


def draw(path: Path, front: Mapping[str, Any]) -> None:
    """Accuracy against latency and energy; what nothing beats is joined."""
    points: Sequence[Mapping[str, Any]] = front["points"]
    # Below zero there is room for the legend.
    share = Axis("accuracy", -0.32, 1.0, (0, 0.2, 0.4, 0.6, 0.8, 1))
    panels = []
    for key, title, scale, low, high in (
        ("seconds", "optics, ms an image", 1e3, 0.5, 2e4),
        ("joules", "optics, mJ an image", 1e3, 1, 2e4),
    ):
        curves = []
        for name in SETUPS:
            mine = [p for p in points if p["setup"] == name]
            spots = tuple((p[key] * scale, p["accuracy"], 0.0) for p in mine)
            curves.append(Curve(name, spots, loose=True))
        best = sorted((p[key] * scale, p["accuracy"], 0.0) for p in points if p["optimal"])
        curves.append(Curve("nothing beats these", tuple(best)))
        ticks = tuple(10.0**k for k in range(5))
        panels.append(Panel(title, Axis(title, low, high, ticks, True), share, tuple(curves)))
    draw_panels(path, panels)


def run(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Sweep as asked, print what it took, and compare with an undisturbed one."""
    file = "killed.jsonl" if given.kill else "loopback.jsonl" if given.loopback else WHOLE
    local = ["--workers", str(given.workers)]
    with loopback(folder, given.workers) if given.loopback else nullcontext(local) as more:
        asked = command(folder, file, more)
        if given.kill:
            killed(asked, folder / file, TASKS)
        result, seconds, spent = swept(asked)
    rows = result["rows"]
    print(
        f"{len(rows)} devices, {sum(row['samples'] for row in rows)} images, "
        f"{result['resumed']} of {result['tasks']} tasks resumed: {seconds:.1f} s with "
        f"{given.workers} workers, {spent:.1f} CPU s of the command and its children; "
        f"standard errors up to {max(row['standard_error'] for row in rows):.3f}"
    )
    if file != WHOLE and (folder / WHOLE).exists():
        one, other = counts(folder / WHOLE), counts(folder / file)
        same = sum(one[key] == other.get(key) for key in one)
        print(f"{same} of {len(one)} tasks as in the undisturbed sweep")
    return result


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the bundle and the results")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--kill", action="store_true")
    how.add_argument("--loopback", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        front = run(folder, given)["front"]
    for headline in front["headlines"]:
        print(headline)
    for point in front["points"]:
        if point["optimal"]:
            print(json.dumps(point))
    if given.picture is not None:
        draw(given.picture, front)


if __name__ == "__main__":
    main()
