"""``Resize`` as a product with one matrix an axis, so that it has gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgevit.torchgraph.site import Operator, Site, Tensor, ints, unsupported

__all__ = ["OPERATORS", "axis_matrix"]

Array = np.ndarray[Any, Any]
_SOURCE: dict[str, Callable[[int, float, int, int], float]] = {
    "half_pixel": lambda i, scale, _, __: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, _, n: (i + 0.5) / scale - 0.5 if n > 1 else 0.0,
    "asymmetric": lambda i, scale, _, __: i / scale,
    "align_corners": lambda i, _, m, n: i * (m - 1) / (n - 1) if n > 1 else 0.0,
}
_NEAREST: dict[str, Callable[[float], float]] = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def axis_matrix(at: Site, size: int, result: int, scale: float) -> Array:
    """What each element of one resized axis takes of the elements before, ``[result, size]``.

    Raises:
        UnsupportedModelError: A form of resizing that is not written here.
    """
    where = at.get("coordinate_transformation_mode", "half_pixel")
    mode = at.get("mode", "nearest")
    if where not in _SOURCE or at.get("antialias", 0) or at.get("exclude_outside", 0):
        raise unsupported(at, f"{mode}, {where}")
    matrix = np.zeros((result, size))
    for i in range(result):
        x = _SOURCE[where](i, scale, size, result)
        for source, share in _taps(at, mode, x):
            matrix[i, min(max(source, 0), size - 1)] += share
    return matrix


def _taps(at: Site, mode: str, x: float) -> list[tuple[int, float]]:
    base = math.floor(x)
    part = x - base
    if mode == "nearest":
        kind = at.get("nearest_mode", "round_prefer_floor")
        return [(int(_NEAREST[kind](x)), 1.0)]
    if mode == "linear":
        return [(base, 1 - part), (base + 1, part)]
    a = float(at.get("cubic_coeff_a", -0.75))
    return [(base + k, _cubic(abs(part - k), a)) for k in (-1, 0, 1, 2)]


def _cubic(d: float, a: float) -> float:
    """Keys' kernel (IEEE ASSP 29, 1981)."""
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def _resize(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    out, rank = x[0], x[0].ndim
    given = x[2] if len(x) > 2 and x[2] is not None and x[2].numel() else None
    scales = [1.0] * rank if given is None else [float(s) for s in given.tolist()]
    if given is None:
        sizes = ints(x[3])
        scales = [n / m for n, m in zip(sizes, out.shape, strict=True)]
    else:
        sizes = [math.floor(m * s) for m, s in zip(out.shape, scales, strict=True)]
    for axis in range(rank):
        if scales[axis] == 1.0:
            continue
        made = axis_matrix(at, out.shape[axis], sizes[axis], scales[axis])
        matrix = t.tensor(made, dtype=out.dtype)
        out = t.movedim(t.movedim(out, axis, -1) @ matrix.T, -1, axis)
    return out


OPERATORS: dict[str, Operator] = {"Resize": _resize}
