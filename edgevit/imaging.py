"""Open what may be an image as 8-bit RGB or gray. Pillow and numpy, imported on use."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["open_image"]

# One byte a channel; the others (I;16, F, ...) have no agreed range to scale from.
_BYTE_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"}
)


def open_image(source: Any, gray: bool) -> Image.Image:
    """Open an image.

    Alpha is dropped, the first frame of several is taken, and a camera's orientation tag is
    applied.

    Args:
        source: A path, a ``PIL.Image``, or a uint8 array [H, W], [H, W, 1] or [H, W, 3].
        gray: Give mode ``L`` instead of ``RGB``.

    Raises:
        InputError: It cannot be read, or has not 8 bits a channel.
    """
    from PIL import Image

    if isinstance(source, (str, os.PathLike)):
        return _read(source, gray)
    if isinstance(source, Image.Image):
        return _converted(source, gray, "image")
    return _converted(_from_array(source), gray, "array")


def _read(path: str | os.PathLike[str], gray: bool) -> Image.Image:
    from PIL import Image

    where = os.fspath(path)
    try:
        # Pillow warns about damaged metadata and about size; the pixels decide here.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return _converted(image, gray, where)
    except InputError:
        raise
    except FileNotFoundError as e:
        raise InputError(f"{where}: no such image") from e
    except Exception as e:
        raise InputError(f"{where}: expected an image, found: {e}") from e


def _converted(image: Image.Image, gray: bool, where: str) -> Image.Image:
    from PIL import ImageOps

    if image.mode not in _BYTE_MODES:
        raise InputError(
            f"{where}: expected 8 bits a channel, found mode {image.mode}",
            hint="convert the image to 8 bits first",
        )
    turned = ImageOps.exif_transpose(image)
    if "transparency" in turned.info:
        turned = turned.convert("RGBA")
    return turned.convert("L" if gray else "RGB")


def _from_array(source: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    if not isinstance(source, np.ndarray):
        raise InputError(
            f"expected a path, an image or a uint8 array, found {type(source).__name__}"
        )
    shape = source.shape
    sound = source.ndim == 2 or (source.ndim == 3 and shape[2] in (1, 3))
    if source.dtype != np.uint8 or not sound or 0 in shape:
        raise InputError(
            "expected a uint8 array [H, W], [H, W, 1] or [H, W, 3], "
            f"found {source.dtype} {shape}",
            hint="several images are a list of such arrays",
        )
    flat = source[..., 0] if source.ndim == 3 and shape[2] == 1 else source
    return Image.fromarray(np.ascontiguousarray(flat))
