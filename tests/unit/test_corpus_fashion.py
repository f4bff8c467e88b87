"""The Fashion-MNIST loader, its preprocessing, and the committed slice."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import fashion
from benchmarks.corpus.store import CorpusError, CorpusUnavailableError


def idx(shape: tuple[int, ...], data: bytes) -> bytes:
    header = bytes((0, 0, 8, len(shape)))
    return header + struct.pack(f">{len(shape)}I", *shape) + data


def test_slice_is_the_start_of_the_official_test_split() -> None:
    data = fashion.load_slice()
    assert data.images.shape == (500, 28, 28)
    assert data.images.dtype == np.uint8
    assert data.labels.tolist()[:10] == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert np.bincount(data.labels, minlength=10).min() >= 30


def test_preprocess_maps_the_ends_of_the_scale() -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    images[1] = 255
    tensor = fashion.preprocess(images)
    assert tensor.shape == (2, 1, 28, 28)
    assert tensor.dtype == np.float32
    # One rounding for each of the three float32 operations, results below 4.
    np.testing.assert_allclose(tensor[0], -0.2860 / 0.3530, rtol=0, atol=3 * 2**-23)
    np.testing.assert_allclose(tensor[1], (1 - 0.2860) / 0.3530, rtol=0, atol=6 * 2**-23)


def test_preprocess_keeps_pixels_in_place() -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 3, 20] = 255
    tensor = fashion.preprocess(images)
    assert np.argwhere(tensor == tensor.max()).tolist() == [[0, 0, 3, 20]]


def test_short_form_says_what_preprocess_does() -> None:
    fields = dict(part.split("=") for part in fashion.PREPROCESS.split(","))
    assert fields.keys() == {"color", "resize", "scale", "mean", "std"}
    assert (fields["color"], fields["resize"]) == ("gray", "28x28")
    pixels = np.arange(256, dtype=np.uint8).repeat(784).reshape(256, 28, 28)
    spoken = (pixels * float(fields["scale"]) - float(fields["mean"])) / float(fields["std"])
    np.testing.assert_allclose(
        fashion.preprocess(pixels)[:, 0], spoken, rtol=0, atol=6 * 2**-23
    )


def test_parse_idx_reads_what_it_should() -> None:
    values = bytes(range(6))
    assert fashion.parse_idx(idx((2, 3), values), 2).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx((2, 3), bytes(6)), "expected magic 00000801"),
        (idx((6,), bytes(5)), "expected 14 bytes, found 13"),
        (idx((6,), bytes(7)), "expected 14 bytes, found 15"),
    ],
)
def test_parse_idx_refuses_other_files(data: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        fashion.parse_idx(data, 1)


def test_missing_package_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fashion, "CACHE", tmp_path)
    monkeypatch.setattr(fashion, "_INSIDE", Path("no/such/folder"))
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(CorpusUnavailableError, match=r"^skipped: needs the Debian package"):
        fashion.load_full("test")


def test_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fashion, "locate", lambda: tmp_path)
    for stem in ("t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{stem}-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(CorpusError, match="expected sha256 cc1d090a"):
        fashion.load_full("test")
