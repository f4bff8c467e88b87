"""Named, hashable sources of input samples: for calibration and for verification."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from edgevit.bundle import TensorInfo
from edgevit.errors import InputError, UsageError
from edgevit.npz import Header, read_headers, read_samples
from edgevit.preprocess import Preprocess

__all__ = [
    "Counted",
    "DataSource",
    "FolderSource",
    "NpzSource",
    "SampleShapeError",
    "Slice",
    "SyntheticSource",
    "open_source",
]

Sample = dict[str, "np.ndarray[Any, Any]"]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
SYNTHETIC = "synthetic"


class SampleShapeError(InputError):
    """The samples are of another shape or dtype than the input."""


class DataSource(Protocol):
    """Re-iterable samples, each a mapping input name -> array of the input's full shape.

    Attributes:
        name: Shown in reports; never a path.
        synthetic: True if the samples were made up; task figures are then not measured.
    """

    @property
    def name(self) -> str:
        """Of the kind of source."""

    @property
    def synthetic(self) -> bool:
        """Whether the samples were made up."""

    def digest(self) -> str:
        """sha256 over the samples, independent of where they come from."""

    def __len__(self) -> int:
        """Number of samples."""

    def __iter__(self) -> Iterator[Sample]:
        """Samples in a fixed order."""


def _digest(samples: Iterator[Sample]) -> str:
    total = hashlib.sha256()
    for sample in samples:
        for name in sorted(sample):
            array = np.ascontiguousarray(sample[name])
            total.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
            total.update(array.tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class NpzSource:
    """One array per model input in a ``.npz`` file, first axis = samples."""

    path: Path
    inputs: tuple[TensorInfo, ...]
    name: str = "npz"
    synthetic: bool = False

    def _headers(self) -> dict[str, Header]:
        headers = read_headers(self.path)
        check_arrays(headers, self.inputs, str(self.path))
        return headers

    def digest(self) -> str:
        """sha256 over all samples."""
        return _digest(iter(self))

    def __len__(self) -> int:
        return next(iter(self._headers().values())).shape[0]

    def __iter__(self) -> Iterator[Sample]:
        yield from read_samples(self.path, self._headers())


def check_arrays(
    arrays: Mapping[str, Header], inputs: Sequence[TensorInfo], where: str
) -> None:
    """Check names, sample shapes, dtypes and equal counts.

    Raises:
        InputError: Saying what was expected, found, and where.
    """
    expected = {i.name for i in inputs}
    if set(arrays) != expected:
        raise InputError(
            f"{where}: expected one array per input {sorted(expected)}, found {sorted(arrays)}"
        )
    counts = {a.shape[0] if a.shape else 0 for a in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"{where}: expected equal, positive sample counts, found {counts}")
    for info in inputs:
        found = arrays[info.name]
        if found.shape[1:] != info.shape or found.dtype != np.dtype(info.dtype):
            raise SampleShapeError(
                f"{where}: input {info.name!r} expects samples of {info.dtype} {info.shape}, "
                f"found {found.dtype} {found.shape[1:]}",
                hint=_shape_hint(found.shape[1:], info.shape),
            )


def _shape_hint(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if found != expected and sorted(found) == sorted(expected):
        return "its axes are in another order: channels first or last? Transpose the samples"
    if found == expected[1:] and expected[0] == 1:
        return "give every sample the batch axis too: array[:, None]"
    return "the first axis counts samples; each sample has the input's full shape"


@dataclass(frozen=True)
class FolderSource:
    """Images of a folder, in name order, through the recorded preprocessing."""

    path: Path
    inputs: tuple[TensorInfo, ...]
    preprocess: Preprocess
    name: str = "images"
    synthetic: bool = False

    def _files(self) -> list[Path]:
        files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"{self.path}: expected image files, found none")
        return files

    def digest(self) -> str:
        """sha256 over the preprocessed samples."""
        return _digest(iter(self))

    def __len__(self) -> int:
        return len(self._files())

    def __iter__(self) -> Iterator[Sample]:
        info = self.inputs[0]
        for file in self._files():
            array = self.preprocess.apply(file)
            if array.shape != info.shape:
                raise SampleShapeError(
                    f"{file}: preprocessing gives {array.shape}, input {info.name!r} "
                    f"expects {info.shape}",
                    hint="adjust resize= or crop= in --preprocess",
                )
            yield {info.name: array.astype(info.dtype)}


@dataclass(frozen=True)
class SyntheticSource:
    """Seeded made-up samples that follow the recorded preprocessing."""

    inputs: tuple[TensorInfo, ...]
    count: int
    seed: int
    preprocess: Preprocess | None = None
    name: str = SYNTHETIC
    synthetic: bool = True

    def digest(self) -> str:
        """sha256 over the samples."""
        return _digest(iter(self))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.count):
            yield {info.name: self._draw(info, rng) for info in self.inputs}

    def _draw(self, info: TensorInfo, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        kind = np.dtype(info.dtype).kind
        if kind == "b":
            return rng.random(info.shape) < 0.5
        if kind in "iu":
            return rng.integers(0, 2, info.shape).astype(info.dtype)
        image = self._image(info, rng)
        if image is not None:
            return image
        return rng.standard_normal(info.shape).astype(info.dtype)

    def _image(
        self, info: TensorInfo, rng: np.random.Generator
    ) -> np.ndarray[Any, Any] | None:
        """A smooth random picture with noise, through the preprocessing, if shapes agree."""
        if self.preprocess is None or len(info.shape) != 4:
            return None
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
        noise = rng.normal(0, 12, smooth.shape)
        noisy = np.clip(smooth.astype(np.float64) + noise, 0, 255).astype(np.uint8)
        array = self.preprocess.apply(Image.fromarray(noisy))
        return array.astype(info.dtype) if array.shape == info.shape else None


@dataclass(frozen=True)
class Slice:
    """A contiguous share of another source, for example the held-out last fifth."""

    base: DataSource
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The base's name and the range."""
        return f"{self.base.name}[{self.start}:{self.stop}]"

    @property
    def synthetic(self) -> bool:
        """As the base."""
        return self.base.synthetic

    def digest(self) -> str:
        """sha256 over the samples of the slice."""
        return _digest(iter(self))

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Sample]:
        for i, sample in enumerate(self.base):
            if i >= self.stop:
                return
            if i >= self.start:
                yield sample


