"""Sources of samples: checked against the inputs, in a fixed order, with a digest."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.bundle import TensorInfo
from edgevit.calibration import (
    Counted,
    NpzSource,
    Slice,
    SyntheticSource,
    held_out,
    open_source,
)
from edgevit.errors import InputError, UsageError
from edgevit.preprocess import Preprocess

Array = np.ndarray[Any, Any]
X = TensorInfo("x", (1, 3), "float32")
TOKENS = TensorInfo("tokens", (1, 4), "int64")
MASK = TensorInfo("mask", (1, 4), "bool")
PICTURE = TensorInfo("x", (1, 1, 8, 8), "float32")
GRAY = Preprocess.parse("color=gray,resize=8x8,scale=0.00392156862745098,mean=0.5,std=0.25")


def _samples(count: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 1, 3)).astype(np.float32)


def _npz(path: Path, **arrays: Any) -> NpzSource:
    np.savez(path, **arrays)
    return NpzSource(path, (X,))


def test_an_npz_gives_its_samples_in_order(tmp_path: Path) -> None:
    data = _samples()
    source = _npz(tmp_path / "d.npz", x=data)
    assert len(source) == 5
    assert not source.synthetic
    for _ in range(2):  # re-iterable
        for sample, expected in zip(source, data, strict=True):
            np.testing.assert_array_equal(sample["x"], expected)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_layout_of_the_file_gives_the_same_samples(tmp_path: Path, save: Any) -> None:
    data = _samples()
    for name, array in (("c", data), ("fortran", np.asfortranarray(data))):
        save(tmp_path / f"{name}.npz", x=array)
        found = [s["x"] for s in NpzSource(tmp_path / f"{name}.npz", (X,))]
        np.testing.assert_array_equal(np.stack(found), data)
        assert all(x.flags.writeable for x in found)


def test_an_npz_is_read_sample_by_sample(tmp_path: Path) -> None:
    sample, count = (1, 1 << 16), 32  # 256 KiB each, 8 MiB in all
    info = TensorInfo(name="x", dtype="float32", shape=sample)
    np.savez(tmp_path / "d.npz", x=np.ones((count, *sample), np.float32))
    source = NpzSource(tmp_path / "d.npz", (info,))
    tracemalloc.start()
    try:
        assert sum(1 for _ in source) == len(source) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The one given out, and the next three times over while its bytes are put together.
    assert peak < 5 * (256 << 10)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": _samples()}, r"expected one array per input \['x'\], found \['y'\]"),
        ({"x": _samples(), "y": _samples()}, r"found \['x', 'y'\]"),
        ({}, r"found \[\]"),
        ({"x": _samples()[0]}, r"expects samples of float32 \(1, 3\), found float32 \(3,\)"),
        ({"x": _samples().astype(np.float64)}, r"found float64"),
        ({"x": _samples()[:0]}, "positive sample counts"),
        ({"x": np.float32(1)}, "positive sample counts"),
        ({"x": np.array([{}], dtype=object)}, r"expected a \.npz file of arrays"),
    ],
)
def test_an_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        list(_npz(tmp_path / "d.npz", **arrays))
    assert str(tmp_path / "d.npz") in caught.value.message


def test_counts_of_two_inputs_must_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(3), tokens=np.zeros((2, 1, 4), np.int64))
    with pytest.raises(InputError, match="equal, positive sample counts"):
        list(NpzSource(tmp_path / "d.npz", (X, TOKENS)))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not an archive")


def _one_array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, _samples())


def _truncated(path: Path) -> None:
    np.savez(path, x=_samples())
    path.write_bytes(path.read_bytes()[:-40])


def _corrupt(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros((50, 1, 3), np.float32))
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(bytes(content))


def _stranger(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "not an array")


@pytest.mark.parametrize(
    "make", [_empty, _text, _one_array, _truncated, _corrupt, _stranger, Path.mkdir]
)
def test_files_that_are_no_npz(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "d.npz"
    make(path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        list(NpzSource(path, (X,)))


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    data = _samples()
    one, two = _npz(tmp_path / "one.npz", x=data), _npz(tmp_path / "two.npz", x=data)
    assert one.digest() == two.digest()
    by_hand = hashlib.sha256()
    for sample in data:
        by_hand.update(b"x:<f4:(1, 3);" + sample.tobytes())
    assert one.digest() == by_hand.hexdigest()
    changed = data.copy()
    changed[4, 0, 2] = np.nextafter(changed[4, 0, 2], np.float32(9))
    assert _npz(tmp_path / "three.npz", x=changed).digest() != one.digest()
    assert _npz(tmp_path / "four.npz", x=data[::-1]).digest() != one.digest()


def test_a_folder_gives_its_images_in_name_order(tmp_path: Path) -> None:
    for name, level in (("b.png", 255), ("a.PNG", 0), ("c.jpg", 128), ("notes.txt", 0)):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            Image.new("L", (20, 20), level).save(tmp_path / name)
    source = open_source(str(tmp_path), (PICTURE,), GRAY, 0)
    assert len(source) == 3
    means = [float(s["x"].mean()) for s in source]
    # (level / 255 - 0.5) / 0.25; a flat JPEG image keeps its level within one.
    assert means[:2] == pytest.approx([-2.0, 2.0], abs=1e-5)
    assert means[2] == pytest.approx((128 / 255 - 0.5) / 0.25, abs=4 / 255 + 1e-5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in ("a.PNG", "b.png", "c.jpg"):
        (elsewhere / file).write_bytes((tmp_path / file).read_bytes())
    assert open_source(str(elsewhere), (PICTURE,), GRAY, 0).digest() == source.digest()


def test_a_folder_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a preprocessing"):
        open_source(str(tmp_path), (PICTURE,), None, 0)
    with pytest.raises(UsageError, match="the model has 2"):
        open_source(str(tmp_path), (PICTURE, X), GRAY, 0)
    with pytest.raises(InputError, match="expected image files, found none"):
        list(open_source(str(tmp_path), (PICTURE,), GRAY, 0))
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    wrong = TensorInfo("x", (1, 3, 8, 8), "float32")
    with pytest.raises(InputError, match=r"gives \(1, 1, 8, 8\).*expects \(1, 3, 8, 8\)"):
        list(open_source(str(tmp_path), (wrong,), GRAY, 0))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png"):
        list(open_source(str(tmp_path), (PICTURE,), GRAY, 0))


def test_a_counted_source_is_its_base_and_tells_how_far_it_is() -> None:
    base = SyntheticSource((X,), 3, 0)
    told: list[tuple[int, int]] = []
    source = Counted(base, lambda done, total: told.append((done, total)))
    assert (source.digest(), source.name, source.synthetic) == (base.digest(), base.name, True)
    assert len(source) == 3
    told.clear()
    same = [a["x"].tobytes() == b["x"].tobytes() for a, b in zip(source, base, strict=True)]
    assert same == [True] * 3
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(str(tmp_path / "none.npz"), (X,), None, 0)


def test_synthetic_samples_depend_on_the_seed_only() -> None:
    inputs = (X, TOKENS, MASK)
    source = SyntheticSource(inputs, 3, 7)
    assert source.synthetic
    assert len(list(source)) == len(source) == 3
    for first, again in zip(source, SyntheticSource(inputs, 3, 7), strict=True):
        for info in inputs:
            assert first[info.name].shape == info.shape
            assert first[info.name].dtype == np.dtype(info.dtype)
            np.testing.assert_array_equal(first[info.name], again[info.name])
    assert source.digest() != SyntheticSource(inputs, 3, 8).digest()
    one, two, _ = (s["x"] for s in source)
    assert not np.array_equal(one, two)


def test_synthetic_pictures_follow_the_preprocessing() -> None:
    (sample,) = SyntheticSource((PICTURE,), 1, 0, GRAY)
    # Levels 0..255 come out as -2..2; a normal draw of 64 values would rarely stay inside,
    # and would not be as smooth.
    assert np.abs(sample["x"]).max() <= 2.0 + 1e-5
    steps = np.diff(sample["x"][0, 0], axis=1)
    assert steps.std() < sample["x"].std() * 1.5
    assert sample["x"].std() > 0.05
    (plain,) = SyntheticSource((PICTURE,), 1, 0)
    assert np.abs(plain["x"]).max() > 2.0


@given(st.integers(1, 60))
def test_held_out_samples_are_apart_and_nothing_is_lost(count: int) -> None:
    source = SyntheticSource((X,), count, 0)
    calibration, verification = held_out(source)
    assert len(calibration) + len(verification) == count
    found = [s["x"].tobytes() for part in (calibration, verification) for s in part]
    assert found == [s["x"].tobytes() for s in source]
    assert len(set(found)) == count
    assert len(verification) == (max(count // 5, 1) if count > 1 else 0)


def test_a_slice_has_its_own_digest(tmp_path: Path) -> None:
    data = _samples()
    source = _npz(tmp_path / "d.npz", x=data)
    cut = Slice(source, 1, 3)
    assert cut.digest() == _npz(tmp_path / "cut.npz", x=data[1:3]).digest()
    assert cut.digest() != Slice(source, 2, 4).digest()
    assert cut.synthetic is False
    assert cut.name == "npz[1:3]"
    assert Slice(SyntheticSource((X,), 2, 0), 0, 1).synthetic is True
