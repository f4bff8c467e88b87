"""Parity of routed models on every backend: tokens, forced routing, answers.

    python -m benchmarks.routing_parity [MODEL ...] [--target NAME ...]

Each model is compiled with ``moe`` (64 training images) and verified on 100 test images.
``forced``: largest error of a mixture's values over its derived tolerance, on the reference's
scores (the gate: at most 1). ``tokens``: of those that multiply, how many the artifact and the
reference share when the artifact runs by itself. ``answers``: arg-max agreement with the
source; the source has no mixtures, so that this is what the pass costs, not the backend.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quantization.cases import CALIBRATION, choose
from edgevit import api
from edgevit.recipe import Recipe, save_recipe

TARGETS = ("onnx", "linux-x86", "iphone-npu", "linux-x86-tvm")
MODELS = ("fashion_vit", "fashion_hybrid")
# Wide enough for any of them: what is found is printed, not judged.
BUDGET = {"max_rel": 0.9, "psnr_db": 5.0, "top1_agreement": 0.5}


def row(name: str, target: str, passes: str, count: int) -> dict[str, Any]:
    """Figures of one bundle."""
    (case,) = choose([name])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for split, number in (("train", CALIBRATION), ("test", count)):
            x = np.stack(list(case.images(split, number)))
            np.savez(folder / f"{split}.npz", x=x)
        save_recipe(Recipe.model_validate({"budget": BUDGET}), folder / "recipe.toml")
        bundle = api.compile(
            case.find(),
            target=target,
            passes=passes,
            calibration=str(folder / "train.npz"),
            inputs=str(folder / "test.npz"),
            recipe=str(folder / "recipe.toml"),
            output=folder / "made.edgevit",
        )
    found = bundle.result["verification"]
    routing = found["routing"]
    shared, every = (sum(sets[key] for sets in routing) for key in ("shared", "capacity"))
    ratios = [d["error"] / d["limit"] for d in found["worst"] if d["limit"]]
    return {
        "forced": max(ratios, default=0.0),
        "unjudged": len(found["unjudged"]),
        "tokens": f"{shared} of {every}",
        "answers": found["top1_agreement"],
        "psnr": next(iter(found["outputs"]))["psnr_db"],
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Parity of routed models.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--passes", default="moe")
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    print("| model | target | forced | not judged | tokens | answers | PSNR, dB |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models or MODELS:
        for target in options.target or TARGETS:
            r = row(model, target, options.passes, options.images)
            cells = (f"{r['forced']:.2f}", r["unjudged"], r["tokens"], f"{r['answers']:.2f}")
            shown = " | ".join(map(str, (model, target, *cells, f"{r['psnr']:.1f}")))
            print(f"| {shown} |", flush=True)


if __name__ == "__main__":
    main()
