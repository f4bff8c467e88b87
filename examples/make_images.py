"""Make the example images that the text recognizer reads, with their labels.

    python -m examples.make_images

``labels.json`` names the exact text of each image. The faces are under the SIL Open Font
License, which says nothing about pictures drawn with them.
"""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from benchmarks.corpus.fonts import Face
from benchmarks.corpus.store import ROOT, write_atomic
from benchmarks.corpus.text_images import Color, default_source, degrade, draw

FOLDER = ROOT / "examples" / "images"
SEED = 2026
# file, text, face, ink, paper, degraded or not
IMAGES: tuple[tuple[str, str, str, Color, Color, bool], ...] = (
    (
        "label.png",
        "Raspberry-2026",
        "IBMPlexSerif-SemiBold",
        (16, 24, 64),
        (250, 246, 232),
        False,
    ),
    ("sign.png", "Vision Transformer", "Poppins-Medium", (255, 221, 64), (24, 72, 96), True),
)


def find_face(name: str) -> Face:
    """Return the face of that name from the pinned font packages."""
    faces = {face.name: face for family in default_source().families for face in family}
    return faces[name]


def render(text: str, face: str, ink: Color, paper: Color, worn: bool) -> Image.Image:
    """Draw one image; ``worn`` applies the generator's hard degradations."""
    image = draw(text, find_face(face).font(48), ink, paper)
    return degrade(image, paper, np.random.default_rng(SEED)) if worn else image


def main() -> None:
    """Write the images and ``labels.json``."""
    for file, text, face, ink, paper, worn in IMAGES:
        stream = io.BytesIO()
        render(text, face, ink, paper, worn).save(stream, "PNG", optimize=True)
        write_atomic(FOLDER / file, stream.getvalue())
        print(f"{file}: {text}")
    labels = {file: text for file, text, *_ in IMAGES}
    write_atomic(FOLDER / "labels.json", (json.dumps(labels, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
