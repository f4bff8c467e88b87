"""Padding of windows: what TFLite's SAME and VALID mean, and when PAD is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgevit.targets.litert.context import Context

__all__ = ["Window", "pad_spatial", "same_pads", "scheme", "window_of"]


@dataclass(frozen=True)
class Window:
    """A window over height and width.

    Attributes:
        kernel: Height, width.
        strides: Along height, width.
        dilations: Along height, width.
        pads: ``(top, left, bottom, right)``.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that a dilated window covers."""
        (kh, kw), (dh, dw) = self.kernel, self.dilations
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[1]


def window_of(node: ir.Node) -> Window:
    """The window of a convolution or pooling node."""

    def ints(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        found = node.attributes.get(name)
        return default if found is None else tuple(found.as_ints())

    top, left, bottom, right = ints("pads", (0, 0, 0, 0))
    return Window(
        kernel=_two(ints("kernel_shape", (1, 1))),
        strides=_two(ints("strides", (1, 1))),
        dilations=_two(ints("dilations", (1, 1))),
        pads=(top, left, bottom, right),
    )


def same_pads(size: int, extent: int, stride: int) -> tuple[int, int]:
    """Padding before and after under SAME: the odd element goes after."""
    out = -(-size // stride)
    total = max((out - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def scheme(window: Window, size: tuple[int, int]) -> str | None:
    """``"VALID"`` or ``"SAME"`` if one of them is exactly these pads, else ``None``."""
    if not any(window.pads):
        return "VALID"
    top, left, bottom, right = window.pads
    height = same_pads(size[0], window.extent[0], window.strides[0])
    width = same_pads(size[1], window.extent[1], window.strides[1])
    return "SAME" if (height, width) == ((top, bottom), (left, right)) else None


def padding_code(name: str) -> int:
    """Code of SAME or VALID in the schema."""
    return int(getattr(schema.Padding, name))


def pad_spatial(
    ctx: Context, tensor: int, pads: tuple[int, int, int, int], fill: float | None = None
) -> int:
    """Pad height and width of an NHWC tensor with zero, or with ``fill``."""
    top, left, bottom, right = pads
    n, h, w, c = ctx.writer.shape(tensor)
    amounts = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
    table = ctx.constant("paddings", amounts)
    shape = (n, h + top + bottom, w + left + right, c)
    if fill is None:
        return ctx.emit("PAD", [tensor, table], shape, options=schema.PadOptionsT())
    dtype, params = ctx.writer.dtype(tensor), ctx.writer.quantization(tensor)
    value = ctx.writer.codes("fill", np.full((1,), fill), dtype, params)
    options = schema.PadV2OptionsT()
    return ctx.emit("PADV2", [tensor, table, value], shape, options=options)
