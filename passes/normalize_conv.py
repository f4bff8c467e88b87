"""``Conv`` and ``ConvTranspose`` with every attribute written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, operand, static
from edgevit.passes.nodewise import NodePass, Result
from edgevit.rewrite import Builder, Refused

__all__ = ["NormalizeConv", "same_pads"]


def same_pads(
    sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...],
    dilations: tuple[int, ...], upper: bool,
) -> tuple[int, ...]:  # fmt: skip
    """Pads (all begins, then all ends) that ``SAME_UPPER`` or ``SAME_LOWER`` stand for.

    The output has ``ceil(size / stride)`` elements; the odd element of padding goes to the
    end for upper and to the beginning for lower.
    """
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


@dataclass(frozen=True)
class NormalizeConv(NodePass):
    """Write out kernel shape, strides, dilations, pads and groups; drop a zero bias.

    ``Conv(x, W, auto_pad=SAME_UPPER)``  ->  ``Conv(x, W, pads=[0, 0, 1, 1], ...)``

    1. The weight is constant and the shapes are known.
    2. ``auto_pad`` is resolved from the shapes, as is ``output_shape`` of ``ConvTranspose``.
    3. A constant bias that is all zero goes.
    """

    name: ClassVar[str] = "normalize-conv"
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Rewrite unless all is written out."""
        source, weight = operand(node, 0), operand(node, 1)
        shape, kernel = static(source), static(weight)
        out = static(node.outputs[0])
        if shape is None or kernel is None or out is None:
            return Refused("shapes are not known")
        wanted = _explicit(node, shape[2:], kernel[2:], out[2:])
        bias = given(node, 2)
        values = constant(bias)
        keeps_bias = bias is not None and (values is None or bool(values.any()))
        have = {k: _plain(a.value) for k, a in node.attributes.items()}
        if have == wanted and keeps_bias == (bias is not None):
            return None
        inputs = [source, weight, bias] if keeps_bias else [source, weight]
        return op.op(node.op_type, inputs, wanted, shape=out, dtype=source.dtype)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _explicit(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> dict[str, Any]:
    ones = (1,) * len(kernel)
    found: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": tuple(attr(node, "strides", ones)),
        "dilations": tuple(attr(node, "dilations", ones)),
        "group": int(attr(node, "group", 1)),
    }
    mode = attr(node, "auto_pad", "NOTSET")
    if node.op_type == "ConvTranspose":
        return found | _transposed(node, sizes, out, found, mode)
    if mode in ("SAME_UPPER", "SAME_LOWER"):  # case 2
        upper = mode == "SAME_UPPER"
        pads = same_pads(sizes, kernel, found["strides"], found["dilations"], upper)
    else:
        pads = tuple(attr(node, "pads", (0, 0) * len(kernel)))
    return found | {"pads": pads}


def _transposed(
    node: ir.Node,
    sizes: tuple[int, ...],
    out: tuple[int, ...],
    found: dict[str, Any],
    mode: str,
) -> dict[str, Any]:
    extra = list(attr(node, "output_padding", (0,) * len(sizes)))
    if mode == "NOTSET" and "output_shape" not in node.attributes:
        pads = tuple(attr(node, "pads", (0, 0) * len(sizes)))
        return {"pads": pads, "output_padding": tuple(extra)}
    begins, ends = [], []
    for i, (size, wanted) in enumerate(zip(sizes, out, strict=True)):
        reach = found["dilations"][i] * (found["kernel_shape"][i] - 1) + 1
        total = found["strides"][i] * (size - 1) + extra[i] + reach - wanted
        # More than the windows reach is wanted: zeros behind them, nothing to cut.
        extra[i], total = extra[i] + max(-total, 0), max(total, 0)
        # The ConvTranspose text of the ONNX standard: SAME_UPPER puts the odd one last.
        half = total // 2 if mode == "SAME_UPPER" else total - total // 2
        begins.append(half)
        ends.append(total - half)
    return {"pads": (*begins, *ends), "output_padding": tuple(extra)}
