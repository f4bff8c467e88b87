"""Recognizers of text at three widths in one bundle: verified, and what it costs on disk.

    python -m benchmarks.shapes [--models NAME ...] [--targets NAME ...] [--json FILE]

Each model is compiled with three ``--shape`` (1 x 3 x 48 x 160, 320 and 640) and verified at
each; then at the middle width alone, not verified, for its size. What fails is a row of the
table all the same, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.corpus.store import ROOT
from benchmarks.edgevit_json import Answer, call

__all__ = ["main", "row"]

FOLDER = ROOT / "build" / "shapes"
MODELS = ("ppocrv4_rec", "ppocrv6_rec_small")
TARGETS = ("linux-x86", "onnx", "iphone-npu", "iphone-npu:os=18")
WIDTHS = (160, 320, 640)
# Of the synthetic images, and of the parity figures, the ones that gate each precision.
METRICS = ("max_rel", "psnr_db")


def _compile(model: str, target: str, widths: tuple[int, ...], verify: bool) -> Answer:
    name = f"{model}-{target.replace(':', '-').replace('=', '')}-{len(widths)}"
    options = ["--target", target, "-o", str(FOLDER / f"{name}.edgevit"), "--overwrite"]
    options += [] if verify else ["--no-verify"]
    for width in widths:
        options += ["--shape", f"x=1,3,48,{width}"]
    source = ROOT / ".cache" / "models" / f"{model}.onnx"
    return call(["compile", str(source), *options])


def _artifact_bytes(result: dict[str, Any]) -> int:
    """Of what a device runs: neither samples nor records."""
    kept = (".tflite", ".onnx", ".weights", ".bin", ".mlmodel")
    return sum(f["bytes"] for f in result["files"] if f["path"].endswith(kept))


def _figure(entry: dict[str, Any]) -> str:
    known = [m for m in METRICS if m in entry["parity"]]
    return ", ".join(f"{m} {entry['parity'][m]['value']:.3g}" for m in known)


def row(model: str, target: str) -> dict[str, Any]:
    """Compile one model for one target; the row of the table.

    Returns:
        ``model``, ``target``, ``error`` (empty if it passed), ``coverage``, ``entries`` (width
        -> the worst figure over samples and outputs), ``replayed`` nodes, artifact ``bytes``,
        those of ``one_width``, and ``seconds`` of the compile with its verification.
    """
    several = _compile(model, target, WIDTHS, verify=True)
    found: dict[str, Any] = {"model": model, "target": target, "error": several.error}
    if several.exit_code:
        return found
    alone = _compile(model, target, WIDTHS[1:2], verify=False)
    if alone.exit_code:
        return {**found, "error": f"one width: {alone.error}"}
    result, covered = several.result, several.result["coverage"]
    return {
        **found,
        "coverage": f"{covered['on_target']}/{covered['nodes']}",
        "entries": {
            str(w): _figure(e) for w, e in zip(WIDTHS, result["entries"], strict=True)
        },
        "replayed": result["verification"]["replayed"],
        "bytes": _artifact_bytes(result),
        "one_width": _artifact_bytes(alone.result),
        "seconds": result["seconds"],
    }


def _line(found: dict[str, Any]) -> str:
    start = f"| {found['model']} | {found['target']} |"
    if found["error"]:
        return f"{start} FAILED: {found['error']} |"
    figures = " | ".join(found["entries"].values())
    more = found["bytes"] / found["one_width"]
    return (
        f"{start} {found['coverage']} | {figures} | {found['replayed']} | "
        f"{found['bytes']:,} | {found['one_width']:,} | {more:.3f} | {found['seconds']:.0f} |"
    )


def main() -> int:
    """Print the table as Markdown, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description="Recognizers at three widths in one bundle")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    widths = " | ".join(f"width {w}" for w in WIDTHS)
    head = f"| model | target | nodes | {widths} | replayed | bytes | one width | ratio | s |"
    print(f"{head}\n{'|---' * (head.count('|') - 1)}|", flush=True)
    rows = []
    for model in options.models:
        for target in options.targets:
            rows.append(row(model, target))
            print(_line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 2 if any(r["error"] for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
