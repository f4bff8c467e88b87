from __future__ import annotations

import numpy as np
import pytest

from edgevit.preprocess import Preprocess
from edgevit.samples import pixels


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_preprocessing_is_undone(color: str, layout: str) -> None:
    spec = f"color={color},layout={layout},mean=.4,std=.25"
    preprocess = Preprocess.parse(spec)
    shape = (10, 14) if color == "gray" else (10, 14, 3)
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    made = pixels(preprocess.apply(image), preprocess)
    assert made is not None
    np.testing.assert_array_equal(made[0], image)


def test_a_swapped_channel_order_would_show() -> None:
    image = np.random.default_rng(3).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    batch = Preprocess.parse("color=bgr").apply(image)
    made = pixels(batch, Preprocess.parse("color=rgb"))
    assert made is not None
    assert not np.array_equal(made[0], image)


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (1, 3, 4, 16), (3, 16, 16), (1, 10), (1,)])
def test_what_is_not_an_image_is_not_shown_as_one(shape: tuple[int, ...]) -> None:
    assert pixels(np.ones(shape, np.float32), None) is None


def test_a_constant_and_a_broken_tensor() -> None:
    made = pixels(np.full((1, 1, 9, 9), 3.0, np.float32), None)
    assert made is not None
    assert made[0].dtype == np.uint8
    broken = np.full((1, 1, 9, 9), np.nan, np.float32)
    assert pixels(broken, None) is None
