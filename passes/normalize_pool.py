"""``MaxPool`` and ``AveragePool`` with explicit padding and no ``ceil_mode``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from edgevit.passes.facts import attr, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.normalize_conv import same_pads
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizePool"]


@dataclass(frozen=True)
class NormalizePool(NodePass):
    """Write pooling out: kernel, strides, pads; resolve ``auto_pad`` and ``ceil_mode``.

    ``MaxPool(x, ceil_mode=1)``  ->  ``MaxPool(x, pads=[0, 0, 1, 1], ceil_mode=0)``

    1. Shapes are known and the input has rank 4. Indices that are read and a dilated kernel
       stay: a backend without them says so.
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
        if shape is None or out is None or len(shape) != 4:
            return Refused("the shape is not known or not of rank 4")
        dilations = tuple(attr(node, "dilations", (1, 1)))
        kernel = tuple(attr(node, "kernel_shape"))
        strides = tuple(attr(node, "strides", (1, 1)))
        pads = _pads(node, shape[2:], kernel, strides)
        if pads is None:
            return Refused("auto_pad of a dilated kernel")
        counted = node.op_type == "AveragePool" and attr(node, "count_include_pad", 0) == 1
        reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
        extra = _extra(shape[2:], out[2:], reach, strides, pads)
        if any(extra) and counted:  # case 2
            return Refused("ceil_mode with counted padding divides by windows cut at the edge")
        wanted: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": (pads[0], pads[1], pads[2] + extra[0], pads[3] + extra[1]),
            "dilations": dilations,
            "ceil_mode": 0,
        }
        if node.op_type == "AveragePool":
            wanted["count_include_pad"] = int(counted)
        else:
            # It orders the indices and says nothing without them.
            indexed = len(node.outputs) > 1
            wanted["storage_order"] = attr(node, "storage_order", 0) if indexed else 0
        if {k: _plain(a.value) for k, a in node.attributes.items()} == wanted:
            return None
        # Dtypes are those of the outputs replaced: indices are integers.
        return op.op_n(node.op_type, [x], [o.shape for o in node.outputs], wanted)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _pads(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...] | None:
    mode = attr(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        if any(d != 1 for d in attr(node, "dilations", (1, 1))):
            return None
        return same_pads(sizes, kernel, strides, (1, 1), mode == "SAME_UPPER")
    return tuple(attr(node, "pads", (0, 0, 0, 0)))


def _extra(
    sizes: tuple[int, ...], out: tuple[int, ...], reach: tuple[int, ...],
    strides: tuple[int, ...], pads: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    """Padding missing at the ends for the output shape that ``ceil_mode`` gives."""
    spans = [(o - 1) * s + k for o, s, k in zip(out, strides, reach, strict=True)]
    have = [size + pads[i] + pads[i + 2] for i, size in enumerate(sizes)]
    return tuple(max(span - h, 0) for span, h in zip(spans, have, strict=True))
