"""Calibration samples that are not what the model expects: said, and not said in vain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from edgevit.bundle import TensorInfo
from edgevit.calibration import FolderSource, NpzSource
from edgevit.errors import InputError
from edgevit.preprocess import Preprocess
from edgevit.samplecheck import check_samples
from tests.support.graphs import GraphBuilder

Array = np.ndarray[Any, Any]
SHAPE = (1, 3, 6, 6)
NORMALIZED = "resize=6x6,mean=.485/.456/.406,std=.229/.224/.225"


def _model(norm: bool = False, scaled: bool = False) -> ir.Model:
    """A convolution, with the batch norm of normalized data behind or a scaling in front."""
    rng = np.random.default_rng(0)
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    w = rng.normal(0, 0.3, (8, 3, 3, 3))
    data = g.op("Mul", x, g.const(1 / 255)) if scaled else x
    y = g.op("Conv", g.op("Transpose", data, perm=[0, 1, 2, 3]), g.const(w))
    if norm:
        # Trained on channels of mean 0 and deviation 1: the result's mean is 0.
        variance = (w**2).sum(axis=(1, 2, 3))
        y = g.op("BatchNormalization", y, g.const(np.ones(8)), g.const(np.zeros(8)),
                 g.const(np.zeros(8)), g.const(variance))  # fmt: skip
    return g.model(y)


def _pixels(count: int = 6) -> Array:
    """Smooth pictures in 0..255 whose channels have ImageNet's means, about."""
    rng = np.random.default_rng(1)
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(1, 1, 3, 1, 1)
    drawn = rng.normal(mean, std, (count, *SHAPE))
    return np.asarray(np.rint(np.clip(drawn, 0, 1) * 255))


def _normalized(pixels: Array) -> Array:
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(1, 1, 3, 1, 1)
    return np.asarray((pixels / 255 - mean) / std)


def _check(
    folder: Path, data: Array, model: ir.Model, preprocess: str | None = None
) -> tuple[str, ...]:
    path = folder / "calibration.npz"
    np.savez(path, x=data.astype(np.float32))
    source = NpzSource(path, (TensorInfo("x", SHAPE, "float32"),))
    parsed = None if preprocess is None else Preprocess.parse(preprocess)
    return check_samples(model, source, parsed)


@pytest.mark.parametrize("preprocess", [None, NORMALIZED])
@pytest.mark.parametrize("norm", [False, True])
def test_samples_as_they_should_be_raise_no_warning(
    tmp_path: Path, norm: bool, preprocess: str | None
) -> None:
    data = _normalized(_pixels())
    assert _check(tmp_path, data, _model(norm), preprocess) == ()


def test_raw_pixels_in_front_of_a_convolution(tmp_path: Path) -> None:
    (said,) = _check(tmp_path, _pixels(), _model())
    assert "as raw pixels do" in said
    assert "Conv" in said
    # A model that scales them itself wants them raw; so does one that is said to.
    assert _check(tmp_path, _pixels(), _model(scaled=True)) == ()
    assert _check(tmp_path, _pixels(), _model(), "resize=6x6,scale=1") == ()


def test_samples_that_the_recorded_preprocessing_cannot_give(tmp_path: Path) -> None:
    (said,) = _check(tmp_path, _pixels(), _model(), NORMALIZED)
    assert "the recorded preprocessing gives -2.12 to 2.64" in said
    assert "prepared in another way" in said
    # Scaled to 0..1 and not normalized: inside of -2.12..2.64, and less than 1/4 of it.
    (said,) = _check(tmp_path, _pixels() / 255, _model(), NORMALIZED)
    assert "small part" in said


def test_means_that_the_batch_norm_does_not_know(tmp_path: Path) -> None:
    (said,) = _check(tmp_path, 3 + _normalized(_pixels()), _model(norm=True))
    assert "standard deviations from what its batch norm expects" in said
    # A quarter of a deviation is what a small calibration set may be off by.
    assert _check(tmp_path, 0.25 + _normalized(_pixels()), _model(norm=True)) == ()


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_constant_samples(tmp_path: Path, value: float) -> None:
    (said,) = _check(tmp_path, np.full((3, *SHAPE), value), _model(norm=True))
    assert f"input 'x' is {value:g} in every calibration sample" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_errors(tmp_path: Path, value: float) -> None:
    data = _normalized(_pixels())
    data[2, 0, 1, 3, 3] = value
    with pytest.raises(InputError, match="calibration sample 2: input 'x' has NaN"):
        _check(tmp_path, data, _model())


def test_integers_are_not_judged(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", t=np.full((2, 1, 4), 200, np.int64))
    g = GraphBuilder()
    model = g.model(g.op("Gather", g.const(np.ones((300, 2))), g.input("t", (1, 4), np.int64)))
    source = NpzSource(tmp_path / "t.npz", (TensorInfo("t", (1, 4), "int64"),))
    assert check_samples(model, source, None) == ()


def test_a_folder_of_pictures_that_are_all_dark(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (9, 9), (i, 2 * i, 5)).save(tmp_path / f"{i}.png")
    preprocess = Preprocess.parse("resize=6x6")
    source = FolderSource(tmp_path, (TensorInfo("x", SHAPE, "float32"),), preprocess)
    (said,) = check_samples(_model(), source, preprocess)
    assert "small part" in said