@dataclass(frozen=True)
class Counted:
    """Another source, that tells how far a pass is through it, each time one goes through."""

    base: DataSource
    tick: Callable[[int, int], None]

    @property
    def name(self) -> str:
        """As the base."""
        return self.base.name

    @property
    def synthetic(self) -> bool:
        """As the base."""
        return self.base.synthetic

    def digest(self) -> str:
        """As the base."""
        return self.base.digest()

    def __len__(self) -> int:
        return len(self.base)

    def __iter__(self) -> Iterator[Sample]:
        total = len(self.base)
        for done, sample in enumerate(self.base):
            self.tick(done, total)
            yield sample
        self.tick(total, total)


def open_source(
    where: str, inputs: tuple[TensorInfo, ...], preprocess: Preprocess | None, seed: int
) -> DataSource:
    """Open ``DIR``, ``FILE.npz`` or ``synthetic``.

    Raises:
        InputError: It does not exist or does not fit the model's inputs.
        UsageError: A folder of images without ``--preprocess``.
    """
    if where == SYNTHETIC:
        return SyntheticSource(inputs, 16, seed, preprocess)
    path = Path(where)
    if path.is_dir():
        if preprocess is None:
            raise UsageError(
                f"{where}: a folder of images needs a preprocessing specification",
                hint="give --preprocess, e.g. 'resize=224x224,mean=...,std=...'",
            )
        if len(inputs) != 1:
            raise UsageError(f"{where}: images feed one input, the model has {len(inputs)}")
        return FolderSource(path, inputs, preprocess)
    if not path.exists():
        raise InputError(f"{where}: no such file or folder")
    return NpzSource(path, inputs)


def held_out(source: DataSource) -> tuple[DataSource, DataSource]:
    """Split into calibration and verification data: the last fifth is kept out."""
    count = len(source)
    cut = count - max(count // 5, 1) if count > 1 else count
    return Slice(source, 0, cut), Slice(source, cut, count)
