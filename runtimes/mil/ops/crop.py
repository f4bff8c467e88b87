"""Boxes cut out of images and resized.

Source: coremltools ``ops/defs/iOS15/image_resizing.py`` (``crop_resize``), ``iOS16`` (padding)
and ``iOS17`` (boxes and indices apart).

MIL defines its sampling modes on whole axes only. Where the coremltools tests record values of
Core ML for boxes, or another definition of the same operator exists, the mode is evaluated:
aligned corners, and ``OFFSET_CORNERS``, which is RoIAlign with one sample a bin. Others, and
boxes given by their center, are refused.
"""

from __future__ import annotations

import numpy as np

from edgevit.runtimes.mil.context import Context, Kernel
from edgevit.runtimes.mil.spec import Array

__all__ = ["OPERATORS"]

_CORNERS = {"CORNERS_HEIGHT_FIRST": (0, 1, 2, 3), "CORNERS_WIDTH_FIRST": (1, 0, 3, 2)}


def _points(mode: str, start: float, end: float, m: int) -> Array:
    """``m`` sampling points between two coordinates; an inverted box runs backwards."""
    if mode in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        if m == 1:
            return np.array([(start + end) / 2 if mode == "ALIGN_CORNERS" else start])
        return np.linspace(start, end, m)
    if mode == "OFFSET_CORNERS" and end >= start:
        return np.asarray(start + (np.arange(m) + 0.5) * max(1.0, end - start) / m)
    raise ValueError(f"the sampling mode {mode!r} is not defined for this box")


def _sample(image: Array, rows: Array, columns: Array, outside: float | None) -> Array:
    """``image [..., H, W]`` bilinear at a grid; ``outside`` where a point is not in it."""
    height, width = image.shape[-2:]
    inside = ((rows >= 0) & (rows <= height - 1))[:, None] & (
        (columns >= 0) & (columns <= width - 1)
    )
    if outside is None and not inside.all():
        raise ValueError("a box leaves the image, which MIL defines from iOS 16 on")
    y, x = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    v = (y - top).astype(np.float32)[:, None]
    h = (x - left).astype(np.float32)
    upper = image[..., top, :] + v * (image[..., bottom, :] - image[..., top, :])
    values = upper[..., left] + h * (upper[..., right] - upper[..., left])
    return np.where(inside, values, np.float32(0 if outside is None else outside))


def _entries(roi: Array | None, boxes: Array | None, indices: Array | None) -> list[Array]:
    """``[image index or -1 for all, four coordinates]`` of each box."""
    if roi is not None:
        flat = roi.reshape(roi.shape[0], -1).astype(np.float64)
        every = np.full((len(flat), 1), -1.0)
        return list(flat if flat.shape[1] == 5 else np.concatenate([every, flat], axis=1))
    if boxes is None:
        raise ValueError("expected roi, or boxes from iOS 17 on, found neither")
    image = np.arange(len(boxes)) if indices is None else indices.reshape(-1)
    return list(np.concatenate([image[:, None].astype(float), boxes.astype(float)], axis=1))


def _crop_resize(
    ctx: Context,
    x: Array,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    target_height: Array | None = None,
    target_width: Array | None = None,
    normalized_coordinates: Array | None = None,
    spatial_scale: Array | None = None,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: Array | None = None,
) -> Array:
    """Each box of ``x [B, C, H, W]`` resized to ``[C, height, width]``.

    ``roi`` of 4 coordinates cuts every image: ``[N, B, C, h, w]``; of 5, the first being the
    image: ``[N, 1, C, h, w]``. ``boxes`` with ``box_indices`` give ``[N, C, h, w]``.
    """
    if box_coordinate_mode not in _CORNERS:
        raise ValueError(f"expected corners, found {box_coordinate_mode!r}")
    height = 1 if target_height is None else int(target_height)
    width = 1 if target_width is None else int(target_width)
    scale = np.full(2, 1.0 if spatial_scale is None else float(spatial_scale))
    if normalized_coordinates is not None and bool(normalized_coordinates):
        scale *= np.array(x.shape[-2:]) - 1
    outside = None
    if ctx.opset >= 16:
        outside = 0.0 if pad_value is None else float(pad_value)
    crops = []
    for entry in _entries(roi, boxes, box_indices):
        y0, x0, y1, x1 = entry[1:][list(_CORNERS[box_coordinate_mode])] * np.tile(scale, 2)
        rows = _points(sampling_mode, y0, y1, height)
        columns = _points(sampling_mode, x0, x1, width)
        which = int(entry[0])
        if which >= len(x):
            raise ValueError(f"box of image {which}, there are {len(x)}")
        images = x if which < 0 else x[which : which + 1]
        crops.append(_sample(images, rows, columns, outside))
    stacked = np.stack(crops)
    return stacked if roi is not None else stacked[:, 0]


OPERATORS: dict[str, Kernel] = {"crop_resize": _crop_resize}
