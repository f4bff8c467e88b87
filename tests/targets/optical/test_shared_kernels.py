"""The committed ConvShareViT checkpoints on the ideal device: the accuracy that was trained.

``examples/convshare_training`` made them (seed 0, 20 epochs); its figures are on all 10,000
test images, of which the committed 500 are the first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.corpus.fashion import load_slice, preprocess
from benchmarks.optical_exactness import find
from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.loading import load
from edgevit.pipeline import Outcome
from edgevit.reference import run_reference
from edgevit.target import load_target
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.planner import candidates
from tests.targets.optical.test_golden import linear

LIMIT = 1e-4
# Share of right answers among the 10,000, measured where the networks were trained.
TRAINED = {"convshare_valid": 0.8760, "convshare_same": 0.8776}
# The same padding has three times the work: its 500 images are for the long run.
NAMES = ["convshare_valid", pytest.param("convshare_same", marks=pytest.mark.long)]


def opened(name: str, folder: Path, engine: str, plane: str) -> tuple[Any, Outcome]:
    model = load(find(name), {}).model
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    kept = registry.load("passes", "trained-convshare")()(model)
    backend = registry.load("backends", "optical")()
    target = load_target(f"optical-4f:plane={plane}")
    lowered = backend.lower(model, target, LowerOptions("fp32", "source", "model"))
    for file, content in lowered.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    part = lowered.part
    engine_of = registry.load("engines", engine)()
    return engine_of.open(folder / part.artifact, part, threads=1), kept


def samples(count: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [{"x": one[None]} for one in preprocess(load_slice().images[:count])]


def reference(name: str, count: int) -> np.ndarray[Any, Any]:
    outputs = run_reference(find(name).read_bytes(), samples(count)).outputs
    return np.concatenate([one["logits"] for one in outputs])


@pytest.mark.parametrize("name", NAMES)
def test_light_answers_500_images_as_the_trained_network_does(
    name: str, tmp_path: Path
) -> None:
    executor, kept = opened(name, tmp_path, "optical", "1080x1920")
    assert len(kept.changes) == 16, "four layers of each of four blocks"
    assert kept.refusals == ()
    shared = [s for s in executor.program.optical if s.static and "Conv" in s.name]
    assert len(shared) >= 16
    with executor:
        many = [executor.run_many(executor.product, part) for part in _parts(samples(500))]
    found = np.concatenate([part["logits"][:, 0] for part in many])
    expected = reference(name, 500)
    assert np.abs(found - expected).max() < LIMIT * np.abs(expected).max()
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    right = float((found.argmax(axis=1) == load_slice().labels).mean())
    expected_right = TRAINED[name]
    # Three standard errors of 500 draws.
    assert abs(right - expected_right) < 3 * math.sqrt(right * (1 - right) / 500)


def shared_layer(tokens: int, maps: int, kernels: int, pad: int) -> Layer:
    """Kernels of 5 x 5 on pictures of 8 x 8."""
    side = Window(8, 5, 1, 1, pad, 8 + 2 * pad - 4)
    shapes = ((tokens, 1, maps, 8, 8), (1, kernels, maps, 5, 5))
    counts = (tokens, 1, maps, kernels)
    return Layer("y", "x", shapes[0], "k", shapes[1], True, *counts, side, side, (), (), ())


@pytest.mark.parametrize(
    ("images", "plain", "shared"),
    [(1, 16, 128), (16, 68, 128), (64, 240, 128), (256, 960, 128)],
)
def test_shared_kernels_pay_where_tokens_of_many_images_fill_the_plane(
    images: int, plain: int, shared: int
) -> None:
    """Frames of the stored layers of four blocks, without the sign factor, 1080 x 1920.

    A kernel takes a frame for as many tokens as there are tiles (32,400 of 8 x 8), a linear
    layer takes pixels for each product. By hand: 4 (12 + 4 + 8 + 8) = 128.
    """
    plane, tokens = (1080, 1920), 50 * images
    sizes = [(64, 192), (64, 64), (64, 128), (128, 64)]
    layers = {
        "plain": [linear(tokens, *size) for size in sizes],
        "valid": [shared_layer(tokens, *n, 0) for n in ((1, 12), (1, 4), (1, 8), (2, 4))],
        "same": [shared_layer(tokens, *n, 2) for n in ((1, 12), (4, 1), (1, 8), (8, 1))],
    }
    frames = {
        kind: 4 * sum(min(c.frames for c in candidates(one, plane)) for one in every)
        for kind, every in layers.items()
    }
    assert frames == {"plain": plain, "valid": shared, "same": shared}


def _parts(every: list[Any]) -> list[list[Any]]:
    return [every[i : i + 50] for i in range(0, len(every), 50)]


@pytest.mark.parametrize("name", NAMES)
def test_waves_agree(name: str, tmp_path: Path) -> None:
    executor, _ = opened(name, tmp_path, "optical-wave", "256x256")
    with executor:
        found = executor.run(samples(1)[0])["logits"]
    expected = reference(name, 1)
    assert np.abs(found - expected).max() < LIMIT * np.abs(expected).max()


def test_the_plain_transformer_is_refused() -> None:
    """Nothing of it is shared: 16 linear layers are named, the classifier is not one."""
    model = load(find("fashion_vit_ts"), {}).model
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    done = registry.load("passes", "trained-convshare")()(model)
    assert not done.modified
    assert len(done.refusals) == 16
    assert all("train the network with shared kernels" in r.reason for r in done.refusals)
