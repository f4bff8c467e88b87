from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.errors import InputError, UsageError
from edgevit.preprocess import Preprocess

Array = np.ndarray[Any, Any]
IMAGENET = "resize=256,fit=shorter,crop=224x224,mean=.485/.456/.406,std=.229/.224/.225"
RECOGNIZER = "color=bgr,resize=48x320,fit=pad,pad=0,mean=.5,std=.5"


def picture(height: int, width: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-6, 1e6)
sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))


@st.composite
def specs(draw: st.DrawFn) -> Preprocess:
    color: Any = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    resize = draw(st.none() | sizes)
    fit: Any = draw(st.sampled_from(["stretch", "shorter", "pad"])) if resize else "stretch"
    count = draw(st.sampled_from([1, 1 if color == "gray" else 3]))
    return Preprocess(
        color=color,
        resize=resize,
        fit=fit,
        crop=draw(st.none() | sizes),
        scale=draw(positive),
        mean=draw(st.tuples(*[finite] * count)),
        std=draw(st.tuples(*[positive] * count)),
        pad=draw(finite) if fit == "pad" else 0.0,
        layout=draw(st.sampled_from(["nchw", "nhwc"])),
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
    )


@given(specs())
def test_a_specification_prints_and_parses_back_equal(p: Preprocess) -> None:
    assert Preprocess.parse(str(p)) == p
    assert Preprocess.from_json(json.loads(json.dumps(p.to_json()))) == p
    assert Preprocess.parse(json.dumps(p.to_json())) == p


def test_the_defaults_print_short() -> None:
    assert str(Preprocess()) == "color=rgb"
    assert Preprocess.parse("") == Preprocess()


def test_the_short_form_means_what_it_says() -> None:
    p = Preprocess.parse(IMAGENET)
    assert (p.resize, p.fit, p.crop) == ((256, 256), "shorter", (224, 224))
    assert p.mean == (0.485, 0.456, 0.406)
    assert p.std == (0.229, 0.224, 0.225)
    assert Preprocess.parse("scale=1/255") == Preprocess()
    assert Preprocess.parse(" color = gray , scale = 2e-3 ").scale == 0.002


def test_toml_tables_are_understood() -> None:
    p = Preprocess.parse("{color = 'bgr', resize = 64, mean = 0.5, std = [1, 2.0, 3]}")
    assert p == Preprocess(color="bgr", resize=(64, 64), mean=(0.5,), std=(1.0, 2.0, 3.0))


BAD = {
    "colour=rgb": ("unknown key 'colour'", "'color'"),
    "color": ("expected key=value, found 'color'", "slash"),
    "mean=.5,.5,.5": ("expected key=value, found '.5'", "mean=.485/.456/.406"),
    "color=rgb,color=bgr": ("'color' is given twice", ""),
    "color=red": ("color: expected one of rgb, bgr, gray, found 'red'", ""),
    "resize=12x": ("resize: expected HxW", ""),
    "resize=0x3": ("resize: expected positive", ""),
    "resize=-3": ("resize: expected HxW", ""),
    "resize=1x2x3": ("resize: expected HxW", ""),
    "crop=12": ("crop: expected HxW", ""),
    "resize=٣": ("resize: expected HxW", ""),
    "mean=a": ("mean: expected a number", ""),
    "mean=nan": ("finite numbers", ""),
    "std=0": ("std above 0", ""),
    "std=inf": ("finite numbers", ""),
    "scale=0": ("scale other than 0", ""),
    "scale=1/0": ("a number or a fraction", ""),
    "mean=1/2": ("mean: expected 1 or 3 numbers", ""),
    "color=gray,mean=1/2/3": ("mean: expected 1 or 1 numbers", ""),
    "fit=pad": ("fit=pad needs resize", ""),
    "fit=shorter": ("fit=shorter needs resize", ""),
    "resize=3,pad=1": ("pad= needs fit=pad", ""),
    "layout=chw": ("layout: expected one of nchw, nhwc", ""),
    '{"resize": [1]}': ("[height, width]", ""),
    '{"resize": [1, true]}': ("[height, width]", ""),
    '{"scale": true}': ("scale: expected a number", ""),
    '{"color": 1}': ("color: expected a word", ""),
    '{"mean": ["a"]}': ("mean: expected a number", ""),
    '{"mean": []}': ("mean: expected 1 or 3 numbers", ""),
    "{oops": ("neither JSON nor TOML", ""),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_specifications_name_the_key(text: str) -> None:
    message, hint = BAD[text]
    with pytest.raises(UsageError) as caught:
        Preprocess.parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_specification_that_is_no_object_is_refused() -> None:
    with pytest.raises(UsageError, match="expected an object"):
        Preprocess.from_json(["rgb"])


def test_normalization_is_the_formula() -> None:
    pixels = picture(3, 4)
    found = Preprocess.parse("mean=.485/.456/.406,std=.229/.224/.225").apply(pixels)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = np.empty((1, 3, 3, 4))
    for y, x, c in itertools.product(range(3), range(4), range(3)):
        expected[0, c, y, x] = (int(pixels[y, x, c]) / 255 - mean[c]) / std[c]
    assert found.dtype == np.float32
    # Four roundings of float32 on values up to 2.7, divided by at least 0.224.
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * 2**-24 * 2.7 / 0.224)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_channels_land_where_color_and_layout_say(layout: Any, color: Any) -> None:
    pixels = np.zeros((2, 5, 3), np.uint8)
    pixels[1, 4] = (10, 20, 30)
    found = Preprocess(color=color, layout=layout, scale=1.0).apply(pixels)
    expected = [10, 20, 30] if color == "rgb" else [30, 20, 10]
    last = found[0, :, 1, 4] if layout == "nchw" else found[0, 1, 4, :]
    assert last.tolist() == expected
    assert found.shape == ((1, 3, 2, 5) if layout == "nchw" else (1, 2, 5, 3))
    assert float(found.sum()) == 60


