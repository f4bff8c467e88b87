"""From an image to the tensor that a model expects; recorded in every bundle.

Numpy and Pillow only, so that calibration and devices share it. The short form is::

    color=rgb|bgr|gray,resize=H[xW],fit=stretch|shorter|pad,crop=HxW,scale=1/255,
    mean=.485/.456/.406,std=.229/.224/.225,pad=0,layout=nchw|nhwc,
    interpolation=bilinear|bicubic

A list (``mean``, ``std``) is separated by ``/``, one number for all channels or one a channel.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from edgevit.errors import InputError, UsageError
from edgevit.imaging import open_image
from edgevit.registry import nearest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

__all__ = ["Preprocess"]

_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "color": tuple(_CHANNELS),
    "fit": ("stretch", "shorter", "pad"),
    "layout": ("nchw", "nhwc"),
    "interpolation": ("bilinear", "bicubic"),
}
_PER_BYTE = 1 / 255


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a float32 tensor; the fields are applied in this order.

    Attributes:
        color: Channel order; gray is ITU-R 601 luma.
        resize: (height, width); one number in the short form is both. ``None`` keeps the size.
        fit: ``stretch`` gives exactly ``resize``; ``shorter`` keeps the aspect ratio and
            covers it; ``pad`` keeps the aspect ratio inside it and fills right and bottom.
        crop: (height, width) cut from the center; ``None`` keeps all.
        scale: Factor on the 0..255 values.
        mean: Subtracted after ``scale``; one number or one a channel.
        std: Divides after ``mean``; one number or one a channel.
        pad: What ``fit=pad`` fills with, *after* normalization.
        layout: Order of the axes of the result.
        interpolation: Of the resize; both are low-pass filtered when they shrink.
    """

    color: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: tuple[int, int] | None = None
    fit: Literal["stretch", "shorter", "pad"] = "stretch"
    crop: tuple[int, int] | None = None
    scale: float = _PER_BYTE
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pad: float = 0.0
    layout: Literal["nchw", "nhwc"] = "nchw"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise _wrong(key, "one of " + ", ".join(known), getattr(self, key))
        for key in ("mean", "std"):
            values = getattr(self, key)
            if len(values) not in (1, self.channels):
                raise _wrong(key, f"1 or {self.channels} numbers", values)
        numbers = (self.scale, self.pad, *self.mean, *self.std)
        if not all(math.isfinite(n) for n in numbers):
            raise _wrong("scale, mean, std, pad", "finite numbers", numbers)
        if min(self.std) <= 0 or self.scale == 0:
            raise _wrong(
                "scale, std", "scale other than 0, std above 0", (self.scale, self.std)
            )
        for key in ("resize", "crop"):
            size = getattr(self, key)
            if size is not None and min(size) < 1:
                raise _wrong(key, "positive sizes", size)
        if self.resize is None and self.fit != "stretch":
            raise UsageError(f"preprocess: fit={self.fit} needs resize=H or resize=HxW")
        if self.pad != 0 and self.fit != "pad":
            raise UsageError("preprocess: pad= needs fit=pad", hint="leave it out, or pad=0")

    @property
    def channels(self) -> int:
        """3, or 1 for gray."""
        return _CHANNELS[self.color]

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Parse the short form, or a TOML inline table or JSON object in braces.

        Raises:
            UsageError: An unknown or repeated key, or a value that the key does not take.
        """
        if text.lstrip().startswith("{"):
            return cls.from_json(_parse_object(text))
        raw: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (s.strip() for s in item.partition("="))
            if not equals:
                raise UsageError(
                    f"preprocess: expected key=value, found {item!r}",
                    hint="lists are separated by a slash: mean=.485/.456/.406",
                )
            _check_key(key)
            if key in raw:
                raise UsageError(f"preprocess: {key!r} is given twice")
            raw[key] = value
        return cls(**{k: _FROM_TEXT[k](k, v) for k, v in raw.items()})

    def __str__(self) -> str:
        """The short form; ``parse`` reads it back equal. Defaults but color are left out."""
        texts = [f"color={self.color}"]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                texts.append(f"{field.name}={_to_text(field.name, value)}")
        return ",".join(texts)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @classmethod
    def from_json(cls, data: Any) -> Preprocess:
        """Inverse of ``to_json``; keys may be left out (also of a TOML table).

        Raises:
            UsageError: An unknown key, or a value of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise _wrong("the specification", "an object", data)
        for key in data:
            _check_key(key)
        return cls(**{k: _FROM_JSON[k](k, v) for k, v in data.items()})

    def apply(self, images: Any) -> np.ndarray[Any, Any]:
        """Preprocess one image or several.

        Args:
            images: A path, a ``PIL.Image``, a uint8 array [H, W], [H, W, 1] or [H, W, 3]
                (red first); or a list or tuple of these.

        Returns:
            float32 array [N, C, H, W] or [N, H, W, C].

        Raises:
            InputError: An image cannot be read, is too small to crop, or the results differ
                in shape.
        """
        import numpy as np

        several = list(images) if isinstance(images, (list, tuple)) else [images]
        if not several:
            raise InputError("preprocess: expected at least one image, found none")
        arrays = [self._one(image) for image in several]
        shapes = list(dict.fromkeys(a.shape for a in arrays))
        if len(shapes) > 1:
            raise InputError(
                f"preprocess: images of one batch end up with the shapes {shapes}",
                hint="give resize=HxW, or crop=HxW",
            )
        return np.stack(arrays)

    def _one(self, source: Any) -> np.ndarray[Any, Any]:
        import numpy as np

        image = self._cropped(self._resized(open_image(source, self.color == "gray")))
        values = np.asarray(image, dtype=np.float32)
        values = values.reshape(*values.shape[:2], self.channels)
        if self.color == "bgr":
            values = values[..., ::-1]
        mean, std = (np.asarray(v, dtype=np.float32) for v in (self.mean, self.std))
        values = (values * np.float32(self.scale) - mean) / std
        if self.fit == "pad":
            values = self._padded(values)
        if self.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, dtype=np.float32)

    def _resized(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        if self.resize is None:
            return image
        size = _fitted(image.height, image.width, self.resize, self.fit)
        if size == (image.height, image.width):
            return image
        how = Image.Resampling[self.interpolation.upper()]
        return image.resize((size[1], size[0]), how)

    def _cropped(self, image: Image.Image) -> Image.Image:
        # With fit=pad the image may be smaller than the crop until it is padded.
        if self.crop is None or self.fit == "pad":
            return image
        top, left = _center(image.height, image.width, self.crop)
        return image.crop((left, top, left + self.crop[1], top + self.crop[0]))

    def _padded(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        height, width = self.resize or values.shape[:2]
        full = np.full((height, width, self.channels), self.pad, dtype=np.float32)
        full[: values.shape[0], : values.shape[1]] = values
        if self.crop is None:
            return full
        top, left = _center(height, width, self.crop)
        return full[top : top + self.crop[0], left : left + self.crop[1]]


def _fitted(height: int, width: int, size: tuple[int, int], fit: str) -> tuple[int, int]:
    """Size after the resize, in integer arithmetic so that no rounding is left to chance."""
    if fit == "stretch":
        return size
    # Comparing height/width with size[0]/size[1] without division.
    tall = height * size[1] > width * size[0]
    if tall == (fit == "pad"):
        return size[0], max(1, -(-width * size[0] // height))
    return max(1, -(-height * size[1] // width)), size[1]


def _center(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int]:
    if height < crop[0] or width < crop[1]:
        raise InputError(
            f"preprocess: crop={crop[0]}x{crop[1]} does not fit an image of {height}x{width}",
            hint="give a larger resize=, or resize=HxW,fit=shorter",
        )
    # Half to even, as the usual training pipelines crop.
    return round((height - crop[0]) / 2), round((width - crop[1]) / 2)


def _wrong(key: str, expected: str, found: object) -> UsageError:
    return UsageError(f"preprocess: {key}: expected {expected}, found {found!r}")


def _check_key(key: str) -> None:
    known = [f.name for f in fields(Preprocess)]
    if key not in known:
        raise UsageError(f"preprocess: unknown key {key!r}", hint=nearest(str(key), known))


def _parse_object(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        pass  # then it is TOML, or an error
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"preprocess: neither JSON nor TOML: {text!r}: {e}") from e


def _size_text(key: str, text: str) -> tuple[int, int]:
    numbers = text.lower().split("x")
    if key == "resize" and len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not all(n.isascii() and n.isdigit() for n in numbers):
        raise _wrong(key, "HxW", text)
    return int(numbers[0]), int(numbers[1])


def _number_text(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as e:
        raise _wrong(key, "a number", text) from e


def _scale_text(key: str, text: str) -> float:
    """A number or a fraction of two."""
    above, slash, below = text.partition("/")
    divisor = _number_text(key, below) if slash else 1.0
    if divisor == 0:
        raise _wrong(key, "a number or a fraction", text)
    return _number_text(key, above) / divisor


def _list_text(key: str, text: str) -> tuple[float, ...]:
    return tuple(_number_text(key, item) for item in text.split("/"))


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "a word", value)
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(key, "a number", value)
    return float(value)


def _size(key: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if key == "resize" and type(value) is int:
        value = [value, value]
    pair = isinstance(value, Sequence) and len(value) == 2
    if not pair or not all(type(n) is int for n in value):
        raise _wrong(key, "[height, width]", value)
    return (value[0], value[1])


def _list(key: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_number(key, item) for item in value)
    return (_number(key, value),)


def _to_text(key: str, value: Any) -> str:
    if key in ("resize", "crop"):
        return "x".join(str(n) for n in value)
    if isinstance(value, tuple):
        return "/".join(repr(n) for n in value)
    return str(value)


_FROM_TEXT: Mapping[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(_CHOICES, _word),
    **dict.fromkeys(("resize", "crop"), _size_text),
    **dict.fromkeys(("mean", "std"), _list_text),
    "scale": _scale_text,
    "pad": _number_text,
}
_FROM_JSON: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_CHOICES, _word),
    **dict.fromkeys(("resize", "crop"), _size),
    **dict.fromkeys(("mean", "std"), _list),
    **dict.fromkeys(("scale", "pad"), _number),
}
