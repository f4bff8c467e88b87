"""Studies of bundles: grids of device parameters, and labeled samples."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.errors import InputError, UsageError
from edgevit.manifest import Manifest, TensorInfo
from edgevit.preprocess import Preprocess
from edgevit.registry import nearest

__all__ = ["AXES", "Labeled", "grid", "labeled", "parse_axes", "standard_error"]

Array = np.ndarray[Any, Any]
# Option -> (field of the optical study's Point, kind of number).
AXES: Mapping[str, tuple[str, type]] = {
    "photons": ("photons", float),
    "adc-bits": ("adc_bits", int),
    "read-noise": ("read_noise", float),
    "mask-bits": ("mask_bits", int),
    "display-bits": ("display_bits", int),
    "shift": ("shift", float),
    "defocus": ("defocus", float),
    "full-well": ("full_well", float),
    "background": ("background", float),
    "speckle": ("speckle", float),
    "laser-noise": ("laser_noise", float),
    "nonuniformity": ("nonuniformity", float),
    "fill-factor": ("fill_factor", float),
    "crosstalk": ("crosstalk", float),
    "rotation": ("rotation", float),
    "magnification": ("magnification", float),
}


def standard_error(right: int, samples: int) -> float:
    """Of a share: half of Wilson's interval of one deviation (J. Am. Stat. Assoc. 22, 1927).

    The binomial ``sqrt(p (1 - p) / n)`` to first order in 1 / n, and not zero where every
    answer is right, or none: ``1 / (2 (n + 1))``.

    Args:
        right: Of the samples, 0 to ``samples``.
        samples: At least 1.
    """
    share = right / samples
    return math.sqrt(share * (1 - share) / samples + 1 / (4 * samples**2)) / (1 + 1 / samples)


@dataclass(frozen=True, eq=False)
class Labeled:
    """Samples for a study.

    Attributes:
        samples: Input name -> array, each of the input's full shape.
        labels: What the arg-max of the first output should be; ``None`` if not known.
    """

    samples: tuple[Mapping[str, Array], ...]
    labels: tuple[Any, ...] | None


def parse_axes(texts: Sequence[str]) -> dict[str, list[str]]:
    """``key=v1,v2`` options as key -> values, in order.

    Raises:
        UsageError: Not of that form, or a key twice.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key or not all(values.split(",")):
            raise UsageError(
                f"{text!r}: expected key=value,value,...",
                hint="for example photons=100,1000,10000",
            )
        if key in found:
            raise UsageError(f"{key!r} is given twice", hint="list its values in one option")
        found[key] = values.split(",")
        _check_distinct(key, found[key])
    return found


def _check_distinct(key: str, values: Sequence[Any]) -> None:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise UsageError(
            f"{key}: the value {twice[0]} is given twice",
            hint="each value once: its samples would count twice",
        )


def numbers(axes: Mapping[str, Sequence[str]]) -> dict[str, list[float | int]]:
    """Values of optical axes by field of a point.

    Raises:
        UsageError: An unknown key, or not a number of its kind.
    """
    found: dict[str, list[float | int]] = {}
    for key, values in axes.items():
        if key not in AXES:
            raise UsageError(f"unknown device parameter {key!r}", hint=nearest(key, [*AXES]))
        field, kind = AXES[key]
        found[field] = [_number(key, kind, value) for value in values]
        _check_distinct(key, found[field])
    return found


def _number(key: str, kind: type, value: str) -> float | int:
    try:
        found: float | int = kind(value)
    except ValueError as e:
        wanted = "whole numbers" if kind is int else "numbers without a unit"
        raise UsageError(f"{key}: expected {wanted}, found {value!r}") from e
    return found


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last axis fastest."""
    return [dict(zip(axes, at, strict=True)) for at in itertools.product(*axes.values())]


def labeled(path: Path, manifest: Manifest, count: int | None) -> Labeled:
    """Read ``.npz`` samples.

    Either one array for each model input (first axis = samples) or ``images``, uint8, that
    the bundle's preprocessing takes; ``labels`` beside them if known.

    Raises:
        UsageError: A count below 1.
        InputError: The file does not fit the bundle.
    """
    if count is not None and count < 1:
        raise UsageError(f"samples: expected a count >= 1, found {count}")
    arrays = _read(path)
    labels = arrays.pop("labels", None)
    inputs = manifest.inputs
    if "images" in arrays and "images" not in {i.name for i in inputs}:
        samples = _from_images(arrays["images"], manifest, path, count)
    else:
        missing = [i.name for i in inputs if i.name not in arrays]
        if missing:
            raise InputError(
                f"{path}: expected an array {missing[0]!r}, found {sorted(arrays)}",
                hint="one array for each input, or 'images' for recorded preprocessing",
            )
        fed = {i.name: _fed(arrays[i.name], i, path, count) for i in inputs}
        total = min(len(array) for array in fed.values())
        samples = [{name: array[k] for name, array in fed.items()} for k in range(total)]
    if not samples:
        raise InputError(f"{path}: no samples")
    if labels is not None:
        _check_labels(labels, len(samples), path)
    known = None if labels is None else tuple(labels[: len(samples)])
    return Labeled(tuple(samples), known)


def _fed(array: Array, info: TensorInfo, path: Path, count: int | None) -> Array:
    """``[samples, *shape]`` in the input's dtype."""
    wanted, found = f"{info.dtype} [samples, {', '.join(map(str, info.shape))}]", array.dtype
    sized = array.ndim > 0 and math.prod(array.shape[1:]) == math.prod(info.shape)
    if not sized or not np.can_cast(found, info.dtype, "same_kind"):
        raise InputError(
            f"{path}: array {info.name!r}: expected {wanted}, found {found} {array.shape}"
        )
    some = array[:count]
    if not np.isfinite(some).all():
        raise InputError(f"{path}: array {info.name!r} holds NaN or infinity")
    return np.asarray(some.reshape(len(some), *info.shape), info.dtype)


def _check_labels(labels: Array, samples: int, path: Path) -> None:
    if labels.ndim < 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: labels: expected whole numbers, one or a row of them a sample, found "
            f"{labels.dtype} {labels.shape}"
        )
    if len(labels) < samples:
        raise InputError(f"{path}: {samples} samples, but {len(labels)} labels")


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise InputError(f"{path}: cannot be read as .npz: {e}") from e


def _from_images(
    images: Array, manifest: Manifest, path: Path, count: int | None
) -> list[dict[str, Array]]:
    if manifest.preprocess is None:
        raise InputError(
            f"{path} holds 'images', and the bundle records no preprocessing",
            hint="compile with --preprocess, or give arrays named like the inputs",
        )
    if images.ndim < 3:
        raise InputError(
            f"{path}: images: expected uint8 [samples, H, W] or [samples, H, W, 3], found "
            f"{images.dtype} {images.shape}"
        )
    preprocess = Preprocess.from_json(manifest.preprocess)
    info = manifest.inputs[0]
    ready = (preprocess.apply([image]) for image in images[:count])
    return [{info.name: np.asarray(one.reshape(info.shape), info.dtype)} for one in ready]