def test_gray_is_luma_with_one_channel() -> None:
    pixels = picture(6, 7)
    found = Preprocess(color="gray", scale=1.0).apply(pixels)
    luma = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    assert found.shape == (1, 1, 6, 7)
    assert np.all(np.abs(found[0, 0] - luma) <= 0.51)  # rounded to a byte
    flat = pixels[..., 0]
    for form in (flat, flat[..., None]):
        np.testing.assert_array_equal(
            Preprocess(color="gray", scale=1.0).apply(form)[0, 0], flat.astype(np.float32)
        )
    colored = Preprocess(scale=1.0).apply(flat)
    np.testing.assert_array_equal(colored[0], np.stack([flat.astype(np.float32)] * 3))


def test_stretching_a_ramp_keeps_it_a_ramp() -> None:
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 20, axis=0)
    found = Preprocess.parse("color=gray,resize=10x60,scale=1").apply(ramp)[0, 0]
    assert found.shape == (10, 60)
    # Pixel centers: column j of 60 is at (j + 0.5) / 2 - 0.5 of 30; away from the border
    # linear interpolation of a ramp is the ramp, rounded to a byte.
    columns = np.arange(2, 58)
    expected = 8 * ((columns + 0.5) / 2 - 0.5)
    assert np.all(np.abs(found[:, 2:58] - expected) <= 0.51)


def test_bicubic_overshoots_where_bilinear_cannot() -> None:
    step = np.full((1, 8, 1), 60, np.uint8)
    step[:, 4:] = 200
    ends = {}
    for how in ("bilinear", "bicubic"):
        p = Preprocess.parse(f"color=gray,resize=1x32,scale=1,interpolation={how}")
        ends[how] = (float(p.apply(step).min()), float(p.apply(step).max()))
    assert ends["bilinear"] == (60, 200)
    assert ends["bicubic"][0] < 60
    assert ends["bicubic"][1] > 200


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 60), st.integers(1, 60))
def test_pad_keeps_the_aspect_ratio_and_fills_right_and_bottom(
    height: int, width: int, rows: int, columns: int
) -> None:
    white = np.full((height, width), 255, np.uint8)
    p = Preprocess(color="gray", resize=(rows, columns), fit="pad", pad=-7.0)
    found = p.apply(white)[0, 0]
    assert found.shape == (rows, columns)
    inside = found == 1.0
    assert np.all(inside | (found == -7.0))
    filled = (int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum()))
    assert inside[: filled[0], : filled[1]].all()
    assert int(inside.sum()) == filled[0] * filled[1]
    factor = min(rows / height, columns / width)
    for got, side, limit in zip(filled, (height, width), (rows, columns), strict=True):
        assert got == min(limit, max(1, math.ceil(round(side * factor, 9))))


def test_padding_comes_after_normalization() -> None:
    found = Preprocess.parse(RECOGNIZER).apply(picture(20, 60))
    assert found.shape == (1, 3, 48, 320)
    assert np.all(found[..., 144:] == 0.0)  # 60 * 48 / 20
    assert not np.any(np.all(found[..., :144] == 0.0, axis=(1, 2)))
    normalized = Preprocess.parse("color=bgr,resize=48x144,mean=.5,std=.5").apply(
        picture(20, 60)
    )
    np.testing.assert_array_equal(found[..., :144], normalized)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64))
