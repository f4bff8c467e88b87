"""Trained networks of shifts and additions as compiled bundles, on the test images.

    python -m benchmarks.shiftadd_bundles build/shiftadd/vit-mixture-0.onnx --target onnx

For each file and target: compile, verify, answer the 10,000 official test images, and compare
with the answers that torch gave while training (``NAME.right.npy`` beside the file).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import load_full, preprocess
from benchmarks.zoo_tasks import upscale
from edgevit import api
from edgevit.runtimes.session import load

__all__ = ["row"]

Array = np.ndarray[Any, Any]


def images(size: int, count: int) -> Iterator[Array]:
    """Test images as a network takes them."""
    for image in load_full("test").images[:count]:
        yield preprocess(image[None]) if size == 28 else upscale(image, (size, size))


def row(file: Path, target: str, count: int) -> dict[str, Any]:
    """Figures of one bundle."""
    labels = load_full("test").labels[:count]
    with tempfile.TemporaryDirectory() as folder:
        made = api.compile(file, target=target, output=Path(folder) / "made.edgevit")
        assert made.path is not None
        with load(made.path, trust=True) as session:
            size = session.inputs[0].shape[-1]
            name = session.inputs[0].name
            found = [
                int(next(iter(session.run({name: x}).values())).argmax())
                for x in images(size, count)
            ]
        shipped = sum(f["bytes"] for f in made.result["files"] if "selfcheck" not in f["path"])
    right = np.array(found) == labels
    known = np.unpackbits(np.load(file.with_suffix(".right.npy")))[:count].astype(bool)
    parity = made.result["parity"]
    return {
        "file": file.name,
        "target": target,
        "accuracy": float(right.mean()),
        "torch": float(known.mean()),
        "differ": int((right != known).sum()),
        "images": count,
        "bytes": shipped,
        "parity": {k: v["value"] for k, v in parity.items() if isinstance(v, dict)},
    }


def main() -> None:
    """Print a line for each file and target."""
    parser = argparse.ArgumentParser(description="Bundles of trained networks.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    for file in options.files:
        for target in options.target or ["onnx"]:
            print(json.dumps(row(file, target, options.images)), flush=True)


if __name__ == "__main__":
    main()
