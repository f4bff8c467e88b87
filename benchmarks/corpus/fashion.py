"""Fashion-MNIST: the committed slice of 500 test images, and the official full splits.

Source: Zalando Research, MIT license; the full splits come from the Debian package
``dataset-fashion-mnist``. Labels 0..9: T-shirt, trouser, pullover, dress, coat, sandal,
shirt, sneaker, bag, ankle boot.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus.store import (
    CACHE,
    FIXTURES,
    CorpusError,
    CorpusUnavailableError,
    require_sha256,
    write_atomic,
)

__all__ = [
    "CLASSES",
    "MEAN",
    "PREPROCESS",
    "SLICE",
    "STD",
    "Labeled",
    "Split",
    "load_full",
    "load_slice",
    "locate",
    "parse_idx",
    "preprocess",
    "slice_bytes",
]

Split = Literal["train", "test"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SLICE = FIXTURES / "data" / "fashion_test_500.npz"

# Mean and standard deviation of the 60,000 training images, in units of x / 255.
MEAN = 0.2860
STD = 0.3530
PREPROCESS = "color=gray,resize=28x28,scale=0.00392156862745098,mean=0.286,std=0.353"

_PACKAGE = "dataset-fashion-mnist"
_INSIDE = Path("usr/share/datasets/fashion-mnist")
_RANKS = {"images": 3, "labels": 1}
_SPLITS: dict[Split, tuple[str, str]] = {
    "train": ("train-images", "train-labels"),
    "test": ("t10k-images", "t10k-labels"),
}
_SHA256 = {
    "t10k-images": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    "train-images": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
}


@dataclass(frozen=True)
class Labeled:
    """Images with their labels.

    Attributes:
        images: ``[n, 28, 28]`` uint8.
        labels: ``[n]`` uint8, 0..9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def preprocess(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn ``[n, 28, 28]`` uint8 images into the fixtures' input, ``[n, 1, 28, 28]`` float32.

    It is ``(x / 255 - MEAN) / STD``, which ``PREPROCESS`` says to the compiler.
    """
    scaled = images.astype(np.float32) / np.float32(255)
    normal: NDArray[np.float32] = (scaled - np.float32(MEAN)) / np.float32(STD)
    return normal[:, None]


def load_slice() -> Labeled:
    """Load the committed slice: the first 500 images of the official test split."""
    with np.load(SLICE) as arrays:
        return Labeled(arrays["images"], arrays["labels"])


def load_full(split: Split) -> Labeled:
    """Load an official split, 60,000 training or 10,000 test images.

    Raises:
        CorpusUnavailableError: The Debian package is not installed and cannot be fetched.
        CorpusError: A file is there and is not the official one.
    """
    folder = locate()
    images, labels = _SPLITS[split]
    return Labeled(_read_idx(folder, images), _read_idx(folder, labels))


def locate() -> Path:
    """Return the folder that holds the four official files; fetch the package if needed.

    Raises:
        CorpusUnavailableError: The package is not installed and cannot be fetched.
    """
    cached = CACHE / _PACKAGE / _INSIDE
    for folder in (Path("/") / _INSIDE, cached):
        if all(_path(folder, name).is_file() for name in _SHA256):
            return folder
    _fetch()
    return cached


def slice_bytes(count: int) -> bytes:
    """Return the ``.npz`` of the first ``count`` test images: how ``SLICE`` was made."""
    test = load_full("test")
    stream = io.BytesIO()
    np.savez_compressed(stream, images=test.images[:count], labels=test.labels[:count])
    return stream.getvalue()


def parse_idx(data: bytes, rank: int) -> NDArray[np.uint8]:
    """Decode an uncompressed IDX file of unsigned bytes.

    Args:
        data: The file: magic ``0 0 8 rank``, ``rank`` big-endian uint32 sizes, the bytes.
        rank: The number of dimensions expected.

    Raises:
        CorpusError: The magic number or the length is not that of such a file.
    """
    magic, header = bytes((0, 0, 8, rank)), 4 + 4 * rank
    if data[:4] != magic:
        raise CorpusError(f"IDX file: expected magic {magic.hex()}, found {data[:4].hex()}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
    expected = header + int(np.prod(shape))
    if len(data) != expected:
        raise CorpusError(
            f"IDX file of shape {shape}: expected {expected} bytes, found {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}-idx{_RANKS[name.split('-')[1]]}-ubyte.gz"


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    path = _path(folder, name)
    require_sha256(path, _SHA256[name])
    return parse_idx(gzip.decompress(path.read_bytes()), _RANKS[name.split("-")[1]])


def _fetch() -> None:
    """Download the package with apt-get and unpack it into the cache; nothing is installed."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise CorpusUnavailableError(
                f"the Debian package {_PACKAGE}", reason=f"{tool} is not on this machine"
            )
    downloads = CACHE / "debs"
    downloads.mkdir(parents=True, exist_ok=True)
    found = sorted(downloads.glob(f"{_PACKAGE}_*.deb"))
    if not found:
        _run(["apt-get", "download", _PACKAGE], downloads)
        found = sorted(downloads.glob(f"{_PACKAGE}_*.deb"))
    _run(["dpkg", "-x", str(found[-1]), str(CACHE / _PACKAGE)], downloads)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CorpusUnavailableError(
            f"the Debian package {_PACKAGE}", reason=f"{' '.join(command[:2])}: {tail[0]}"
        )


if __name__ == "__main__":
    write_atomic(SLICE, slice_bytes(500))