def test_shorter_makes_the_shorter_side_exact_and_covers(h: int, w: int, side: int) -> None:
    image = np.zeros((h, w), np.uint8)
    p = Preprocess(color="gray", resize=(side, side), fit="shorter")
    _, _, height, width = p.apply(image).shape
    assert min(height, width) == side
    longer = max(h, w) * side / min(h, w)
    assert max(height, width) == math.ceil(round(longer, 9))


def test_the_crop_is_from_the_center() -> None:
    pixels = picture(9, 12)
    found = Preprocess(scale=1.0, crop=(5, 4)).apply(pixels)
    np.testing.assert_array_equal(found[0].transpose(1, 2, 0), pixels[2:7, 4:8])


def test_the_crop_of_a_padded_image_is_taken_after_padding() -> None:
    p = Preprocess.parse("color=gray,resize=4x8,fit=pad,pad=5,crop=4x4")
    found = p.apply(np.full((4, 4), 255, np.uint8))[0, 0]
    np.testing.assert_array_equal(found, [[1, 1, 5, 5]] * 4)


def test_a_crop_larger_than_the_image_is_bad_input() -> None:
    with pytest.raises(InputError, match="crop=5x5 does not fit an image of 4x9"):
        Preprocess(crop=(5, 5)).apply(picture(4, 9))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (IMAGENET, (1, 3, 224, 224)),
        (RECOGNIZER, (1, 3, 48, 320)),
        ("resize=8x9,layout=nhwc", (1, 8, 9, 3)),
        ("color=gray,resize=8x9", (1, 1, 8, 9)),
    ],
)
def test_the_shape_of_a_sample(text: str, shape: tuple[int, ...]) -> None:
    assert Preprocess.parse(text).apply(picture(60, 333)).shape == shape


def test_several_images_make_a_batch(tmp_path: Path) -> None:
    first, second = picture(6, 8, 1), picture(6, 8, 2)
    Image.fromarray(first).save(tmp_path / "a.png")
    p = Preprocess(scale=1.0)
    found = p.apply([tmp_path / "a.png", Image.fromarray(second), second])
    np.testing.assert_array_equal(found[0], p.apply(first)[0])
    np.testing.assert_array_equal(found[1], found[2])
    with pytest.raises(InputError, match="end up with the shapes"):
        p.apply([first, picture(5, 8)])
    with pytest.raises(InputError, match="found none"):
        p.apply([])


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(picture(4, 6))
    exif = image.getexif()
    exif[0x0112] = 6  # the top is on the right: turn clockwise
    image.save(tmp_path / "t.png", exif=exif)
    found = Preprocess(scale=1.0).apply(str(tmp_path / "t.png"))
    np.testing.assert_array_equal(
        found[0].transpose(1, 2, 0), np.rot90(picture(4, 6), k=-1).astype(np.float32)
    )


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "CMYK", "LA"])
def test_other_8_bit_modes_are_converted(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.full((3, 3, 3), 255, np.uint8)).convert(mode)
    image.save(tmp_path / "x.tif")
    assert np.all(Preprocess(scale=1.0).apply(tmp_path / "x.tif") == 255)


def test_a_palette_with_transparent_entries_is_converted(tmp_path: Path) -> None:
    image = Image.fromarray(picture(5, 5)).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes([0, 128] * 100))
    found = Preprocess(scale=1.0).apply(tmp_path / "x.png")
    np.testing.assert_array_equal(
        found[0].transpose(1, 2, 0), np.asarray(image.convert("RGB"), np.float32)
    )


def truncated(path: Path) -> None:
    Image.fromarray(picture(50, 50)).save(path, format="png")
    path.write_bytes(path.read_bytes()[:2000])


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((3, 3), 40000, np.uint16)).save(path, format="png")


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda p: None, "no such image"),
    "empty": (lambda p: p.write_bytes(b""), "expected an image"),
    "text": (lambda p: p.write_bytes(b"hello"), "expected an image"),
    "truncated": (truncated, "expected an image"),
    "16 bits": (sixteen_bits, "8 bits a channel, found mode I;16"),
    "a folder": (lambda p: p.mkdir(), "expected an image"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_images_are_bad_input(tmp_path: Path, name: str) -> None:
    make, message = UNREADABLE[name]
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        Preprocess().apply(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 3), np.float32),
        np.zeros((2, 3, 3, 3), np.uint8),
        np.zeros((3, 3, 4), np.uint8),
        np.zeros((0, 3), np.uint8),
        7,
    ],
)
def test_what_is_no_image_is_bad_input(source: Any) -> None:
    with pytest.raises(InputError, match="expected a"):
        Preprocess().apply(source)
