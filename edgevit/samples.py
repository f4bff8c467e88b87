"""The self-check sample as a page shows it: images, best values, decoded heads."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.errors import ArtifactError, InputError, UsageError
from edgevit.manifest import Manifest, TensorInfo
from edgevit.preprocess import Preprocess

__all__ = ["Picture", "Shown", "pixels", "samples"]

Array = np.ndarray[Any, Any]
# The longest side of a picture in the page; larger ones are shrunk.
LONGEST = 256
# Below this many rows or columns a tensor is not taken for an image.
SMALLEST = 8
BEST = 5


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, its size in pixels, and how values became pixels."""

    uri: str
    width: int
    height: int
    note: str


@dataclass(frozen=True)
class Shown:
    """One tensor of the sample.

    Attributes:
        role: ``input`` or ``output``.
        name: Name in the source model.
        dtype: numpy dtype name.
        shape: Static shape.
        span: Smallest and largest finite value, and the mean; ``None`` if there is none.
        picture: ``None`` if it does not look like an image.
        best: (label, value), largest first; empty if it is not one row of scores.
        decoded: What the recorded head makes of it; empty if there is none.
    """

    role: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    span: tuple[float, float, float] | None
    picture: Picture | None
    best: tuple[tuple[str, float], ...]
    decoded: tuple[str, ...]


def samples(bundle: Path, manifest: Manifest) -> tuple[tuple[Shown, ...], ...]:
    """Inputs and the source model's outputs of every entry's self-check sample.

    Raises:
        ArtifactError: The sample cannot be read, or head and outputs do not fit.
    """
    read = registry.load_attribute("edgevit.runtimes.session:read_selfcheck")
    recorded = manifest.preprocess
    preprocess = None if recorded is None else _parsed(recorded)
    found = []
    for entry, (inputs, outputs) in zip(manifest.entries, read(bundle, manifest), strict=True):
        shown = [_input(i, inputs[i.name], preprocess) for i in entry.inputs]
        for index, info in enumerate(entry.outputs):
            head = manifest.head if index == 0 else None
            shown.append(_output(info, outputs[info.name], head))
        found.append(tuple(shown))
    return tuple(found)


def _parsed(data: Mapping[str, Any]) -> Preprocess:
    try:
        return Preprocess.from_json(data)
    except UsageError as e:
        raise ArtifactError(f"manifest.json: preprocess: {e.message}") from e


def _span(array: Array) -> tuple[float, float, float] | None:
    finite = array[np.isfinite(array)].astype(np.float64)
    if not finite.size:
        return None
    return float(finite.min()), float(finite.max()), float(finite.mean())


def _input(info: TensorInfo, array: Array, preprocess: Preprocess | None) -> Shown:
    made = pixels(array, preprocess)
    picture = None if made is None else _picture(*made)
    return Shown("input", info.name, info.dtype, info.shape, _span(array), picture, (), ())


def _output(info: TensorInfo, array: Array, head: Mapping[str, Any] | None) -> Shown:
    decoded = () if head is None else _decoded(array, head)
    made = pixels(array, None) if array.ndim == 4 else None
    picture = None if made is None else _picture(*made)
    best = () if decoded else _best(array)
    shape, span = info.shape, _span(array)
    return Shown("output", info.name, info.dtype, shape, span, picture, best, decoded)


def _best(array: Array) -> tuple[tuple[str, float], ...]:
    """The largest values of the first sample, if it is one row of at least two."""
    row = array[0] if array.ndim > 1 else array
    if row.size < 2 or row.size != row.shape[-1]:
        return ()
    flat = row.reshape(-1).astype(np.float64)
    order = np.argsort(-flat, kind="stable")[:BEST]
    return tuple((f"[{int(i)}]", float(flat[i])) for i in order if np.isfinite(flat[i]))


def _decoded(array: Array, data: Mapping[str, Any]) -> tuple[str, ...]:
    parse = registry.load_attribute("edgevit.runtimes.heads:parse_head")
    try:
        found = parse(data).apply(array)[0]
    except (InputError, UsageError) as e:
        raise ArtifactError(f"the recorded head does not fit the output: {e.message}") from e
    if isinstance(found, np.ndarray):
        return (f"{float(found.mean()):.1%} of the mask is set",)
    if isinstance(found, tuple):
        return tuple(f"{s.label}: {s.score:.4g}" for s in found)
    return (f"text {found.text!r}, confidence {found.confidence:.3g}",)


def pixels(array: Array, preprocess: Preprocess | None) -> tuple[Array, str] | None:
    """The first sample of an image-like tensor as uint8 [H, W] or [H, W, 3], and how.

    Args:
        array: [N, C, H, W] or [N, H, W, C] with one or three channels.
        preprocess: Undone if its channels fit; else the values are stretched to 0..255.
    """
    planes = _planes(array, preprocess)
    if planes is None or not np.isfinite(planes).all():
        return None
    values = planes.astype(np.float64)
    if preprocess is not None and preprocess.channels == values.shape[-1]:
        values = (values * np.array(preprocess.std) + np.array(preprocess.mean)) / (
            preprocess.scale
        )
        note = "preprocessing undone"
        if preprocess.color == "bgr":
            values = values[..., ::-1]
    else:
        low, high = float(values.min()), float(values.max())
        values = (values - low) * (255 / (high - low) if high > low else 0.0)
        note = f"{low:.3g} is black, {high:.3g} is white"
    eight = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return (eight[..., 0] if eight.shape[-1] == 1 else eight), note


def _planes(array: Array, preprocess: Preprocess | None) -> Array | None:
    """[H, W, C] of the first sample; ``None`` if the shape is not an image's."""
    if array.ndim != 4 or array.dtype.kind not in "fui" or not array.size:
        return None
    nchw, nhwc = array[0].transpose(1, 2, 0), array[0]
    order: list[Array] = [nchw, nhwc]
    if preprocess is not None and preprocess.layout == "nhwc":
        order.reverse()
    for planes in order:
        if planes.shape[-1] in (1, 3) and min(planes.shape[:2]) >= SMALLEST:
            return planes
    return None


def _picture(image: Array, note: str) -> Picture:
    from PIL import Image

    opened = Image.fromarray(np.ascontiguousarray(image))
    if max(opened.size) > LONGEST:
        opened.thumbnail((LONGEST, LONGEST))
    out = io.BytesIO()
    opened.save(out, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    # Small images grow by a whole factor, so that their pixels stay square.
    factor = max(1, 168 // max(opened.size))
    return Picture(uri, opened.width * factor, opened.height * factor, note)
