"""A sweep of 200 devices x 256 images of the ViT fixture, timed from start to end.

python -m benchmarks.optical_sweep [--workers 2] [--picture OUT.png] [--keep FOLDER]

Runs ``edgevit sweep`` on a local Dask cluster, as anybody would, with the costs of three
set-ups; the picture is the front of accuracy and latency.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
SETUPS = ("catalogue-1080p-60", "catalogue-dmd-23k", "hypothetical-4k-2mhz")
EDGEVIT = (sys.executable, "-m", "edgevit")


def swept(folder: Path, workers: int) -> tuple[dict[str, Any], float, float]:
    """The sweep's answer, its wall seconds and the CPU seconds of its processes."""
    bundle = folder / "vit.edgevit"
    if not bundle.exists():
        made = ["compile", str(find("fashion_vit_ts")), "--target", "optical-4f", "-q"]
        made += ["--preprocess", PREPROCESS, "--no-verify", "-o", str(bundle)]
        subprocess.run([*EDGEVIT, *made], check=True)
    grid = [word for text in GRID for word in ("--grid", text)]
    asked = ["sweep", str(bundle), *grid, "--data", str(SLICE), "--samples", "256"]
    asked += ["-o", str(folder / "sweep.jsonl"), "--workers", str(workers), "--json"]
    asked += ["--setup", ",".join(SETUPS)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*EDGEVIT, *asked], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result, seconds, spent


def draw(path: Path, front: Mapping[str, Any]) -> None:
    """Accuracy against latency and energy; what nothing beats is joined."""
    points: Sequence[Mapping[str, Any]] = front["points"]
    share = Axis("accuracy", 0.0, 1.0, (0, 0.2, 0.4, 0.6, 0.8, 1))
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
        ticks = tuple(10.0**k for k in range(5))
        panels.append(Panel(title, Axis(title, low, high, ticks, True), share, tuple(curves)))
    draw_panels(path, panels)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the bundle and the results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result, seconds, spent = swept(folder, given.workers)
    rows, front = result["rows"], result["front"]
    images = sum(row["samples"] for row in rows)
    worst = max(row["standard_error"] for row in rows)
    print(
        f"{len(rows)} devices, {images} images, {result['resumed']} of {result['tasks']} "
        f"tasks resumed: {seconds:.1f} s with {given.workers} workers, "
        f"{spent:.1f} CPU s of all processes; "
        f"standard errors up to {worst:.3f}"
    )
    for headline in front["headlines"]:
        print(headline)
    for point in front["points"]:
        if point["optimal"]:
            print(json.dumps(point))
    if given.picture is not None:
        draw(given.picture, front)


if __name__ == "__main__":
    main()
