"""Attention maps of trained networks as one picture.

    .venv-torch/bin/python -m examples.convshare_training.picture WEIGHTS_FOLDER OUT.png

Three test images; for each kind of network (seed 0) where the class token looks on average
over the heads of a layer: one column a layer, bright = much, each map from zero to its own
largest value. Left of each row of maps is the image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.corpus.fashion import CLASSES, load_slice, preprocess
from examples.convshare_training.attention import GRID, attention
from examples.convshare_training.export import network_of
from examples.convshare_training.network import DEPTH, KINDS, Kind

TITLES: dict[Kind, str] = {
    "linear": "plain transformer",
    "valid": "shared kernels, valid",
    "same": "shared kernels, same",
}
# Of the committed test images: an ankle boot, a pullover, a trouser.
SHOWN = (0, 1, 2)
CELL, GAP, HEAD = 84, 6, 18


def tile(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
    """A square map as a grey picture of one cell."""
    grey = np.rint(values / values.max() * 255).astype(np.uint8)
    return Image.fromarray(grey).resize((CELL, CELL), Image.Resampling.NEAREST)


def main(folder: Path, out: Path) -> None:
    """Draw."""
    data = load_slice()
    images = torch.from_numpy(preprocess(data.images[list(SHOWN)]))
    columns = 1 + DEPTH
    block = columns * (CELL + GAP) + 2 * GAP
    size = (len(KINDS) * block, HEAD + len(SHOWN) * (CELL + HEAD + GAP))
    page = Image.new("L", size, 255)
    draw = ImageDraw.Draw(page)
    for k, kind in enumerate(TITLES):
        # [layers, images, tokens]: from the class token to patches, mean over heads.
        maps = attention(network_of(folder / f"{kind}-0.npz"), images)[..., 0, 1:].mean(2)
        draw.text((k * block, 2), f"{TITLES[kind]}: image, layers 1 to {DEPTH}", fill=0)
        for i, shown in enumerate(SHOWN):
            top = HEAD + i * (CELL + HEAD + GAP)
            draw.text((k * block, top), CLASSES[data.labels[shown]], fill=0)
            parts = [data.images[shown].astype(np.float32)]
            parts += [m.reshape(GRID, GRID).numpy() for m in maps[:, i]]
            for c, part in enumerate(parts):
                page.paste(tile(part), (k * block + c * (CELL + GAP), top + HEAD - 4))
    out.parent.mkdir(parents=True, exist_ok=True)
    page.quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
