"""The models that are quantized, their calibration samples and their tests.

Calibration is 64 samples that no test uses: the first training images of Fashion-MNIST, or
rendered text of another seed. Tests are the official test images, or rendered text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.corpus.fashion import load_full
from benchmarks.corpus.fashion import preprocess as small
from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.probe import SIZE, probe_model
from benchmarks.corpus.recognizer import characters, collapse
from benchmarks.corpus.store import CACHE, FIXTURES, CorpusUnavailableError, write_atomic
from benchmarks.corpus.text_images import default_source, generate
from benchmarks.corpus.text_images import preprocess as text_tensor
from benchmarks.selection import select
from benchmarks.zoo_tasks import upscale

__all__ = ["CALIBRATION", "CASES", "Case", "choose"]

Array = np.ndarray[Any, Any]
CALIBRATION = 64
CALIBRATION_SEED = 11
TEST_SEED = 2


@dataclass(frozen=True)
class Case:
    """A model with its task.

    Attributes:
        name: Shown in the table.
        find: Gives the path; fetches it if needed.
        images: Split (``train``, ``test``) and count -> input tensors, one at a time.
        labels: Count -> what is right, of the test images.
        answer: Model path -> how an output becomes an answer.
        tests: Test images of the published table.
        shapes: Input name -> shape, for symbolic dimensions.
    """

    name: str
    find: Callable[[], Path]
    images: Callable[[str, int], Iterator[Array]]
    labels: Callable[[int], Sequence[Any]]
    answer: Callable[[Path], Callable[[Array], Any]]
    tests: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _fixture(name: str) -> Callable[[], Path]:
    return lambda: FIXTURES / "models" / f"{name}.onnx"


def _trained(name: str) -> Callable[[], Path]:
    def find() -> Path:
        path = CACHE / "trained" / f"{name}_fashion.onnx"
        if not path.is_file():
            raise CorpusUnavailableError(
                path.name, reason="trained models go to .cache/trained"
            )
        return path

    return find


@cache
def _garment_data(split: str, count: int) -> tuple[Array, Array]:
    """uint8 images and labels of the first garments; kept, as the full files are large."""

    def make() -> dict[str, Array]:
        data = load_full("train" if split == "train" else "test")
        return {"images": data.images[:count], "labels": data.labels[:count]}

    found = _kept(f"garments-{split}-{count}", make)
    return found["images"], found["labels"]


def _kept(name: str, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    path = CACHE / "quantization" / f"{name}.npz"
    if not path.is_file():
        content = io.BytesIO()
        np.savez_compressed(content, **make())  # type: ignore[arg-type]
        write_atomic(path, content.getvalue())
    with np.load(path) as data:
        return {key: data[key] for key in data.files}


def _small_images(split: str, count: int) -> Iterator[Array]:
    for image in _garment_data(split, count)[0]:
        yield small(image[None])[0][None]


def _large_images(size: int) -> Callable[[str, int], Iterator[Array]]:
    def images(split: str, count: int) -> Iterator[Array]:
        for image in _garment_data(split, count)[0]:
            yield upscale(image, (size, size))

    return images


def _garments(count: int) -> Sequence[int]:
    return [int(label) for label in _garment_data("test", count)[1]]


def _best(path: Path) -> Callable[[Array], int]:
    return lambda output: int(output.argmax())


@cache
def _text_data(split: str, count: int) -> dict[str, Array]:
    """Rendered images as PNG bytes (one array, cut at ``ends``) and their labels."""

    def make() -> dict[str, Array]:
        seed = CALIBRATION_SEED if split == "train" else TEST_SEED
        pngs, labels = [], []
        for sample in generate(default_source(), "hard", seed, count):
            content = io.BytesIO()
            sample.image.save(content, "PNG")
            pngs.append(np.frombuffer(content.getvalue(), np.uint8))
            labels.append(sample.label)
        ends = np.cumsum([len(p) for p in pngs])
        return {"pngs": np.concatenate(pngs), "ends": ends, "labels": np.array(labels)}

    return _kept(f"texts-{split}-{count}", make)


def _texts(split: str, count: int) -> Iterator[Array]:
    data = _text_data(split, count)
    for png in np.split(data["pngs"], data["ends"][:-1]):
        yield text_tensor(Image.open(io.BytesIO(png.tobytes())))


def _strings(count: int) -> Sequence[str]:
    return [str(label) for label in _text_data("test", count)["labels"]]


def _reading(path: Path) -> Callable[[Array], str]:
    names = characters(path)
    return lambda output: collapse(output[0].argmax(axis=1), names)


def _recognizer(name: str) -> Case:
    return Case(
        name,
        lambda: fetch_model(name),
        _texts,
        _strings,
        _reading,
        tests=2000,
        shapes={"x": (1, 3, 48, 320)},
    )


def _garment_case(name: str, size: int) -> Case:
    return Case(name, _trained(name), _large_images(size), _garments, _best, tests=2000)


CASES = (
    Case(
        "fashion_hybrid", _fixture("fashion_hybrid_ts"), _small_images, _garments, _best, 10000
    ),
    Case("fashion_vit", _fixture("fashion_vit_ts"), _small_images, _garments, _best, 10000),
    _recognizer("ppocrv4_rec"),
    _recognizer("ppocrv6_rec_small"),
    Case("vit_s_probe", probe_model, _large_images(SIZE), _garments, _best, tests=1000),
    _garment_case("mobilevit_xxs", 256),
    _garment_case("mobilevitv2_050", 256),
    _garment_case("efficientformerv2_s0", 224),
    _garment_case("pvt_v2_b0", 224),
    _garment_case("deit_tiny_patch16_224", 224),
    _garment_case("levit_128s", 224),
)


def choose(wanted: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose name starts with one of ``wanted``; all if it is empty.

    Raises:
        ValueError: A name fits no case.
    """
    return select(CASES, wanted)
