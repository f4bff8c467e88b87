"""``Resize`` with its scales or sizes for all axes and nothing it does not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import Array, attr, attrs, given, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeResize"]


@dataclass(frozen=True)
class NormalizeResize(NodePass):
    """Bring ``Resize`` to ``scales`` where they are whole, else keep what is given.

    ``Resize(x, roi, , sizes=[1, 8, 14, 14])``, x ``[1, 8, 7, 7]``
    ->  ``Resize(x, , scales=[1, 1, 2, 2])``

    1. ``roi`` is read by ``tf_crop_and_resize`` only: refused there, left out elsewhere.
    2. Sizes that are whole multiples of the input's become scales, which are then exact.
    3. ``axes`` are spread over all dimensions; an equal shape and scales of one are a no-op.
    4. A kept aspect ratio has one scale for all axes, which is written out if the sizes that
       it gives are those that the rounding of the ratio gave.
    """

    name: ClassVar[str] = "normalize-resize"
    ops: ClassVar[frozenset[str]] = frozenset({"Resize"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless the form is reached."""
        x, out = operand(node, 0), node.outputs[0]
        shape, target = static(x), static(out)
        if shape is None or target is None:
            return Refused("the shapes are not known")
        if attr(node, "coordinate_transformation_mode") == "tf_crop_and_resize":  # case 1
            return Refused("tf_crop_and_resize reads a region")
        scales, sizes = constant(given(node, 2)), constant(given(node, 3))
        if scales is None and sizes is None:
            return Refused("scales and sizes are not constant")
        policy = attr(node, "keep_aspect_ratio_policy", "stretch")
        kept_ratio = policy != "stretch" and sizes is not None
        if kept_ratio and sizes is not None:  # case 4
            full = _ratio(node, sizes, shape, target, policy)
            if full is None:
                return Refused(f"{policy} gives sizes that no scale gives exactly")
        else:
            full = _scales(node, scales, shape, target)
        if full is not None and (full == 1).all():  # case 3
            return x
        if _is_plain(node, full):
            return None
        if full is not None:
            tail = [None, op.constant(full)]
        else:  # the policy is to stretch: the sizes asked for are those of the result
            tail = [None, None, op.constant(np.array(target, np.int64))]
        kept = attrs(node, axes=None, keep_aspect_ratio_policy="stretch")
        return op.op("Resize", [x, *tail], kept, shape=target, dtype=x.dtype)


def _ratio(
    node: ir.Node, sizes: Array, shape: tuple[int, ...], target: tuple[int, ...], policy: str
) -> Array | None:
    """The one scale of the resized axes; ``None`` if no float gives the result's sizes."""
    axes = [a % len(shape) for a in attr(node, "axes", range(len(shape)))]
    each = [float(s) / shape[a] for a, s in zip(axes, sizes.reshape(-1), strict=True)]
    full = np.ones(len(shape), np.float32)
    full[axes] = min(each) if policy == "not_larger" else max(each)
    made = tuple(int(np.floor(np.float32(n) * s)) for n, s in zip(shape, full, strict=True))
    return full if made == target else None


def _scales(
    node: ir.Node, scales: Array | None, shape: tuple[int, ...], target: tuple[int, ...]
) -> Array | None:
    """Scales of all axes; ``None`` if only sizes say it exactly."""
    if scales is not None and scales.size:
        full = np.ones(len(shape), np.float32)
        full[list(attr(node, "axes", range(len(shape))))] = scales
        return full
    if any(t % s for t, s in zip(target, shape, strict=True)):
        return None
    return np.array([t // s for t, s in zip(target, shape, strict=True)], np.float32)


def _is_plain(node: ir.Node, full: Array | None) -> bool:
    if "axes" in node.attributes or given(node, 1) is not None:
        return False
    if full is None:
        return True
    scales = constant(given(node, 2))
    return scales is not None and np.array_equal(scales, full) and len(node.inputs) == 3
