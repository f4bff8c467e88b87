"""The generator of text images, the choice of faces, and the recognizers' preprocessing."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from PIL import Image, ImageFont

from benchmarks.corpus import text_images
from benchmarks.corpus.fonts import ALPHABET, Face, family_faces, missing_glyphs
from benchmarks.corpus.text_images import TextSource, Variant, generate, preprocess

WORDS = ("able", "river", "quiz")
KINDS = (
    r"[A-Za-z]+",
    r"[A-Za-z]+ [A-Za-z]+",
    r"[0-9]+",
    r"[A-Z][a-z]+-[0-9]{4}",
    r"\$[0-9]{1,2}\.[0-9]{2} [A-Z]+",
)


@pytest.fixture(scope="module")
def font_file() -> bytes:
    """The face that Pillow carries with it, so that no package is needed."""
    data = ImageFont.load_default(10).font_bytes
    assert isinstance(data, bytes)
    return data


@pytest.fixture(scope="module")
def source(font_file: bytes) -> TextSource:
    return TextSource(WORDS, ((Face("builtin", font_file),),))


def pixels(source: TextSource, variant: Variant, seed: int, count: int) -> str:
    state = hashlib.sha256()
    for sample in generate(source, variant, seed, count):
        state.update(sample.label.encode() + np.asarray(sample.image).tobytes())
    return state.hexdigest()


def test_labels_of_a_seed_are_known(source: TextSource) -> None:
    labels = [sample.label for sample in generate(source, "clean", 1, 6)]
    assert labels == ["755167", "3621", "River-9445", "82", "River-4481", "$39.37 QUIZ"]


def test_pixels_of_a_seed_are_known(source: TextSource) -> None:
    # Of clean images: FreeType rasterizes in integers. A new Pillow may change it.
    assert pixels(source, "clean", 1, 6) == (
        "0c486086d9379eb5d5152714a3653cdf329c046dc08424fd8f50f81e16960c30"
    )


@pytest.mark.parametrize("variant", ["clean", "hard"])
def test_same_seed_same_pixels(source: TextSource, variant: Variant) -> None:
    first = pixels(source, variant, 7, 4)
    assert pixels(source, variant, 7, 4) == first
    assert pixels(source, variant, 8, 4) != first


def test_samples_do_not_depend_on_the_count(source: TextSource) -> None:
    few = [np.asarray(s.image) for s in generate(source, "hard", 3, 2)]
    many = [np.asarray(s.image) for s in generate(source, "hard", 3, 5)]
    assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=False))
    assert not np.array_equal(many[0], many[1])


def test_labels_are_of_the_five_kinds() -> None:
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(300):
        label = text_images.make_label(rng, WORDS)
        seen |= {kind for kind in KINDS if re.fullmatch(kind, label)}
        assert set(label) <= set(ALPHABET) | {" "}
        assert any(re.fullmatch(kind, label) for kind in KINDS), label
    assert seen == set(KINDS)


def test_clean_is_black_on_white_and_hard_is_not(source: TextSource) -> None:
    (clean,) = generate(source, "clean", 2, 1)
    corner = np.asarray(clean.image)[0, 0].tolist()
    assert corner == [255, 255, 255]
    assert np.asarray(clean.image).min() == 0
    (hard,) = generate(source, "hard", 2, 1)
    assert np.asarray(hard.image)[:4].std() > 0.5  # noise where the clean image is flat


def test_colors_keep_their_contrast() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        pair = np.array(text_images._colors(rng))
        luminance = pair @ np.array([0.299, 0.587, 0.114])
        assert abs(luminance[0] - luminance[1]) >= 80.0


def test_hairline_styles_are_left_out(font_file: bytes) -> None:
    names = ("F-Bold.ttf", "F-Thin.ttf", "F-ExtraLightItalic.ttf", "F-Light.ttf")
    kept = family_faces(dict.fromkeys(names, font_file))
    assert [face.name for face in kept] == ["F-Bold", "F-Light"]


def test_missing_glyphs_are_found(font_file: bytes) -> None:
    font = Face("builtin", font_file).font(32)
    assert missing_glyphs(font) == ""
    assert missing_glyphs(font, "A\u7597B") == "\u7597"
    assert missing_glyphs(font, "A B") == " "  # draws nothing


def test_preprocess_is_bgr_normalized_and_padded() -> None:
    tensor = preprocess(Image.new("RGB", (96, 48), (255, 51, 0)))
    assert tensor.shape == (1, 3, 48, 320)
    assert tensor.dtype == np.float32
    for channel, expected in enumerate((-1.0, -0.6, 1.0)):
        # One rounding each for the division, subtraction and division, results <= 1.
        np.testing.assert_allclose(
            tensor[0, channel, :, :96], expected, rtol=0, atol=3 * 2**-23
        )
    assert not tensor[:, :, :, 96:].any()


@pytest.mark.parametrize(
    ("size", "expected"), [((96, 24), (192, 48)), ((10, 96), (5, 48)), ((640, 48), (320, 24))]
)
def test_preprocess_keeps_the_aspect_ratio(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    inked = preprocess(Image.new("RGB", size, (255, 255, 255)))[0, 0] != 0
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    assert (columns.max() + 1, rows.max() + 1) == expected


def test_short_form_says_what_preprocess_does() -> None:
    fields = dict(part.split("=") for part in text_images.PREPROCESS.split(","))
    assert fields.pop("resize") == f"{text_images.HEIGHT}x{text_images.WIDTH}"
    assert (fields.pop("color"), fields.pop("fit"), fields.pop("pad")) == ("bgr", "pad", "0")
    scale, mean, std = (float(fields.pop(key)) for key in ("scale", "mean", "std"))
    assert not fields
    tensor = preprocess(Image.new("RGB", (320, 48), (10, 100, 200)))
    spoken = [(value * scale - mean) / std for value in (200, 100, 10)]
    np.testing.assert_allclose(tensor[0, :, 7, 9], spoken, rtol=0, atol=3 * 2**-23)
