"""``MaxPool`` and ``AveragePool`` with explicit padding and no ``ceil_mode``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_conv import same_pads
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizePool"]


@dataclass(frozen=True)
class NormalizePool(NodePass):
    """Write pooling out: kernel, strides, pads; resolve ``auto_pad`` and ``ceil_mode``.

    ``MaxPool(x, ceil_mode=1)``  ->  ``MaxPool(x, pads=[0, 0, 1, 1], ceil_mode=0)``

    1. Shapes are known and the input has rank 4; rank 3 gets a height of one and comes back
       behind. Indices that are read and a dilated kernel stay: a backend without them says so.
    2. ``ceil_mode`` becomes the extra padding that gives the same output shape, or nothing
       if the division was exact. For the average this changes counts, so there it is done
       only where padding is not counted.
    """

    name: ClassVar[str] = "normalize-pool"
    ops: ClassVar[frozenset[str]] = frozenset({"MaxPool", "AveragePool"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless all is written out."""
        x = operand(node, 0)
        shape, out = static(x), static(node.outputs[0])
        if shape is None or out is None or len(shape) not in (3, 4):
            return Refused("the shape is not known, or of a rank other than 3 and 4")
        wanted = _explicit(node, shape[2:], out[2:])
        if isinstance(wanted, Refused):
            return wanted
        if len(shape) == 3:
            return _widened(node, op, x, out, wanted)
        if {k: _plain(a.value) for k, a in node.attributes.items()} == wanted:
            return None
        # Dtypes are those of the outputs replaced: indices are integers.
        return op.op_n(node.op_type, [x], [o.shape for o in node.outputs], wanted)


def _explicit(
    node: ir.Node, sizes: tuple[int, ...], out: tuple[int, ...]
) -> dict[str, Any] | Refused:
    """All attributes, written out."""
    ones = (1,) * len(sizes)
    dilations = tuple(attr(node, "dilations", ones))
    kernel = tuple(attr(node, "kernel_shape"))
    strides = tuple(attr(node, "strides", ones))
    pads = _pads(node, sizes, kernel, strides)
    if pads is None:
        return Refused("auto_pad of a dilated kernel")
    counted = node.op_type == "AveragePool" and attr(node, "count_include_pad", 0) == 1
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    extra = _extra(sizes, out, reach, strides, pads)
    if any(extra) and counted:  # case 2
        return Refused("ceil_mode with counted padding divides by windows cut at the edge")
    begins, ends = pads[: len(sizes)], pads[len(sizes) :]
    wanted: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": (*begins, *(e + more for e, more in zip(ends, extra, strict=True))),
        "dilations": dilations,
        "ceil_mode": 0,
    }
    if node.op_type == "AveragePool":
        return wanted | {"count_include_pad": int(counted)}
    # It orders the indices and says nothing without them.
    indexed = len(node.outputs) > 1
    return wanted | {"storage_order": attr(node, "storage_order", 0) if indexed else 0}


def _widened(
    node: ir.Node, op: Builder, x: ir.Value, out: tuple[int, ...], wanted: dict[str, Any]
) -> Result:
    """The same over an image of height one."""
    if len(node.outputs) > 1:
        return Refused("the indices of a pool of rank 3 are read")

    def reshape(source: ir.Value, target: tuple[int, ...]) -> ir.Value:
        to = op.constant(np.array(target, np.int64))
        return op.op("Reshape", [source, to], {"allowzero": 0}, shape=target, dtype=x.dtype)

    begin, end = wanted["pads"]
    units = {name: (1, *wanted[name]) for name in ("kernel_shape", "strides", "dilations")}
    attributes = wanted | units | {"pads": (0, begin, 0, end)}
    batch, channels, length = shape_of(x)
    wide = reshape(x, (batch, channels, 1, length))
    tall = (*out[:2], 1, out[2])
    return reshape(op.op(node.op_type, [wide], attributes, shape=tall, dtype=x.dtype), out)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _pads(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...] | None:
    mode = attr(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        if any(d != 1 for d in attr(node, "dilations", ())):
            return None
        ones = (1,) * len(sizes)
        return same_pads(sizes, kernel, strides, ones, mode == "SAME_UPPER")
    return tuple(attr(node, "pads", (0, 0) * len(sizes)))


def _extra(
    sizes: tuple[int, ...], out: tuple[int, ...], reach: tuple[int, ...],
    strides: tuple[int, ...], pads: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    """Padding missing at the ends for the output shape that ``ceil_mode`` gives."""
    spans = [(o - 1) * s + k for o, s, k in zip(out, strides, reach, strict=True)]
    have = [size + pads[i] + pads[i + len(sizes)] for i, size in enumerate(sizes)]
    return tuple(max(span - h, 0) for span, h in zip(spans, have, strict=True))
