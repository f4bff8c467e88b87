"""Operators that move elements, select them or put them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.torchgraph.site import Operator, Site, Tensor, ints, unsupported

__all__ = ["OPERATORS"]


def _transpose(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    return x[0].permute(at.get("perm", tuple(reversed(range(x[0].ndim)))))


def _split(t: Any, at: Site, x: Sequence[Tensor]) -> Sequence[Tensor]:
    axis = int(at.get("axis", 0))
    if len(x) > 1 and x[1] is not None:
        return list(t.split(x[0], ints(x[1]), dim=axis))
    size = -(-x[0].shape[axis] // at.outputs)
    return list(t.split(x[0], size, dim=axis))


def _slice(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    starts, ends = ints(x[1]), ints(x[2])
    axes = ints(x[3]) if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = ints(x[4]) if len(x) > 4 and x[4] is not None else [1] * len(starts)
    out = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = out.shape[axis]
        # Canonical starts may still lie beyond the last element (ONNX clamps them).
        bound = slice(start, end, step).indices(size)
        index = t.tensor(list(range(*bound)), dtype=t.int64)
        out = (
            t.index_select(out, axis, index)
            if step != 1
            else out.narrow(axis, bound[0], max(bound[1] - bound[0], 0))
        )
    return out


def _gather(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axis, index = int(at.get("axis", 0)) % x[0].ndim, x[1].long()
    index = t.where(index < 0, index + x[0].shape[axis], index)
    taken = t.index_select(x[0], axis, index.reshape(-1))
    shape = (*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :])
    return taken.reshape(shape)


def _gather_elements(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    axis, index = int(at.get("axis", 0)), x[1].long()
    return t.gather(x[0], axis, t.where(index < 0, index + x[0].shape[axis], index))


def _gather_nd(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    if int(at.get("batch_dims", 0)):
        raise unsupported(at, "batch_dims")
    return x[0][tuple(x[1].long().unbind(-1))]


def _scatter_nd(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    kind = at.get("reduction", "none")
    if kind not in ("none", "add"):
        raise unsupported(at, f"reduction={kind}")
    where = tuple(x[1].long().unbind(-1))
    return t.index_put(x[0], where, x[2].to(x[0].dtype), accumulate=kind == "add")


def _pad(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    pads, rank, out = ints(x[1]), x[0].ndim, x[0]
    mode = at.get("mode", "constant")
    value = x[2].item() if len(x) > 2 and x[2] is not None else 0
    for axis in range(rank):
        before, after, size = pads[axis], pads[axis + rank], out.shape[axis]
        if mode == "constant":
            whole = [0, 0] * (rank - 1 - axis) + [before, after]
            out = t.nn.functional.pad(out, whole, value=value)
            continue
        order = [_folded(i, size, mode) for i in range(-before, size + after)]
        out = t.index_select(out, axis, t.tensor(order, dtype=t.int64))
    return out


def _folded(index: int, size: int, mode: str) -> int:
    """The element that a position beyond the border repeats."""
    if mode == "edge":
        return min(max(index, 0), size - 1)
    period = max(2 * (size - 1), 1)
    inside = index % period
    return inside if inside < size else period - inside


def _depth_to_space(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    n, c, h, w = x[0].shape
    b = int(at.get("blocksize"))
    if at.get("mode", "DCR") == "DCR":
        parts, order = (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    return x[0].reshape(parts).permute(order).reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(t: Any, at: Site, x: Sequence[Tensor]) -> Tensor:
    n, c, h, w = x[0].shape
    b = int(at.get("blocksize"))
    parts = x[0].reshape(n, c, h // b, b, w // b, b)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


OPERATORS: dict[str, Operator] = {
    "Concat": lambda t, at, x: t.cat(list(x), dim=int(at.get("axis"))),
    "DepthToSpace": _depth_to_space,
    "Expand": lambda t, at, x: x[0] * t.ones(ints(x[1]), dtype=x[0].dtype),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": lambda t, at, x: x[0].reshape(ints(x[1])),
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Tile": lambda t, at, x: x[0].repeat(ints(x[1])),
    "Transpose": _transpose,
}
